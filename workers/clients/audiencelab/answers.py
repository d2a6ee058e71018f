"""What all of AudienceLab's calls share: the key's headers, ids in paths, names and refusals.

What may go wrong: an unknown id is told as a 404, or as a 200 with `{"status": "NOT_FOUND"}`; the
same name is spelt `jobId`, `job_id` or `JOB_ID`; numbers come as texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import orjson

from workers.clients.errors import LONGEST_SENTENCE, CallFailed, Misconfigured, NotFound
from workers.clients.messages import Answer
from workers.clients.refusals import failure, words

VENDOR = "AudienceLab"

# What is said in place of rows while there are none.
_NOTHING = frozenset({"no_data", "nodata"})


def headers(key: str) -> dict[str, str]:
    """Return the headers that every call to AudienceLab carries.

    `X-Api-Key` is what the vendor's pages and live clients use, the bearer what its older reference
    says; sending both is known to work.
    """
    return {"X-Api-Key": key, "Authorization": f"Bearer {key}"}


def piece(given_id: str) -> str:
    """Return an id fit for one piece of a path; `ValueError` for one that is empty or has a `/`."""
    if not given_id.strip() or "/" in given_id or given_id in (".", ".."):
        raise ValueError("an id of AudienceLab is a text that is not empty and has no / in it")
    return quote(given_id, safe="")


def refused(
    answer: Answer, path: str, what: str | None = None, *, changes: bool = False
) -> CallFailed:
    """Return the failure that *answer* means; the caller raises it.

    *path* is the call's, with `{id}` in place of an id. *what* is the word for the thing whose id
    was asked for; with it an answer that knows no such id is a `NotFound`. *changes* is as `failure`
    takes it.
    """
    if what is not None and _is_unknown_id(answer):
        said = words(answer)
        told = f'{answer.status}: "{said}"' if said else str(answer.status)
        return NotFound(f"{VENDOR} knows no {what} of this id ({told})", status=answer.status)
    return failure(answer, VENDOR, path, path_setting="AUDIENCELAB_BASE_URL", changes=changes)


def lacking(failed: CallFailed, what: str) -> Misconfigured:
    """Return the failure of a call that only the observed form has, where its path is not known.

    *what* are the words for what it gives. The form comes first: where other calls work, the address is right.
    """
    form = f"{VENDOR} perhaps speaks the documented form only, which has no call for {what}; else"
    room = LONGEST_SENTENCE - len(form) - 1
    own = failed.sentence
    own = own if len(own) <= room else f"{own[: room - 1]}…"
    return Misconfigured(f"{form} {own}", status=failed.status)


def _is_unknown_id(answer: Answer) -> bool:
    """Whether it is the service that knows no such id: a proxy's 404 is a page, not JSON."""
    members = answer.members()
    if answer.status == 404:
        return bool(members)
    error = members.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return answer.is_success and "not_found" in (_word(members.get("status")), _word(code))


def has_nothing(members: Mapping[str, object]) -> bool:
    """Whether an answer says in words that there are no rows: `{"status": "no data"}`."""
    return _word(members.get("status")) in _NOTHING


def is_failure(members: Mapping[str, object]) -> bool:
    """Whether a 2xx tells of an error all the same."""
    return bool(members.get("error")) or _word(members.get("status")) in ("not_found", "failed")


def _word(value: object) -> str:
    return "_".join(value.lower().split()) if isinstance(value, str) else ""


def folded(members: Mapping[str, object]) -> dict[str, object]:
    """Return *members* by their names in lower case without `_`, the first that is told winning."""
    found: dict[str, object] = {}
    for name, value in members.items():
        short = name.lower().replace("_", "")
        if found.get(short) is None:
            found[short] = value
    return found


def others(members: Mapping[str, object], *known: str) -> dict[str, object]:
    """Return what *members* holds beside the *known* names (folded), as it came."""
    return {k: v for k, v in members.items() if k.lower().replace("_", "") not in known}


def text(value: object) -> str | None:
    """Return a text that says something, or the digits of a number; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def number(value: object) -> int | None:
    """Return a count given as a number or as digits; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def upper_case(row: Mapping[str, object]) -> dict[str, object]:
    """Return *row* with UPPER_CASE names; of two spellings the first that says something."""
    columns: dict[str, object] = {}
    for name, value in row.items():
        if not columns.get(name.upper()):
            columns[name.upper()] = value
    return columns


def read_done(answer: Answer, path: str, what: str) -> None:
    """Return when *answer* is a 2xx whose body tells of no error, and is neither a page nor half of one.

    Observed in reports: 204 without a body. Documented: 200 `{"success": true}`. What else may be
    said is not known, so that any word will do.
    """
    members = answer.members()
    success = str(folded(members).get("success", True)).lower()
    is_failed = success in ("false", "0", "no") or is_failure(members)
    if not answer.is_success or is_failed or not _is_whole(answer.body.strip()):
        raise refused(answer, path, what, changes=True)


def _is_whole(body: bytes) -> bool:
    """Whether *body* is no proxy's page, and no JSON that breaks off or denies."""
    if body[:1] not in (b"{", b"["):
        return body[:1] != b"<" and body.lower() not in (b"false", b"0")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True
