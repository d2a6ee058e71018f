"""The sandbox: both vendors in one app, with switches and a view of what arrived.

    /audiencepoint/v1/...    AudiencePoint      /faults   GET, POST (one or a list), DELETE
    /audiencelab/...         AudienceLab        /settings GET, POST (some of them), DELETE
    /crm                     signed webhooks    /seen     GET, DELETE; /seen/{what} the full lists

The switches ask for no key: the sandbox listens on loopback and knows invented people only.
"""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from sandbox import audiencelab, audiencepoint, crm
from sandbox.desk import Announce, Answer, Desks, Transported, say_nothing
from sandbox.faults import BadFault, Fault, Faults, fault_from
from sandbox.memory import Memory
from sandbox.settings import BadSetting, Dialect, Settings


def create(
    memory: Memory | None = None,
    faults: Faults | None = None,
    *,
    key: str = "sandbox",
    announce: Announce = say_nothing,
    dialect: Dialect = "observed",
    crm_key: str = crm.KEY,
) -> Starlette:
    """Return the app; `app.state` has the `memory`, `faults` and `settings` it keeps and obeys."""
    memory = memory or Memory()
    faults = faults or Faults()
    settings = Settings(dialect=dialect)
    desks = Desks(memory, faults, key, announce, settings)
    app = Transported(
        routes=[
            Mount("/audiencepoint/v1", audiencepoint.create(desks)),
            Mount("/audiencelab", audiencelab.create(desks)),
            crm.route(desks, crm_key),
            Route("/settings", _settings, methods=["GET", "POST", "DELETE"]),
            Route("/faults", _faults, methods=["GET", "POST", "DELETE"]),
            Route("/seen", _seen, methods=["GET", "DELETE"]),
            Route("/seen/{what}", _seen_in_full),
        ]
    )
    app.state.memory = memory
    app.state.faults = faults
    app.state.settings = settings
    return app


async def _faults(request: Request) -> Response:
    faults: Faults = request.app.state.faults
    if request.method == "DELETE":
        faults.clear()
    elif request.method == "POST":
        try:
            faults.add(*_faults_in(await request.body()))
        except BadFault as error:
            return Answer(400, {"message": str(error)}).response()
    return Answer(200, faults.listed()).response()


def _faults_in(raw: bytes) -> list[Fault]:
    try:
        message = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadFault("not JSON") from error
    return [fault_from(each) for each in (message if isinstance(message, list) else [message])]


async def _settings(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    memory: Memory = request.app.state.memory
    if request.method != "GET":
        # What drifts from now on starts from the size it has by its name.
        memory.account.drifts.clear()
    if request.method == "DELETE":
        settings.reset()
    elif request.method == "POST":
        try:
            settings.change(orjson.loads(await request.body()))
        except (BadSetting, orjson.JSONDecodeError) as error:
            return Answer(400, {"message": str(error)}).response()
    return Answer(200, settings.listed()).response()


async def _seen(request: Request) -> Response:
    memory: Memory = request.app.state.memory
    if request.method == "DELETE":
        memory.forget()
    return Answer(200, memory.counters()).response()


async def _seen_in_full(request: Request) -> Response:
    memory: Memory = request.app.state.memory
    full = memory.full(request.path_params["what"])
    if full is None:
        return Answer(404, {"message": "nothing of that name is remembered"}).response()
    return Answer(200, full).response()
