"""`python -m sandbox`: the vendors' stand-ins as a process of their own.

The first line names the address that was really bound, so that a parent process can ask for port 0
and read where to go. Lines about calls hold counts only.
"""

from __future__ import annotations

import os
import socket
from argparse import ArgumentParser
from contextlib import suppress
from typing import get_args

import uvicorn
from starlette.applications import Starlette

from sandbox import crm
from sandbox.app import create
from sandbox.desk import Call, say_nothing
from sandbox.memory import Memory
from sandbox.settings import Dialect

_THINGS = {
    "events": "events",
    "list-subscription": "addresses",
    "scores": "addresses",
    "enrich": "found",
    "segment": "rows",
    "email-verification": "addresses",
    "sto": "addresses",
    "crm": "webhooks",
}


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening socket; connections queue from now on, before any server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(512)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of *listener* as a URL without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server(app: Starlette) -> uvicorn.Server:
    """Return a quiet uvicorn server of *app*, to be run on a socket of `listen`."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            # A call that a fault holds back must not hold back the end.
            timeout_graceful_shutdown=1,
        )
    )


def announce_call(call: Call) -> None:
    """Print one line about *call*, counts only."""
    status = call.status or "reset"
    things = _THINGS.get(call.endpoint, "things")
    print(f"sandbox: {call.endpoint} {status} {call.count} {things}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run until told to stop."""
    parser = ArgumentParser(prog="python -m sandbox", description="Stand-ins for both vendors.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--quiet", action="store_true", help="count only: no lines, no bodies kept")
    parser.add_argument(
        "--dialect",
        choices=get_args(Dialect),
        default="observed",
        help="AudienceLab's calls as live answers show them, or as its older reference does",
    )
    chosen = parser.parse_args(arguments)
    listener = listen(chosen.host, chosen.port)
    print(f"sandbox: listening on {url_of(listener)}", flush=True)
    announce = say_nothing if chosen.quiet else announce_call
    key = os.environ.get("SANDBOX_KEY") or "sandbox"
    memory = Memory(keeps_bodies=not chosen.quiet)
    crm_key = os.environ.get("SANDBOX_CRM_KEY") or crm.KEY
    app = create(memory, key=key, announce=announce, dialect=chosen.dialect, crm_key=crm_key)
    with suppress(KeyboardInterrupt):
        server(app).run(sockets=[listener])


if __name__ == "__main__":
    main()
