"""The log-in: CONSOLE_TOKEN, and nothing else; for so long, and not as often as one likes."""

from __future__ import annotations

import re
from html import unescape

import pytest
from itsdangerous import URLSafeTimedSerializer
from redis.asyncio import Redis

from console.web.attempts import MOST, WITHIN_S, Attempts
from console.web.sessions import COOKIE, KEPT_S, Sessions
from tests.console.conftest import audited
from tests.console.web.conftest import TOKEN, Open, form_token, log_in

pytestmark = pytest.mark.anyio


async def test_a_wrong_token_is_refused(open_console: Open) -> None:
    """Another token, none, or one that is no ASCII gets 401 and no session."""
    console = await open_console(console_token=TOKEN)
    for given in ("", "wrong", TOKEN + "x", TOKEN[:-1], "ü"):
        answer = await log_in(console, given)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert (await console.get("/")).status_code == 303


async def test_a_session_of_another_token_is_refused(open_console: Open) -> None:
    """A cookie that was signed by an earlier CONSOLE_TOKEN opens nothing."""
    console = await open_console(console_token=TOKEN)
    old = Sessions("another-token-0123456789")
    console.cookies.set(COOKIE, old.cookie(old.begin()))
    assert (await console.get("/")).status_code == 303


@pytest.mark.parametrize("value", ["", "x", "a.b.c", '"; DROP', "é"])
async def test_a_cookie_that_is_not_ours_is_refused(open_console: Open, value: str) -> None:
    """Whatever stands in the cookie, it is our signature or no session."""
    console = await open_console(console_token=TOKEN)
    cookie = f"{COOKIE}={value}".encode()
    assert (await console.get("/", headers={b"cookie": cookie})).status_code == 303


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie older than a working day is no session any more."""
    sessions = Sessions(TOKEN)
    cookie = sessions.cookie(sessions.begin())
    assert sessions.read(cookie) is not None
    late = URLSafeTimedSerializer(TOKEN, salt="session")
    made_at = late.loads(cookie, return_timestamp=True)[1].timestamp()
    signer = type(late.make_signer("session"))
    monkeypatch.setattr(signer, "get_timestamp", lambda _: int(made_at) + KEPT_S + 1)
    assert sessions.read(cookie) is None


async def test_an_ended_session_is_told_at_the_form(open_console: Open) -> None:
    """Who posts a form after the session's end is told that nothing was changed."""
    console = await open_console(console_token=TOKEN)
    answer = await console.post("/logout", data={"form_token": "x"})
    assert answer.status_code == 303
    page = await console.get(answer.headers["location"])
    assert "nothing was changed" in page.text


@pytest.mark.parametrize(
    ("came_from", "led_to"),
    [
        ("http://127.0.0.1:8001/dead?stage=forward&since=1d", "/dead?stage=forward&since=1d"),
        ("http://127.0.0.1:8001/", "/"),
        ("http://evil.example/dead", "/"),
        ("http://127.0.0.1:8001//evil.example", "/"),
        ("http://[", "/"),
        ("http://127.0.0.1:8001/pause", "/"),
        ("", "/"),
    ],
)
async def test_the_log_in_leads_back_to_where_the_form_stood(
    open_console: Open, came_from: str, led_to: str
) -> None:
    """Also to its filters; never to another site, nor to the address that the form was posted to."""
    console = await open_console(console_token=TOKEN)
    answer = await console.post("/pause", data={"form_token": "x"}, headers={"referer": came_from})
    text = (await console.get(answer.headers["location"])).text
    fields = dict(re.findall(r'name="(next)" value="([^"]*)"', text))
    answer = await console.post("/login", data={"token": TOKEN, "next": unescape(fields["next"])})
    assert answer.headers["location"] == led_to


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "//[",
        "http://[",
        "/\\evil.example",
        "x",
        "/\n/evil",
    ],
)
async def test_nobody_is_sent_elsewhere(open_console: Open, elsewhere: str) -> None:
    """The page after the log-in is one of ours, whatever the link said."""
    console = await open_console(console_token=TOKEN)
    answer = await console.post("/login", data={"token": TOKEN, "next": elsewhere})
    assert answer.headers["location"] == "/"


async def test_the_page_that_was_wanted_is_shown(open_console: Open) -> None:
    """After the log-in comes the page that was asked for, with its filters."""
    console = await open_console(console_token=TOKEN)
    form = await console.get("/login", params={"next": "/dead?stage=forward"})
    assert 'name="next" value="/dead?stage=forward"' in form.text


async def test_many_wrong_tokens_are_slowed_down(open_console: Open) -> None:
    """After ten wrong tokens from an address within a minute others are not tried; the right one always is let in.

    Else anybody behind the same proxy could keep everybody out.
    """
    console = await open_console(console_token=TOKEN)
    for _ in range(MOST):
        assert (await log_in(console, "wrong")).status_code == 401
    answer = await log_in(console, "wrong")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WITHIN_S
    assert (await log_in(console)).status_code == 303


async def test_many_wrong_bearers_are_slowed_down(open_console: Open) -> None:
    """What programs show as bearer is counted with the tokens of the log-in; who shows none is only told to."""
    console = await open_console(console_token=TOKEN)
    for _ in range(MOST + 1):
        assert (await console.get("/api/status")).status_code == 401
    wrong = {"authorization": "Bearer wrong"}
    for _ in range(MOST):
        assert (await console.get("/api/status", headers=wrong)).status_code == 401
    assert (await console.get("/api/status", headers=wrong)).status_code == 429
    assert (await log_in(console, "wrong")).status_code == 429
    right = {"authorization": f"Bearer {TOKEN}"}
    assert (await console.get("/api/status", headers=right)).status_code == 200


async def test_a_mistyped_token_keeps_the_page_that_was_wanted(open_console: Open) -> None:
    """The form that tells of a wrong token still leads to the page that was asked for."""
    console = await open_console(console_token=TOKEN)
    answer = await console.post("/login", data={"token": "wrong", "next": "/dead?stage=forward"})
    assert 'name="next" value="/dead?stage=forward"' in answer.text


async def test_who_comes_and_goes_is_in_the_audit(open_console: Open, redis: Redis) -> None:
    """A log-in and a log-out leave an entry each; without Redis nobody is kept out by that."""
    console = await open_console(console_token=TOKEN)
    await log_in(console)
    token = form_token((await console.get("/")).text)
    await console.post("/logout", data={"form_token": token})
    assert await audited(redis) == [("log in", 1, {}), ("log out", 1, {})]
    alone = await open_console(console_token=TOKEN, redis_url="redis://127.0.0.1:1/0")
    assert (await log_in(alone)).status_code == 303


def test_attempts_are_forgotten_after_a_minute() -> None:
    """The count is an address's own, and begins anew a minute after its first."""
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(MOST):
        attempts.note_wrong("a")
    assert attempts.wait_s("a") == WITHIN_S
    assert attempts.wait_s("b") == 0
    now = WITHIN_S
    assert attempts.wait_s("a") == 0


async def test_log_out_ends_it(open_console: Open) -> None:
    """After the log-out the browser has no session."""
    console = await open_console(console_token=TOKEN)
    await log_in(console)
    token = form_token((await console.get("/")).text)
    assert (await console.post("/logout", data={"form_token": token})).status_code == 303
    assert (await console.get("/")).status_code == 303


async def test_without_a_token_there_is_no_log_in(open_console: Open) -> None:
    """Where nobody logs in, the form is not shown and posting it does nothing."""
    console = await open_console()
    assert (await console.get("/login")).headers["location"] == "/"
    assert (await log_in(console)).headers["location"] == "/"
