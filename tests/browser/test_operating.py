"""What somebody on call does: log in, watch, find what died, put it back to work, pause, forget; and who may not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from console.web import sessions
from pipeline import dead_letters, heartbeats, keys, visitors
from pipeline.outcomes import Reason, Stage
from tests.browser.conftest import Console, Look
from tests.browser.filled import BEN, ben
from tests.console.conftest import audited
from tests.console.web.conftest import TOKEN
from tests.pipeline.acquaintances import meet
from tests.pipeline.burials import bury
from tests.pipeline.work import put
from tests.served import served

pytestmark = pytest.mark.anyio


#: what is said while an order is carried out, and when it was
ALL_OF_TWO = re.compile("2 of 2 letters|2 letters: finished, 2 done")


def figure(page: Page, name: str) -> Locator:
    return page.locator(f'[data-figure="{name}"]').first


async def test_one_logs_in(console: Console, look: Look, redis: Redis) -> None:
    """A wrong token is refused and leads nowhere; the right one leads to the page that was asked for, and out again."""
    page = await look(console, is_in=False)
    await page.goto("/dead?stage=forward")
    assert page.url.endswith("/login?next=%2Fdead%3Fstage%3Dforward")
    await expect(page.get_by_label("CONSOLE_TOKEN")).to_be_focused()
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("This is not CONSOLE_TOKEN.")
    assert (await page.request.get("/dead", max_redirects=0)).status == 303
    await page.get_by_label("CONSOLE_TOKEN").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
    assert page.url.endswith("/dead?stage=forward")
    (cookie,) = [each for each in await page.context.cookies() if each["name"] == sessions.COOKIE]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    await page.goto("/settings")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    assert [what for what, *_ in await audited(redis)] == ["log in", "log out"]


async def test_a_number_changes_while_one_watches(
    console: Console, look: Look, redis: Redis
) -> None:
    """What comes in stands on Flow a moment later, on the same page: nothing was loaded again."""
    await heartbeats.beat(redis, "one")
    page = await look(console)
    await page.goto("/")
    await page.evaluate("window.isSame = true")
    await expect(figure(page, "unpack-waiting")).to_have_text("0")
    await put(redis, 3)
    await expect(figure(page, "unpack-waiting")).to_have_text("3")
    await expect(figure(page, "unpack-in")).to_have_text("3")
    assert await page.evaluate("window.isSame")


async def test_one_finds_a_dead_letter_and_retries_it(
    console: Console, look: Look, redis: Redis
) -> None:
    """Kinds lead to letters, a letter to the vendor's words; a plan says how many, and only carrying it out counts."""
    await bury(redis, error="no such list", payloads=[b'{"n":1}', b'{"n":2}'])
    await bury(redis, Stage.SUBSCRIBE, source="pixel", reason=Reason.INVALID)
    page = await look(console)
    await page.goto("/dead")
    await page.get_by_label("stage").select_option("subscribe")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator("td.time a")).to_have_count(1)
    await page.goto("/dead")
    await page.get_by_role("link", name="refused").click()
    assert page.url.endswith("/dead?stage=forward&source=sendgrid&reason=refused")
    await expect(page.locator("td.time a")).to_have_count(2)
    await page.locator("td.time a").first.click()
    await expect(page.get_by_text("no such list")).to_be_visible()
    await page.go_back()
    await page.get_by_label("all letters that match").check()
    await page.get_by_role("button", name="Plan a retry").click()
    retry = page.get_by_role("button", name="Retry 2 letters")
    await expect(retry).to_be_visible()
    assert (
        sum((await dead_letters.counts(redis, dead_letters.Filter()))[Stage.FORWARD].values()) == 2
    )
    await retry.click()
    await expect(page.get_by_text(ALL_OF_TWO)).to_be_visible()
    await page.goto("/dead?stage=forward")
    await expect(page.get_by_text("No dead letters of this kind.")).to_be_visible()
    left = await dead_letters.counts(redis, dead_letters.Filter())
    assert {stage: sum(row.values()) for stage, row in left.items()} == {Stage.SUBSCRIBE: 1}


@pytest.mark.parametrize(("path", "stage"), [("/", "forward"), ("/destinations", "enrich")])
async def test_one_pauses_and_resumes(
    console: Console, look: Look, redis: Redis, path: str, stage: str
) -> None:
    """A stage is paused with a reason, which stands on Flow, and flows again; both are audited."""
    page = await look(console)
    await page.goto(path)
    await page.locator("summary", has_text=f"Pause {stage}").click()
    await page.locator(f"#reason-{stage}").fill("the vendor moves house")
    await page.get_by_role("button", name=f"Pause {stage}").click()
    await expect(page.get_by_role("button", name=f"Resume {stage}")).to_be_visible()
    assert await redis.hkeys(keys.PAUSED) == [stage.encode()]
    await page.goto("/")
    await expect(page.get_by_text("the vendor moves house")).to_be_visible()
    await page.goto(path)
    await page.get_by_role("button", name=f"Resume {stage}").click()
    await expect(page.get_by_role("button", name=f"Resume {stage}")).to_be_hidden()
    assert [what for what, *_ in await audited(redis)] == ["pause", "resume"]


async def test_one_forgets_a_visitor(console: Console, look: Look, redis: Redis) -> None:
    """Found by address, shown veiled, forgotten after a page that says what goes; then nobody is found any more."""
    await meet(redis, ben())
    page = await look(console)
    await page.goto("/visitors")
    await page.get_by_label("An e-mail address").fill(BEN)
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_text("Example Ltd")).to_be_visible()
    assert BEN not in await page.content()
    await page.get_by_role("button", name="Forget…").click()
    await page.get_by_role("button", name="Forget for good").click()
    await expect(page.get_by_text("Gone: 1 visitor,")).to_be_visible()
    assert await visitors.find(redis, BEN) is None
    await page.goto("/visitors")
    await page.get_by_label("An e-mail address").fill(BEN)
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_text("Forgotten, and kept from coming back")).to_be_visible()


def elsewhere(answers: dict[str, str]) -> Starlette:
    """Return a site of somebody else, with a page of HTML at each path."""

    def page(html: str) -> Any:
        async def answer(request: Request) -> HTMLResponse:
            return HTMLResponse(html)

        return answer

    return Starlette(routes=[Route(path, page(html)) for path, html in answers.items()])


async def test_a_form_of_somebody_else_changes_nothing(
    console: Console, look: Look, redis: Redis
) -> None:
    """A page elsewhere cannot post with the reader's session, even with the form's own word; ours cannot without."""
    page = await look(console)
    await page.goto("/")
    ours = await page.locator("[name=form_token]").first.input_value()
    stolen = (
        f'<form method="post" action="{console.url}/pause"><input name="stage" value="forward">'
        f'<input name="form_token" value="{ours}"><button>Win</button></form>'
    )
    # another port of the same host: the browser sends the cookie along, so nothing but the guard refuses it
    with served(elsewhere({"/": stolen})) as theirs:
        unwatched = await page.context.new_page()
        await unwatched.goto(theirs)
        async with unwatched.expect_response("**/pause") as answered:
            await unwatched.get_by_role("button").click()
        answer = await answered.value
        assert answer.status == 403
        assert "does not come from the console's own page" in await answer.text()
    for value in ("", "of-another-session"):
        await page.locator("[name=form_token]").evaluate_all(
            "(all, value) => all.forEach((it) => { it.value = value; })", value
        )
        await page.locator("summary", has_text="Pause forward").click()
        async with page.expect_response("**/pause") as answered:
            await page.get_by_role("button", name="Pause forward").click()
        assert (await answered.value).status == 403
        await page.goto("/")
    assert not await redis.exists(keys.PAUSED)
    assert await audited(redis) == []


async def test_an_expired_session_has_to_log_in_again(
    console: Console, look: Look, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that has ended changes nothing and shows nothing; the log-in leads to the page that was asked for."""
    (letter,) = await bury(redis)
    page = await look(console)
    await page.goto("/dead?stage=forward")
    await page.get_by_label("all letters that match").check()
    await page.get_by_role("button", name="Plan a drop").click()
    drop = page.get_by_role("button", name="Drop 1 letter")
    await expect(drop).to_be_visible()
    monkeypatch.setattr(sessions, "KEPT_S", -1)
    await drop.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    await page.goto("/dead?stage=forward")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    assert "the vendor said no" not in await page.content()
    assert await redis.exists(keys.letter(letter))
    monkeypatch.undo()
    await page.get_by_label("CONSOLE_TOKEN").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("the vendor said no")).to_be_visible()
    assert page.url.endswith("/dead?stage=forward")
    assert [what for what, *_ in await audited(redis)] == ["log in"]


async def test_all_letters_of_a_page_are_ticked_at_once(
    console: Console, look: Look, redis: Redis
) -> None:
    """A box in the head ticks all and clears all, and shows when one was cleared by hand."""
    await bury(redis, payloads=[b'{"n":1}', b'{"n":2}'])
    page = await look(console)
    await page.goto("/dead")
    every = page.get_by_label("all letters on this page")
    one, other = await page.locator("tbody input[type=checkbox]").all()
    await every.check()
    await expect(one).to_be_checked()
    await expect(other).to_be_checked()
    await one.uncheck()
    await expect(every).not_to_be_checked()
    await every.check()
    await every.uncheck()
    await expect(one).not_to_be_checked()
    await expect(other).not_to_be_checked()
