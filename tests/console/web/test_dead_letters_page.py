"""The page of dead letters: filters in the URL, a plan before anything is touched, an order that can be stopped."""

from __future__ import annotations

import asyncio
import re

import pytest
from redis.asyncio import Redis

from console.web.pages.dead_letters import MOST_KINDS
from pipeline import books, dead_letters, keys, retry_runs
from pipeline.dead_letters import Cursor, Filter
from pipeline.outcomes import Reason, Stage
from tests.console.conftest import audited
from tests.console.web.conftest import Open, form_token
from tests.console.web.posting import HOSTILE, ended, post_and_follow
from tests.pipeline.burials import bury, bury_at, bury_delivery

pytestmark = pytest.mark.anyio

REPLAY = "/dead/replay"


def hidden(text: str) -> dict[str, str]:
    """Return the hidden fields of a page's last form."""
    form = text.rpartition("<form")[2]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))


# looking ------------------------------------------------------------------------------------------------


async def test_kinds_are_counted_by_every_step(redis: Redis) -> None:
    """What is buried, retried and dropped changes its kind's count in the same step; none is left at zero."""
    first, second = await bury(redis, payloads=[b"1", b"2"])
    await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    assert [(k.stage, k.source, k.reason, k.count) for k in await dead_letters.kinds(redis)] == [
        (Stage.FORWARD, "sendgrid", "refused", 2),
        (Stage.SCORES, "scores", "invalid", 1),
    ]
    await dead_letters.retry(redis, first)
    await dead_letters.retry(redis, first)
    await dead_letters.drop(redis, [second, second])
    assert [k.stage for k in await dead_letters.kinds(redis)] == [Stage.SCORES]
    assert await redis.hlen(keys.DEAD_KINDS) == 1


async def test_a_look_goes_on_where_it_ended(redis: Redis) -> None:
    """Page by page every letter is met once, newest first, also when all were buried at one moment."""
    ids = await bury(redis, payloads=[b"%d" % n for n in range(7)])
    for dead_id in ids:
        await bury_at(redis, 1_700_000_000_000, dead_id)
    met: list[str] = []
    cursor: Cursor | None = None
    while True:
        letters, cursor = await dead_letters.look(redis, Filter(), cursor, 3)
        met += [letter.id for letter in letters]
        if cursor is None:
            break
    assert sorted(met) == sorted(ids)


async def test_the_list_is_filtered_by_its_address(open_console: Open, redis: Redis) -> None:
    """Stage, source, reason and age in the query choose letters; the kinds link to their own."""
    [old] = await bury(redis)
    [new] = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    await bury_at(redis, 1_700_000_000_000, old)
    console = await open_console()

    async def shown(query: str) -> set[str]:
        return set(
            re.findall(r'href="/dead/([0-9a-f-]{8,})"', (await console.get("/dead" + query)).text)
        )

    assert await shown("") == {old, new}
    assert await shown("?stage=forward") == {old}
    assert await shown("?since=2h") == {new}
    assert await shown("?source=scores&reason=invalid") == {new}
    assert await shown("?source=mailgun") == set()
    text = (await console.get("/dead")).text
    assert "/dead?stage=scores&amp;source=scores&amp;reason=invalid" in text


@pytest.mark.parametrize(
    "query", ["stage=x", "reason=x", "since=x", "from=x", "from=1-x", "from=-1-0"]
)
async def test_what_is_no_filter_is_told(open_console: Open, query: str) -> None:
    """A query that no page of ours made is 400 with a sentence, never a failure."""
    console = await open_console()
    assert (await console.get(f"/dead?{query}")).status_code == 400


async def test_older_letters_are_a_page_away(open_console: Open, redis: Redis) -> None:
    """Fifty a page; the link leads to the others, with the filters."""
    ids = set(await bury(redis, payloads=[b"%d" % n for n in range(60)]))
    console = await open_console()
    first = (await console.get("/dead?stage=forward")).text
    link = re.search(r'href="(/dead\?[^"]*from=[^"]*)"', first)
    assert link is not None
    assert "stage=forward" in link[1]
    second = (await console.get(link[1].replace("&amp;", "&"))).text
    pages = [{one for one in ids if one in text} for text in (first, second)]
    assert [len(page) for page in pages] == [50, 10]
    assert pages[0] | pages[1] == ids


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_letter_is_only_text(
    open_console: Open, redis: Redis, hostile: str
) -> None:
    """Whatever stands in an error or a payload is shown as text, cut, without controls."""
    [dead_id] = await bury(redis, error=hostile, payloads=[hostile.encode()])
    body = await bury_delivery(redis, b"\xff\xfe" + hostile.encode())
    console = await open_console()
    for path in ("/dead", f"/dead/{dead_id}", f"/dead/{body}"):
        answer = await console.get(path)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text
        assert "\x1b" not in answer.text
        assert "\u202e" not in answer.text
        assert len(answer.text) < 500_000


async def test_a_letter_that_is_gone_is_told(open_console: Open) -> None:
    """The page of a letter that was retried or dropped is 404 with a sentence."""
    console = await open_console()
    answer = await console.get("/dead/nobody")
    assert answer.status_code == 404
    assert "retried or dropped" in answer.text


# replaying ------------------------------------------------------------------------------------------------


async def test_a_plan_touches_nothing_and_counts_exactly(open_console: Open, redis: Redis) -> None:
    """The plan tells per stage and reason what is meant; letters buried after it are not."""
    await bury(redis, payloads=[b"1", b"2"])
    await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    console = await open_console()
    answer = await post_and_follow(
        console, "/dead/plan", verb="retry", which="all", stage="forward"
    )
    assert "Retry 2 dead letters?" in answer.text
    assert await redis.zcard(keys.DEAD) == 3
    fields = hidden(answer.text)
    await asyncio.sleep(0.002)  # Redis's clock tells milliseconds
    await bury(redis, payloads=[b"3"])
    await post_and_follow(console, "/dead/carry-out", verb="retry", **fields)
    await ended(console, REPLAY)
    snapshot = await books.snapshot(redis)
    assert snapshot["balanced"]
    assert snapshot["stages"]["forward"]["dead"] == 1
    assert snapshot["stages"]["forward"]["waiting"] == 2
    assert snapshot["stages"]["scores"]["dead"] == 1


async def test_ticked_letters_are_retried_alone(open_console: Open, redis: Redis) -> None:
    """Only what was ticked goes back; a letter that went meanwhile is passed over; the audit names them."""
    ids = await bury(redis, payloads=[b"1", b"2", b"3"])
    console = await open_console()
    answer = await post_and_follow(console, "/dead/plan", verb="retry", which="ticked", id=ids[:2])
    assert "Retry 2 dead letters?" in answer.text
    await dead_letters.drop(redis, ids[:1])
    await post_and_follow(console, "/dead/carry-out", verb="retry", which="ticked", id=ids[:2])
    assert "finished, 1 done" in await ended(console, REPLAY)
    assert (await books.snapshot(redis))["stages"]["forward"]["dead"] == 1
    assert await audited(redis) == [
        ("retry", 1, {"ids": [ids[1]]}),
        ("retry finished", 1, {"ids": [ids[1]]}),
    ]


async def test_nothing_ticked_is_not_everything(open_console: Open, redis: Redis) -> None:
    """Who ticks nothing is told so, and no letter is meant."""
    await bury(redis)
    console = await open_console()
    for path in ("/dead/plan", "/dead/carry-out"):
        assert (
            await post_and_follow(console, path, verb="drop", which="ticked")
        ).status_code == 400
    assert await redis.zcard(keys.DEAD) == 1


async def test_a_drop_by_filter_leaves_the_others(open_console: Open, redis: Redis) -> None:
    """All that match are dropped, the books know them, and the audit tells the filter."""
    await bury(redis, payloads=[b"%d" % n for n in range(1200)])
    await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    console = await open_console()
    answer = await post_and_follow(console, "/dead/plan", verb="drop", which="all", stage="forward")
    await post_and_follow(console, "/dead/carry-out", verb="drop", **hidden(answer.text))
    await ended(console, REPLAY)
    snapshot = await books.snapshot(redis)
    assert snapshot["balanced"]
    assert snapshot["stages"]["forward"]["dropped"] == 1200
    assert snapshot["stages"]["scores"]["dead"] == 1
    what = [(verb, count, words["stage"]) for verb, count, words in await audited(redis)]
    assert what == [("drop", 1200, "forward"), ("drop finished", 1200, "forward")]


async def test_a_retry_is_stopped_and_taken_up_again(open_console: Open, redis: Redis) -> None:
    """Stopped, it keeps its place; another console goes on with it, and no letter is retried twice."""
    await bury(redis, payloads=[b"%d" % n for n in range(200)])
    console = await open_console()
    answer = await post_and_follow(console, "/dead/plan", verb="retry", which="all")
    await post_and_follow(console, "/dead/carry-out", verb="retry", **hidden(answer.text))
    await post_and_follow(console, "/dead/replay/stop")
    assert "was interrupted" in await ended(console, REPLAY)
    left = await redis.zcard(keys.DEAD)
    assert 0 < left <= 200
    other = await open_console()
    await post_and_follow(other, "/dead/replay/resume")
    await ended(other, REPLAY)
    snapshot = await books.snapshot(redis)
    assert snapshot["balanced"]
    assert snapshot["stages"]["forward"]["waiting"] == 200
    assert await retry_runs.progress(redis) is None


async def test_a_retry_of_another_process_is_stopped_from_here(
    open_console: Open, redis: Redis
) -> None:
    """The stop reaches whoever carries the run out, and its progress is shown meanwhile."""
    await bury(redis, payloads=[b"1", b"2"])
    run = await retry_runs.begin(redis, Filter(), 2)

    async def ring(stages: set[Stage]) -> None:
        """Wake nobody."""

    stopping = asyncio.Event()
    elsewhere = retry_runs.Retrier(redis, rate=0.5, ring=ring, stopping=stopping)
    task = asyncio.create_task(elsewhere.carry_on(run))
    console = await open_console()
    assert "of 2 letters" in (await console.get("/dead")).text
    await post_and_follow(console, "/dead/replay/stop")
    assert await asyncio.wait_for(task, 60) is False
    assert await redis.zcard(keys.DEAD) == 1
    found = await retry_runs.progress(redis)
    assert found is not None
    assert not found.goes_on


async def test_one_order_at_a_time(open_console: Open, redis: Redis) -> None:
    """A second order is told that one goes on, and is not begun."""
    await bury(redis, payloads=[b"1"])
    await retry_runs.begin(redis, Filter())
    console = await open_console()
    answer = await post_and_follow(console, "/dead/plan", verb="retry", which="all")
    told = await post_and_follow(console, "/dead/carry-out", verb="retry", **hidden(answer.text))
    assert "Another retry goes on" in told.text
    assert await redis.zcard(keys.DEAD) == 1


async def test_a_retry_of_nothing_keeps_an_interrupted_one(
    open_console: Open, redis: Redis
) -> None:
    """Where the planned letters are gone nothing is begun, and what was interrupted can still be resumed."""
    await bury(redis, payloads=[b"1"])
    await retry_runs.begin(redis, Filter(stage=Stage.ENRICH), 5)
    await redis.hset(keys.RETRY_RUN, "beat_at_ms", 0)
    console = await open_console()
    answer = await post_and_follow(console, "/dead/plan", verb="retry", which="all")
    await dead_letters.drop(redis, [one.id for one in await dead_letters.newest(redis, Filter())])
    told = await post_and_follow(console, "/dead/carry-out", verb="retry", **hidden(answer.text))
    assert "No dead letter is like that any more" in told.text
    run = await retry_runs.interrupted(redis)
    assert run is not None
    assert run.wanted.stage is Stage.ENRICH


async def test_an_interrupted_retry_is_taken_up_by_one(open_console: Open, redis: Redis) -> None:
    """Of two consoles that go on with it at once one does; who stood still meanwhile stops at the next beat."""
    await bury(redis, payloads=[b"%d" % n for n in range(60)])
    run = await retry_runs.begin(redis, Filter(), 60)
    await redis.hset(keys.RETRY_RUN, "beat_at_ms", 0)
    consoles = [await open_console() for _ in range(2)]
    told = await asyncio.gather(
        *(post_and_follow(each, "/dead/replay/resume") for each in consoles)
    )
    assert sorted("goes on already" in answer.text for answer in told) == [False, True]

    async def ring(stages: set[Stage]) -> None:
        """Wake nobody."""

    late = retry_runs.Retrier(redis, rate=0, ring=ring, stopping=asyncio.Event())
    assert await late.carry_on(run) is False
    await ended(consoles[0], REPLAY)
    assert await redis.zcard(keys.DEAD) == 0
    assert (await books.snapshot(redis))["stages"]["forward"]["waiting"] == 60


async def test_addresses_are_veiled_until_asked_for(open_console: Open, redis: Redis) -> None:
    """A letter's payload names nobody; it is shown in clear only by a form, which is in the audit."""
    payload = b'{"email": "ada@example.com"}'
    [dead_id] = await bury(redis, payloads=[payload])
    console = await open_console()
    for path in ("/dead", f"/dead/{dead_id}", "/api/dead", f"/api/dead/{dead_id}"):
        assert "ada@" not in (await console.get(path)).text
    assert "a\u2026@example.com" in (await console.get(f"/dead/{dead_id}")).text
    assert await audited(redis) == []
    assert "ada@example.com" in (await post_and_follow(console, f"/dead/{dead_id}")).text
    assert await audited(redis) == [("reveal", 1, {"letter": dead_id})]


async def test_of_many_kinds_the_largest_are_shown(open_console: Open, redis: Redis) -> None:
    """The page says how many more there are."""
    for n in range(MOST_KINDS + 2):
        await bury(redis, source=f"s{n}", payloads=[b"1", b"2"][: 1 + (n == 31)])
    text = (await (await open_console()).get("/dead")).text
    assert text.index("<td>s31<") < text.index("<td>s0<")
    assert "And 2 kinds more" in text


async def test_a_chosen_filter_stays_chosen(open_console: Open, redis: Redis) -> None:
    """Also where its letters are gone: the page does not say `any` while it looks for one."""
    await bury(redis)
    text = (await (await open_console()).get("/dead?reason=bug&stage=scores&source=ses")).text
    for word in ("bug", "scores", "ses"):
        assert f'<option value="{word}" selected>' in text or f"<option selected>{word}" in text


@pytest.mark.parametrize("path", ["/dead/plan", "/dead/carry-out"])
async def test_the_address_of_a_plan_says_what_a_plan_is(open_console: Open, path: str) -> None:
    """Who comes there without a form is not told of a letter that is gone."""
    answer = await (await open_console()).get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "A plan tells what a retry or a drop would touch" in answer.text
    assert "no such dead letter" not in answer.text


async def test_two_orders_at_once_are_one(open_console: Open, redis: Redis) -> None:
    """Of two forms that are posted at the same moment one is carried out, and the other told so."""
    ids = await bury(redis, payloads=[b"%d" % n for n in range(60)])
    console = await open_console()
    token = form_token((await console.get("/dead")).text)
    fields = {"form_token": token, "verb": "retry", "which": "ticked"}
    await asyncio.gather(
        *(
            console.post("/dead/carry-out", data={**fields, "id": some})
            for some in (ids[:30], ids[30:])
        )
    )
    await ended(console, REPLAY)
    assert await redis.zcard(keys.DEAD) == 30


async def test_read_only_changes_nothing(open_console: Open, redis: Redis) -> None:
    """With CONSOLE_READ_ONLY no form is shown, and a posted one is refused."""
    ids = await bury(redis)
    console = await open_console(console_read_only=True)
    assert "Plan a retry" not in (await console.get("/dead")).text
    for path in ("plan", "carry-out", "replay/stop", "replay/resume"):
        answer = await post_and_follow(
            console, f"/dead/{path}", verb="drop", which="ticked", id=ids
        )
        assert answer.status_code == 403
        assert "CONSOLE_READ_ONLY" in answer.text
    assert await redis.zcard(keys.DEAD) == 1
