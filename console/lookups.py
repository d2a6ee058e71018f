"""`relay scores`, `verify`, `send-times`: what AudiencePoint knows of somebody, asked for by hand.

Nothing of it is kept: no visitor changes. Addresses come from the command line and go to the vendor; they stand in no
log and no audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import AsJson, BadUsage, load
from console.facts import as_line
from console.vendors import ask_audiencepoint, check_text

if TYPE_CHECKING:
    from pipeline.scores import Score
    from workers.clients.audiencepoint import AudiencePoint, SendTimes, Verification

Addresses = Annotated[
    list[str], typer.Argument(metavar="EMAIL...", help="Addresses, or their SHA-256.")
]


def scores(
    emails: Addresses,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Only this score; repeat it, or put commas, for more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask AudiencePoint for the scores of addresses, which leave as EMAIL_FORMAT says."""
    from console.output import print_json, print_table
    from pipeline.scores import NAMES

    check_addresses(emails)
    chosen = [word.strip() for each in select or () for word in each.split(",") if word.strip()]
    if unknown := sorted(set(chosen) - set(NAMES)):
        raise BadUsage(f"Unknown: {', '.join(unknown)}. Scores are {', '.join(NAMES)}.")
    hashed = load().email_format == "sha256"

    async def work(point: AudiencePoint) -> list[Score]:
        return await point.scores(emails, chosen, hashed=hashed)

    found = ask_audiencepoint(work)
    if as_json:
        print_json([asdict(score) for score in found])
        return
    names = chosen or ["score", "send_time", "frequency", "best_day_of_week", "last_seen"]
    rows = [(each.address, each.matched, *(_cell(each, name) for name in names)) for each in found]
    print_table(("address", "matched", *names), rows)


def _cell(score: Score, name: str) -> str:
    """Return one score as typed, else in the vendor's own text."""
    value = getattr(score, name)
    return score.raw.get(name, "") if value in (None, ()) else as_line(value)


def verify(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="A plain address.")],
    get: Annotated[
        bool,
        typer.Option(
            "--get", help="Ask by GET, the address in the URL, which AudiencePoint advises against."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask AudiencePoint whether a plain address exists and should be written to."""
    from console.output import print_json, say
    from pipeline.addresses import clean, is_hash

    check_text("EMAIL", email)
    if not email.strip() or is_hash(clean(email)):
        raise BadUsage("Only a plain address can be verified, no hash.")

    async def work(point: AudiencePoint) -> Verification:
        return await point.verify(email, by_get=get)

    found = ask_audiencepoint(work)
    if as_json:
        print_json({**asdict(found), "corrected_address": found.corrected_address})
        return
    say(f"{found.email}: {found.result}")
    if found.suggestion:
        say(f"The vendor's suggestion: {found.suggestion}")


def send_times(
    emails: Addresses,
    start: Annotated[str, typer.Option(help="The campaign's start, 2026-01-31T09:00 (UTC).")],
    end: Annotated[str, typer.Option(help="The campaign's end.")],
    default: Annotated[
        str | None, typer.Option(help="Send time for addresses AudiencePoint knows nothing about.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask AudiencePoint when, between two times, to write to each address; all times are UTC."""
    from console.output import print_json, print_table, say
    from pipeline.addresses import clean, digest

    check_addresses(emails)
    first, last = _moment("--start", start), _moment("--end", end)
    otherwise = None if default is None else _moment("--default", default)
    if last <= first:
        raise BadUsage("--end is not after --start.")
    hashed = load().email_format == "sha256"

    async def work(point: AudiencePoint) -> SendTimes:
        return await point.send_times(emails, first, last, otherwise, hashed=hashed)

    told = ask_audiencepoint(work)
    asked = {digest(each): clean(each) for each in emails} if hashed else {}
    if as_json:
        print_json({**asdict(told), "asked": asked})
        return
    # what stands in an entry is not documented: all of it is shown, as it came
    entries = [each if isinstance(each, dict) else {"entry": each} for each in told.entries]
    columns = list(dict.fromkeys(name for entry in entries for name in entry))
    texts = [[as_line(entry.get(name)) for name in columns] for entry in entries]
    rows = [[asked.get(text, text) for text in row] for row in texts]
    if rows:
        print_table(columns, rows)
    say(f"From {told.start} to {told.end}; to all others at {told.default} (UTC).")


def _moment(option: str, text: str) -> datetime:
    """Read an ISO-8601 time; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadUsage(f"{option} should be a time such as 2026-01-31T09:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def check_addresses(emails: Sequence[str]) -> None:
    """Raise `BadUsage` where one of *emails* is neither an address nor a hash."""
    from pipeline.addresses import clean, is_address, is_hash

    for number, text in enumerate(map(clean, emails), 1):
        if not (is_address(text) or is_hash(text)):
            raise BadUsage(f"Number {number} is neither an address nor the SHA-256 of one.")
