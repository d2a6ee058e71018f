"""How the stand-ins behave where the vendors differ, or are not known: `/settings`.

dialect         AudienceLab's calls as observed in live answers, or as its older reference
                documents them; the other's paths are not there, its keys are unknown
total_name      how pages of pixels, audiences and records tell the total: both were seen
error_shape     AudienceLab's errors: {"error": {code, message}}, {"error": text} or {"message"}
pages           "walked", or "stuck": `page` is ignored and every page is the first
drift           rows that come to a segment (or pixel) with each answered page, newest first;
                negative: that many of the newest leave, so that the next page skips them
drift_times     after how many pages that ends; None lasts
polls           looks at a job or a new audience until it is done
job_end         None: COMPLETED or NO_DATA by what was found. "never": stays PROCESSING.
                Any other word is the status it ends with
result_file     where a job's rows are: "csv.gz" or "csv" from this stand-in, or a "gs" address
result_rows     so many invented rows in a result file, in place of those that were found
scores          address -> scores that differ from the invented ones; None leaves it out
scores_reversed AudiencePoint answers scores in another order than asked
scores_typed    numbers and booleans in place of texts
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from sandbox.addresses import hash_of

Dialect = Literal["observed", "documented"]
TotalName = Literal["total_records", "total"]
ErrorShape = Literal["object", "text", "message"]
Pages = Literal["walked", "stuck"]
ResultFile = Literal["csv.gz", "csv", "gs"]
Scores = dict[str, dict[str, str] | None]


class BadSetting(Exception):
    """A setting given as JSON makes no sense. The message says why."""


@dataclass(slots=True)
class Settings:
    """What is set now. Assign at any time, also from another thread."""

    dialect: Dialect = "observed"
    total_name: TotalName = "total_records"
    error_shape: ErrorShape = "object"
    pages: Pages = "walked"
    drift: int = 0
    drift_times: int | None = None
    polls: int = 3
    job_end: str | None = None
    result_file: ResultFile = "csv.gz"
    result_rows: int | None = None
    scores: Scores = field(default_factory=dict)
    scores_reversed: bool = False
    scores_typed: bool = False
    _first: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._first = self.listed()

    def change(self, message: object) -> None:
        """Take over what a JSON object names; all of it or nothing. Raises `BadSetting`."""
        if not isinstance(message, dict):
            raise BadSetting("settings are an object")
        hints = {k: v for k, v in get_type_hints(Settings).items() if not k.startswith("_")}
        unknown = set(message) - set(hints)
        if unknown:
            raise BadSetting(f"unknown: {', '.join(sorted(map(str, unknown)))}")
        for name, value in message.items():
            _check(name, value, hints[name])
        for name, value in message.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Return to what was set at first."""
        for name, value in deepcopy(self._first).items():
            setattr(self, name, value)

    def listed(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return {k: v for k, v in asdict(self).items() if not k.startswith("_")}

    def change_scores(self, address: str, **scores: str) -> None:
        """Let *address*, plain or hashed, have these scores from now on."""
        self.scores = {**self.scores, address: {**(self.scores_set(address) or {}), **scores}}

    def scores_set(self, address: str) -> dict[str, str] | None:
        """Return what is set for *address*, plain or hashed; {} is nothing, None leaves it out."""
        wanted = hash_of(address)
        for name, scores in self.scores.items():
            if hash_of(name) == wanted:
                return scores
        return {}


def _check(name: str, value: object, hint: object) -> None:
    if name == "scores":
        if not isinstance(value, dict) or not all(map(_is_scores, value.values())):
            raise BadSetting("scores is an object of addresses: {name: text} or null each")
        return
    words = get_args(hint)
    if words and isinstance(words[0], str):
        if value not in words:
            raise BadSetting(f"{name} is one of {', '.join(words)}")
        return
    types = words or (hint,)
    # A bool is an int to Python alone.
    if type(value) not in types:
        raise BadSetting(f"{name} has the wrong type")
    if name in ("polls", "drift_times", "result_rows") and isinstance(value, int) and value < 0:
        raise BadSetting(f"{name} is not negative")


def _is_scores(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
