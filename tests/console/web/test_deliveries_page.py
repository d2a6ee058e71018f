"""The page of deliveries: what arrived, newest first, by source; what waits, and what was refused."""

from __future__ import annotations

import re

import pytest
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from console.web.pages.deliveries import MOST
from pipeline import keys, pauses
from pipeline.arrivals import Fate, Note
from pipeline.deliveries import Delivery
from pipeline.inbox import Inbox
from pipeline.outcomes import Stage
from tests.console.web.conftest import TOKEN, Open
from tests.console.web.posting import HOSTILE
from tests.console.web.test_api import answer_of
from tests.pipeline.burials import bury_delivery
from tests.pipeline.test_arrivals import AT_MS, leave, note
from tests.pipeline.work import put

pytestmark = pytest.mark.anyio


def cells(text: str) -> list[list[str]]:
    """Return the texts of the rows of what arrived."""
    table = text.rpartition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in table.split("<tr>")[1:]]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in rows]


def a_note(name: str, source: str, fate: Fate, tag: str = "") -> Note:
    """Return a note with three, two and one events."""
    return (name, source, 1, 1234, AT_MS, "hook", fate, 3, 2, 1, tag)


async def test_each_delivery_is_a_row(open_console: Open, redis: Redis) -> None:
    """Time, source, size, answer, fate, events and tag; a dead one leads to its letter."""
    await leave(redis, a_note("a" * 24, "pixel", "done", "spring"))
    await leave(redis, a_note("b" * 24, "sendgrid", "dead"))
    letter = await bury_delivery(redis, b"\xff")
    console = await open_console()
    text = (await console.get("/deliveries")).text
    when = "2026-01-01 00:00:00 UTC"
    size = "1.2\u202fkB"
    refused, dead, done = cells(text)
    assert refused[1:5] == ["pixel", "1\u202fB", "400", "dead"]
    assert dead == [when, "sendgrid", size, "200", "dead", "3", "2", "1", ""]
    assert done == [when, "pixel", size, "202", "done", "3", "2", "1", "spring"]
    assert f'href="/dead/{"b" * 24}"' in text
    assert f'href="/dead/{letter}"' in text
    assert (await console.get(f"/dead/{letter}")).status_code == 200


async def test_a_sum_is_told_as_one(open_console: Open, redis: Redis) -> None:
    """What was not listed one by one is told with its number; where it is dead it leads to the letters of its kind."""
    await leave(redis, *(note(f"{n:024x}", fate="dead") for n in range(31)))
    text = (await (await open_console()).get("/deliveries")).text
    assert cells(text)[-1][1] == "11 more of events"
    assert 'href="/dead?stage=unpack&amp;source=events"' in text


async def test_pages_by_source(open_console: Open, redis: Redis) -> None:
    """A hundred a page, and the way to the next one keeps the filter; each delivery is met once."""
    for n in range(0, 130, 10):
        await leave(redis, *(note(f"{n + m:024x}", "ses", "dead") for m in range(10)), note("x"))
    console = await open_console()
    first = (await console.get("/deliveries?source=ses")).text
    assert "<option selected>ses</option>" in first
    (further,) = re.findall(r'href="(/deliveries\?[^"]+)">Older', first)
    second = (await console.get(further.replace("&amp;", "&"))).text
    met = [re.findall(r'href="/dead/(\w{24})"', text) for text in (first, second)]
    assert [len(ids) for ids in met] == [MOST, 30]
    assert len({one for ids in met for one in ids}) == 130
    assert "Older" not in second
    assert {row[1] for text in (first, second) for row in cells(text)} == {"ses"}


async def test_what_waits_and_what_was_refused_is_told(open_console: Open, redis: Redis) -> None:
    """Unpack's waiting deliveries and its pause; each cause of a refusal with what to do, only where there was any."""
    await put(redis, 3)
    await pauses.pause(redis, Stage.UNPACK, "<b>lunch")
    await Inbox(redis).count_refused({"token": 1234, "too_large": 2})
    text = (await (await open_console()).get("/deliveries")).text
    assert "3 deliveries wait" in text
    assert "&lt;b&gt;lunch" in text
    assert "1\u202f234" in text
    row = re.search(r'no valid token</th><td class="number">[^<]+</td><td class="time"><time', text)
    assert row
    assert 'a false signature</th><td class="number">0</td><td class="time"></td>' in text
    for remedy, is_there in (("HOOK_TOKENS", 1), ("MAX_BODY_BYTES", 1), ("secret", 0)):
        assert (remedy in text) == is_there, remedy


async def test_an_empty_page_says_so(open_console: Open, redis: Redis) -> None:
    """Nothing has arrived: a sentence, not an empty table; also of a source, and in read-only mode."""
    console = await open_console(console_read_only=True)
    assert "No deliveries yet." in (await console.get("/deliveries")).text
    assert "No delivery waits" in (await console.get("/deliveries")).text
    assert "No deliveries of ses" in (await console.get("/deliveries?source=ses")).text
    older = (await console.get("/deliveries?from=5-0-0")).text
    assert "No older deliveries" in older
    assert not await redis.exists(keys.ARRIVALS)


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_tag_is_only_text(open_console: Open, redis: Redis, hostile: str) -> None:
    """Whatever stands in a tag, an id or a source is text, cut, without controls."""
    await leave(redis, a_note(hostile, hostile, "dead", hostile))
    text = (await (await open_console()).get("/deliveries")).text
    for told in ("<script>alert", "<img", "\x1b", "\u202e", ">49<"):
        assert told not in text
    assert len(text.replace("x" * 1_000_000, "")) < 20_000


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    "query", ["source=<b>", "from=x", "from=1-2", "from=1-2-%D9%A1", "from=-", "from=1-1-1-1"]
)
async def test_what_cannot_be_found_is_told(open_console: Open, query: str) -> None:
    """A source or a place that is none is 400, for people and for programs."""
    console = await open_console()
    for path in ("/deliveries", "/api/deliveries"):
        assert (await console.get(f"{path}?{query}")).status_code == 400


@pytest.mark.usefixtures("redis")
async def test_it_is_for_those_who_are_logged_in(open_console: Open) -> None:
    """With a token set, a stranger sees neither the page nor the answer."""
    console = await open_console(console_token=TOKEN)
    assert (await console.get("/deliveries")).status_code in (303, 401)
    assert (await console.get("/api/deliveries")).status_code == 401


async def test_programs_read_the_same(open_console: Open, redis: Redis) -> None:
    """Each row as described, page by page, each once; by source too."""
    for n in range(12):
        await leave(redis, *(note(f"{n}-{m}") for m in range(12)), note("s", "ses"))
    await leave(redis, *(note(f"d{n}", fate="dead") for n in range(25)))
    await bury_delivery(redis, b"<")
    console, met = await open_console(), []
    path = "/api/deliveries"
    query: dict[str, str] = {}
    while True:
        answer = (await console.get(path, params=query)).json()
        Draft202012Validator(answer_of(path)).validate(answer)
        met += answer["deliveries"]
        if answer["next"] is None:
            break
        query = {"from": answer["next"]}
    assert sum(one["deliveries"] for one in met) == 12 * 13 + 25 + 1
    assert [one["answer"] for one in met[:2]] == [400, 202]
    assert met[-1]["id"] == "0-0"
    only = (await console.get(path, params={"source": "ses"})).json()["deliveries"]
    assert [(one["id"], one["source"]) for one in only] == [("s", "ses")] * 12


async def test_the_newest_that_wait_are_listed(open_console: Open, redis: Redis) -> None:
    """Above the others, on the first page only, of the source that is asked for; the JSON tells them too."""
    old = Delivery("0" * 24, "pixel", b"12", AT_MS, tag="spring")
    await Inbox(redis).put([old, Delivery("1" * 24, "sendgrid", b"1", AT_MS + 1)])
    console = await open_console()
    text = (await console.get("/deliveries")).text
    waiting = text.partition('aria-label="The newest that wait"')[2].partition("</table>")[0]
    one, other = cells(waiting + "</tbody>")
    assert one[1:] == ["sendgrid", "1\u202fB", "200", ""]
    assert other == ["2026-01-01 00:00:00 UTC", "pixel", "2\u202fB", "202", "spring"]
    assert "The newest that wait" not in (await console.get("/deliveries?from=1-1-0")).text
    assert "sendgrid</td>" not in (await console.get("/deliveries?source=pixel")).text
    told = (await console.get("/api/deliveries?source=pixel")).json()
    Draft202012Validator(answer_of("/api/deliveries")).validate(told)
    assert [(each["id"], each["fate"]) for each in told["waiting"]] == [("0" * 24, "waiting")]
