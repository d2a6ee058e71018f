"""What programs read under /api is what the description says, and what goes wrong is a problem in JSON."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from redis.asyncio import Redis

from console.web.openapi import document
from console.web.pages import api
from pipeline import history, pauses, retry_runs
from pipeline.dead_letters import Filter
from pipeline.outcomes import Stage
from tests.console.web.conftest import Open
from tests.pipeline.burials import bury, bury_delivery
from tests.pipeline.work import put

pytestmark = pytest.mark.anyio


def answer_of(path: str) -> dict[str, Any]:
    """Return the schema of what is at *path*."""
    operation = document(api.routes)["paths"][path]["get"]
    schema: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return schema


async def test_the_description_is_valid_and_whole(open_console: Open) -> None:
    """It is OpenAPI 3.1, and tells of every path under /api with a summary."""
    console = await open_console()
    described = (await console.get("/api/openapi.json")).json()
    validate(described)
    assert set(described["paths"]) == {route.path for route in api.routes} | {"/api/live"}
    assert all(path["get"]["summary"] for path in described["paths"].values())


async def test_every_answer_is_as_described(open_console: Open, redis: Redis) -> None:
    """With work, letters, a pause and a run present, each answer has exactly the described shape."""
    await put(redis)
    [dead_id] = await bury(redis)
    await bury_delivery(redis, b"\xff")
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    await history.note(redis)
    await retry_runs.begin(redis, Filter(stage=Stage.FORWARD))
    console = await open_console()
    for route in api.routes:
        answer = await console.get(route.path.replace("{id}", dead_id))
        assert answer.status_code == 200, route.path
        assert answer.headers["content-type"] == "application/json"
        Draft202012Validator(answer_of(route.path)).validate(answer.json())


async def test_letters_are_read_page_by_page(open_console: Open, redis: Redis) -> None:
    """`next` leads through all letters, each once."""
    ids = await bury(redis, payloads=[b"%d" % n for n in range(api.MOST + 5)])
    console = await open_console()
    first = (await console.get("/api/dead")).json()
    second = (await console.get("/api/dead", params={"from": first["next"]})).json()
    met = [letter["id"] for page in (first, second) for letter in page["letters"]]
    assert sorted(met) == sorted(ids)
    assert second["next"] is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/nothing", 404),
        ("/api/dead/nobody", 404),
        ("/api/dead?stage=x", 400),
        ("/api/history?range=x", 400),
    ],
)
async def test_what_goes_wrong_is_a_problem(open_console: Open, path: str, status: int) -> None:
    """Programs are told in JSON what is wrong."""
    console = await open_console()
    answer = await console.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_settings_tell_no_secret(open_console: Open) -> None:
    """What is set is told with stars where it is a secret; the doctor judges it without telling it."""
    secret = "invented-key-0123456789"
    text = (await (await open_console(audiencelab_api_key=secret)).get("/api/settings")).text
    assert secret not in text
    assert '"name":"AUDIENCELAB_API_KEY","is_set":true,"value":"********"' in text
