"""docs/senders.md tells the truth, as far as a program can check it: its form, its names, and every row of its tables.

A row says `word` -> type (or the word under which it is ignored); a body with this word must come to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import parse_qsl

import orjson
import pytest

from console.main import relay
from pipeline.outcomes import EventType, Ignored, MailEvent, Outcome
from pipeline.settings import Settings
from pipeline.sources import Rules, mail
from pipeline.sources.registry import SECRETS, SOURCES
from tests.packaging.sender_events import FORMS, NOW

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")
SAMPLES = ROOT / "tests" / "samples"
PARTS = ("Where", "URL", "Events", "Secret", "Ids", "After a refusal", "Mind")
#: the settings that are no sender's own
SHARED = ("SEND_FROM", "DEFERRAL_AS", "SEND_ID")
_CODE = re.compile(r"`([^`]+)`")
_CONDITION = re.compile(r"`([^`]+)` (`[^`]+`(?:, `[^`]+`)*)")
_RESULT = re.compile(
    r"(?P<usual>`\w+`|\w+)(?P<machine> by a machine)?"
    r"(?:, or (?P<other>`\w+`|\w+) with `(?P<setting>\w+)=(?P<value>\w+)`)?(?:, (?:also|where) .*)?"
)


def headings() -> dict[str, str]:
    """Return the anchor of each sender's heading -> its section, in the order of the page."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[2:]
    return {anchor(text.partition("\n")[0]): text for text in sections}


def anchor(heading: str) -> str:
    """Return the link that a heading gets where Markdown is shown as HTML."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


#: the page's own list: anchor -> the sender's word, and whether it signs
LISTED = {
    found[1]: (found[2], found[3])
    for found in re.finditer(
        r"^\| \[.+\]\(#([\w-]+)\) \| `(\w+)` \| (yes|no) \|$", PAGE, re.MULTILINE
    )
}
SECTIONS = {LISTED[name][0]: text for name, text in headings().items() if name in LISTED}
EXPLAINED = set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## SendGrid")[0], re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a sender's table, for one word and one value of each condition."""

    source: str
    field: str
    word: str
    facts: tuple[tuple[str, object], ...]
    result: str

    def __str__(self) -> str:
        """Return the test's name."""
        return "-".join([self.source, self.word, *(str(value) for _, value in self.facts)])

    def outcomes(self, rules: Rules) -> list[Outcome]:
        """Return what the source reads in a call with this word."""
        call = FORMS[self.source].delivery(self.source, self.field, self.word, dict(self.facts))
        return SOURCES[self.source].parse(call, rules, NOW)


def rows(source: str) -> Iterator[Row]:
    """Yield the rows of the table of *source*."""
    table = [line for line in SECTIONS[source].splitlines() if line.startswith("|")]
    (field,) = _CODE.findall(table[0])
    for line in table[2:]:
        left, right = (cell.strip() for cell in line.strip("|").split("|"))
        words, _, conditions = re.sub(r" \(.*\)$", "", left).partition(" with ")
        assert conditions == " and ".join(found[0] for found in _CONDITION.finditer(conditions)), (
            left
        )
        cases: list[tuple[tuple[str, object], ...]] = [()]
        for name, values in _CONDITION.findall(conditions):
            cases = [(*case, (name, read(one))) for case in cases for one in _CODE.findall(values)]
        for word in _CODE.findall(words):
            yield from (Row(source, field, filled(word), case, right) for case in cases)


def filled(word: str) -> str:
    """Return *word* with any ending in place of its `*`."""
    return word.replace("*", "x")


def read(value: str) -> object:
    """Return a condition's value: true and false are JSON's, all else is text."""
    return {"true": True, "false": False}.get(value, filled(value))


def told(result: str, outcome: Outcome, *, by_machine: bool) -> bool:
    """Tell whether *outcome* is what a cell says: a type, or in code the word for why there is none."""
    if result.startswith("`"):
        return isinstance(outcome, Ignored) and outcome.why == result.strip("`")
    if not isinstance(outcome, MailEvent) or outcome.type != result:
        return False
    return outcome.machine_open is (by_machine if result == EventType.OPEN else None)


#: every setting that decides what becomes of an event, and none of them
ALL_RULES = (
    ("", "", Rules()),
    ("SEND_FROM", "accepted", Rules(send_from="accepted")),
    ("SEND_FROM", "delivered", Rules(send_from="delivered")),
    ("DEFERRAL_AS", "SoftBounce", Rules(deferral_as="SoftBounce")),
)
ROWS = [row for source in SECTIONS for row in rows(source)]


def test_every_sender_has_its_section() -> None:
    """The page lists the mail senders in the order of the table of sources, and has a section for each."""
    senders = [name for name, source in SOURCES.items() if name in FORMS]
    assert senders == [word for word, _ in LISTED.values()]
    assert list(LISTED) == list(headings())
    assert senders == [name for name, source in SOURCES.items() if source.success == 200]


@pytest.mark.parametrize(("word", "signs"), LISTED.values())
def test_who_signs(word: str, signs: str) -> None:
    """The list says "yes" for the senders whose signature can be checked."""
    assert (word in SECRETS) is (signs == "yes")


@pytest.mark.parametrize("source", SECTIONS)
def test_all_sections_have_the_same_parts(source: str) -> None:
    """Where, URL, events, secret; the table; ids, refusals, and what else to mind."""
    found = re.findall(r"^- \*\*(.+?):\*\*", SECTIONS[source], re.MULTILINE)
    assert [*PARTS[:6]] == found[:6]
    assert set(found[6:]) <= {PARTS[6]}
    assert len(re.findall(r"^\|.*\n(?!\|)", SECTIONS[source], re.MULTILINE)) == 1  # one table
    before, _, after = SECTIONS[source].partition("\n|")
    assert "- **Secret:**" in before
    assert "- **Ids:**" in after


@pytest.mark.parametrize("source", SECTIONS)
def test_the_url_is_the_senders(source: str) -> None:
    """Each section shows the URL with its own word, and no other sender's."""
    shown = re.findall(r"relay\.example\.com/hooks/(\w+)(/TOKEN)?", SECTIONS[source])
    assert (source, "/TOKEN") in shown
    assert {source} == {word for word, _ in shown}


@pytest.mark.parametrize("source", SECTIONS)
def test_the_secret_is_the_senders(source: str) -> None:
    """Each section names the settings of its own secret, all of them and no other sender's."""
    settings = {name for name in settings_in(SECTIONS[source]) if name not in SHARED}
    settings.discard("SES_RAW_DELIVERY" if source == "ses" else "")
    assert set(SECRETS.get(source, ())) == settings
    says_none = "- **Secret:** none." in SECTIONS[source]
    assert says_none is (source not in SECRETS)


def settings_in(text: str) -> set[str]:
    """Return the names in code that look like settings, also those with a value."""
    found = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", text)
    return set(found)


@pytest.mark.parametrize("name", sorted(settings_in(PAGE)))
def test_every_setting_exists(name: str) -> None:
    """Each setting that the page names is one."""
    assert name.lower() in Settings.model_fields


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_is_what_becomes_of_its_word(row: Row) -> None:
    """A call with the word comes to what its row says, and only the setting that the row names changes that."""
    found = _RESULT.fullmatch(row.result)
    assert found is not None, row.result
    for setting, value, rules in ALL_RULES:
        is_named = (setting, value) == (found["setting"], found["value"])
        (outcome,) = row.outcomes(rules)
        said = found["other"] if is_named else found["usual"]
        assert told(said, outcome, by_machine=found["machine"] is not None), (setting, outcome)


@pytest.mark.parametrize(
    "word", sorted({word for row in ROWS for word in re.findall(r"`(\w+)`", row.result)})
)
def test_every_word_for_nothing_is_explained(word: str) -> None:
    """Each word under which a table ignores events is explained at the page's head."""
    assert word in EXPLAINED


@pytest.mark.parametrize("source", SECTIONS)
def test_no_word_that_is_understood_is_missing(source: str) -> None:
    """Each word in the samples of which the source makes anything but `unmapped` has a row."""
    (field,) = {row.field for row in ROWS if row.source == source}
    lines = [line for line in SECTIONS[source].splitlines() if line.startswith("|")]
    words = [line.split("|")[1].partition(" with ")[0] for line in lines]
    told_of = [word for cell in words for word in _CODE.findall(cell)]
    in_samples = {
        word
        for path in (SAMPLES / source).glob("*.json")
        for word in words_in(orjson.loads(path.read_bytes()), field)
    }
    understood = {
        word
        for word in in_samples
        if Row(source, field, word, (), "").outcomes(Rules()) != [mail.ignored(mail.UNMAPPED)]
    }
    assert understood
    missing = {word for word in understood if not any(fnmatchcase(word, one) for one in told_of)}
    assert missing == set()


def words_in(value: object, field: str) -> Iterator[str]:
    """Yield the text that stands under *field* in *value*, which may hold JSON or a form as text."""
    if isinstance(value, str):
        if value.startswith(("{", "[")):
            with suppress(orjson.JSONDecodeError):
                yield from words_in(orjson.loads(value), field)
        elif f"{field}=" in value:
            yield from words_in(dict(parse_qsl(value)), field)
    elif isinstance(value, list):
        if len(value) == 2 and value[0] == field:  # a field of a form
            yield str(value[1])
        for one in value:
            yield from words_in(one, field)
    elif isinstance(value, dict):
        if isinstance(value.get(field), str):
            yield value[field]
        for one in value.values():
            yield from words_in(one, field)


def test_every_command_exists() -> None:
    """Each `relay` line in code begins with a command, and the page names the two that it is about."""
    shown = {words.split()[0] for words in re.findall(r"`relay ([^`]+)`", PAGE)}
    commands = {command.name for command in relay.registered_commands}
    assert shown <= commands | {group.name for group in relay.registered_groups}
    assert {"senders", "send"} <= shown


def test_no_line_is_too_long() -> None:
    """A line of text has at most 120 characters; a row of a table is as long as it is."""
    lines = [line for line in PAGE.splitlines() if not line.startswith("|")]
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(#([\w-]+)\)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    """Each link within the page is the anchor of a heading."""
    assert target in {anchor(text) for text in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
