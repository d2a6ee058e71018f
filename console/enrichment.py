"""`relay enrich`: who is behind a fact, asked of AudienceLab by hand; of many people by a job.

Nothing of it is kept here: no visitor changes. What is asked by comes from the command line or a file and goes to the
vendor; it stands in no log and no audit.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, BadUsage, Yes, check_can_ask, confirm, load
from console.facts import lines, print_facts
from console.people_at_vendors import Limit, Reading, Row
from console.records import read_records
from console.vendors import ask_audiencelab, check_id, check_text, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab, EnrichmentJob, Page

enrich = typer.Typer(
    help="Ask AudienceLab who is behind an address, a hash or a number; each answer is billed.",
    epilog="Example: relay enrich --email ana@example.com",
)
jobs = typer.Typer(
    help="Jobs: many people at once, with a result file.",
    no_args_is_help=True,
    epilog="Example: relay enrich jobs list",
)
enrich.add_typer(jobs, name="jobs")

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as listed.")]
RecordsFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="CSV with a header, JSON or JSON Lines; `-` is stdin."),
]
#: jobs of a page; both forms of the call allow it
JOBS_A_PAGE = 100


# one ----------------------------------------------------------------------------------------------------


@enrich.callback(invoke_without_command=True)
def enrich_one(
    context: typer.Context,
    email: Annotated[str | None, typer.Option(help="By an address.")] = None,
    sha256: Annotated[str | None, typer.Option("--hash", help="By an address's SHA-256.")] = None,
    phone: Annotated[str | None, typer.Option(help="By a telephone number.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask AudienceLab who is behind an address, a hash or a number; each answer is billed."""
    from console.output import print_json, say

    given = {"email": email, "hem_sha256": sha256, "phone": phone}
    if context.invoked_subcommand is not None:
        if as_json or any(given.values()):
            raise BadUsage(f"Options stand behind `{context.invoked_subcommand}`.")
        return
    facts = _facts(given)

    async def work(lab: AudienceLab, redis: Redis) -> list[dict[str, object]]:
        return await lab.enrich(**facts)

    people = ask_audiencelab(work)
    if as_json:
        print_json(people)
    elif not people:
        say("AudienceLab knows nobody by that.")
    else:
        say("\n\n".join("\n".join(lines(person)) for person in people))


def _facts(given: dict[str, str | None]) -> dict[str, str]:
    """Return the one fact of *given*; raises `BadUsage` for none, several, and what is none."""
    from pipeline.addresses import clean, is_address, is_hash

    facts = {name: clean(fact) for name, fact in given.items() if fact and fact.strip()}
    if len(facts) != 1:
        raise BadUsage("Give exactly one of --email, --hash and --phone.")
    if "email" in facts and not is_address(facts["email"]):
        raise BadUsage("--email is not an e-mail address.")
    check_text("--phone", facts.get("phone"))
    if "hem_sha256" in facts and not is_hash(facts["hem_sha256"]):
        raise BadUsage("--hash should be 64 hex digits, the SHA-256 of an address.")
    return facts


# many ---------------------------------------------------------------------------------------------------


@jobs.command("create", epilog="Example: relay enrich jobs create people.csv --name Spring")
def create(
    file: RecordsFile,
    name: Annotated[str, typer.Option(help="What AudienceLab is to call it.")],
    column: Annotated[
        list[str] | None,
        typer.Option(help="Send this column of the file only; repeat it for more."),
    ] = None,
    match_all: Annotated[
        bool,
        typer.Option(
            "--match-all", help="A person must match all columns of a record, not just one."
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Have AudienceLab find many people at once; what it finds is billed."""
    from pipeline.addresses import mask

    check_text("--name", name)
    if not name.strip():
        raise BadUsage("--name is empty.")
    key_of(load(), "audiencelab_api_key")
    columns, records = read_records(file, column or [])
    if not yes:
        check_can_ask(as_json=as_json)
        confirm(
            f"Have AudienceLab find {len(records)} people by {', '.join(columns)}? It is billed."
        )
    words = {"name": mask(name, 100), "records": len(records), "columns": columns}

    async def work(lab: AudienceLab, redis: Redis) -> str:
        from console.orders_at_vendors import Order

        async with Order(redis, "enrich jobs create", words) as order:
            operator = "AND" if match_all else "OR"
            new_id = await lab.create_enrichment_job(name, records, columns, operator)
            order.done_with(new_id)
            return new_id

    _tell_made(ask_audiencelab(work), len(records), columns, as_json=as_json)


def _tell_made(new_id: str, count: int, columns: list[str], *, as_json: bool) -> None:
    from console.output import print_json, say

    if as_json:
        print_json({"id": new_id, "records": count, "columns": columns})
    else:
        say(f"Made: {new_id}; `relay enrich jobs show {new_id}` tells how it goes.")


@jobs.command("list", epilog="Example: relay enrich jobs list --limit 5 --json")
def list_jobs(
    limit: Annotated[
        int, typer.Option(min=1, help="No more than this, in AudienceLab's order.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the account's jobs, the relay's own among them."""
    from console.output import print_json, print_table, say

    async def work(lab: AudienceLab, redis: Redis) -> list[EnrichmentJob]:
        return await _listed(lab, limit)

    rows = [_view(each) for each in ask_audiencelab(work)]
    if as_json:
        print_json(rows)
    elif not rows:
        say("No jobs.")
    else:
        names = ("id", "name", "status", "total", "created_at")
        texts = [["" if row[each] is None else row[each] for each in names] for row in rows]
        print_table(names, texts, numbers=["total"])


async def _listed(lab: AudienceLab, limit: int) -> list[EnrichmentJob]:
    from workers.clients.audiencelab import walk

    async def page(number: int) -> Page[EnrichmentJob]:
        return await lab.list_enrichment_jobs(number, min(limit, JOBS_A_PAGE))

    found: list[EnrichmentJob] = []
    async with aclosing(walk(page)) as pages:
        async for each in pages:
            found += each.items
            if len(found) >= limit:
                break
    return found[:limit]


def _view(job: EnrichmentJob) -> dict[str, Any]:
    """Return a job as it is shown; where its file is may be a secret, so only whether it has one is told."""
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "total": job.total,
        "created_at": job.created_at,
        "is_over": job.is_over,
        "has_result": job.csv_url is not None,
    }


@jobs.command("show", epilog="Example: relay enrich jobs show 4b1c2f0e-7c11-4a6e-8d4c-2a7f2f0e7c11")
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show how a job goes: IN_QUEUE, PROCESSING, COMPLETED, NO_DATA or FAILED."""
    key_of(load(), "audiencelab_api_key")
    check_id(job_id)

    async def work(lab: AudienceLab, redis: Redis) -> EnrichmentJob:
        return await lab.enrichment_job(job_id)

    print_facts(_view(ask_audiencelab(work)), as_json=as_json)


@jobs.command(
    "result", epilog="Example: relay enrich jobs result 4b1c2f0e-7c11-4a6e-8d4c-2a7f2f0e7c11 --json"
)
def result(job_id: JobId, limit: Limit = None, as_json: AsJson = False) -> None:
    """Read whom a job has found: some as a table, all as JSON Lines with --json; it is audited."""

    async def people(lab: AudienceLab) -> AsyncGenerator[Row]:
        job = await lab.enrichment_job(job_id)
        async with aclosing(lab.enrichment_rows(job)) as rows:
            async for row in rows:
                yield row

    Reading("enrich jobs result", job_id, limit, as_json).carry_out(people)
