"""The operator's two doors: the `relay` command, and `app`, the page that `uvicorn console.main:app` serves.

Every command ends 0, 1 (it failed) or 2 (bad usage or settings); with `--json` an error is
`{"error": …}` on stdout. The modules of the commands import what is heavy only when they run, and `app` is made
when it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import typer

from console import (
    audience_people,
    audiences,
    dead,
    doctor,
    enrichment,
    imports,
    lookups,
    pixel_events,
    pixels,
    segments,
    send,
    senders,
    stages,
    status,
    subscriptions,
    visitors,
)
from console.commands import AsJson, Failed, load

if TYPE_CHECKING:
    from starlette.applications import Starlette

    app: Starlette

# Typer brings its own copy of Click or uses the one that is installed, depending on its version
_ClickError: type[Exception] = next(
    each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException"
)

relay = typer.Typer(
    name="relay",
    help="Operate the relay: run it, look at its books, replay what failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@relay.command("up", epilog="Example: relay up")
def up(as_json: AsJson = False) -> None:
    """Run Redis, receiver, worker and console in this terminal until Ctrl-C; without vendor keys, as a trial."""
    from contextlib import redirect_stdout

    from console import up as relay_up
    from console.json_lines import JsonLines

    settings = load()
    if as_json:
        with redirect_stdout(JsonLines(sys.stdout)):
            status = relay_up.up(settings)
    else:
        status = relay_up.up(settings)
    raise typer.Exit(status)


relay.command("status", epilog="Example: relay status --json")(status.status)
relay.command("senders", epilog="Example: relay senders --json")(senders.senders)
relay.add_typer(dead.dead, name="dead")
relay.command("pause", epilog='Example: relay pause forward --reason "maintenance until 6 pm"')(
    stages.pause
)
relay.command("resume", epilog="Example: relay resume forward")(stages.resume)
relay.add_typer(visitors.visitors, name="visitors")
pixels.pixels.command(
    "backfill",
    epilog="Example: relay pixels backfill ID --tag shop",
    help=imports.help_of("all events that a pixel has seen"),
)(imports.backfill_pixel)
pixels.pixels.command("events", epilog=pixel_events.EXAMPLE)(pixel_events.events)
relay.add_typer(pixels.pixels, name="pixels")
relay.add_typer(segments.segments, name="segments")
audiences.audiences.command("preview", epilog=audience_people.PREVIEW_EXAMPLE)(
    audience_people.preview
)
audiences.audiences.command("records", epilog=audience_people.RECORDS_EXAMPLE)(
    audience_people.records
)
relay.add_typer(audiences.audiences, name="audiences")
relay.add_typer(enrichment.enrich, name="enrich")
relay.command("scores", epilog="Example: relay scores ana@example.com --select score,send_time")(
    lookups.scores
)
relay.command("subscribe", epilog="Example: relay subscribe ana@example.com")(
    subscriptions.subscribe
)
relay.command("verify", epilog="Example: relay verify ana@example.com")(lookups.verify)
relay.command(
    "send-times",
    epilog="Example: relay send-times --start 2026-01-31T08:00 --end 2026-02-01T08:00 ana@example.com",
)(lookups.send_times)
relay.command("doctor", epilog="Example: relay doctor --json")(doctor.doctor)
relay.command("send", epilog="Example: relay send pixel; relay send sendgrid events.json")(
    send.send
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* (else the command line) name; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        if sys.stdout is not None:  # there is none where it was closed
            sys.stdout.flush()
    except (OSError, SystemExit) as ended:
        from console.output import stdout_failed, warn

        # Click itself ends where nobody reads; a file's failure, which has a name, is not stdout's
        error = ended.__context__ if isinstance(ended, SystemExit) else ended
        if not isinstance(error, OSError) or error.filename is not None:
            raise
        warn(stdout_failed(error))
        return 1
    return status


@cache
def _built() -> Callable[..., object]:
    """Return the commands as Click runs them; Typer itself builds all of them anew for each call."""
    return typer.main.get_command(relay)


def _run(words: list[str]) -> int:
    as_json = "--json" in words
    try:
        status = _built()(words, prog_name="relay", standalone_mode=False)
    except Failed as failed:
        _tell(str(failed), failed.facts, as_json=as_json)
        return failed.status
    except typer.Abort:
        _tell("Interrupted.", {}, as_json=as_json)
        return 1
    except _ClickError as error:
        if as_json:
            _tell(error.format_message(), {}, as_json=True)  # type: ignore[attr-defined]
        else:
            error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)  # type: ignore[attr-defined]
    # a command that just ends gives None; Typer answers 130 for Ctrl-C
    return status if status in (1, 2) else int(bool(status))


def _tell(message: str, facts: dict[str, object], *, as_json: bool) -> None:
    from console.output import print_json, warn

    if as_json:
        print_json({"error": message, **facts})
    else:
        warn(message)


def __getattr__(name: str) -> Starlette:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from console.web.main import build

    global app
    app = build()
    return app


if __name__ == "__main__":
    sys.exit(main())
