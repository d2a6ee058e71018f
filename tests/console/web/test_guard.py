"""Who is let into the console, what every answer carries, and what no form gets past."""

from __future__ import annotations

import pytest

from console.web.guard import MOST_BODY_BYTES
from tests.console.web.conftest import TOKEN, Open, form_token, log_in

pytestmark = pytest.mark.anyio


async def test_without_a_token_this_machine_is_let_in(open_console: Open) -> None:
    """Without CONSOLE_TOKEN a browser on this machine sees the page at once."""
    console = await open_console()
    answer = await console.get("/")
    assert answer.status_code == 200
    assert "The books balance" in answer.text


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "not an address"])
async def test_without_a_token_no_other_machine_is_let_in(open_console: Open, peer: str) -> None:
    """Without CONSOLE_TOKEN a request from another address is refused, whatever it asks for."""
    console = await open_console(peer=peer)
    for path in ("/", "/login", "/healthz", "/static/console.css", "/api/status"):
        answer = await console.get(path)
        assert answer.status_code == 403
        assert "CONSOLE_TOKEN" in answer.text


@pytest.mark.parametrize("host", ["relay.example.com", "127.0.0.1.example.com", "", "[::1"])
async def test_without_a_token_only_this_machines_names_are_answered(
    open_console: Open, host: str
) -> None:
    """A name that somebody else's page had resolved to this machine, or a proxy's, is refused."""
    console = await open_console()
    assert (await console.get("/", headers={"host": host})).status_code == 403


@pytest.mark.parametrize(
    "header", ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"]
)
async def test_without_a_token_no_proxy_is_let_in(open_console: Open, header: str) -> None:
    """A proxy on this machine that says of itself that it is one does not open the page to its clients."""
    console = await open_console()
    assert (await console.get("/", headers={header: "192.0.2.7"})).status_code == 403


async def test_with_a_token_anybody_may_log_in(open_console: Open) -> None:
    """With CONSOLE_TOKEN the page is for other machines too, after the log-in."""
    console = await open_console(
        peer="192.0.2.7", url="https://relay.example.com", console_token=TOKEN
    )
    answer = await console.get("/dead?stage=forward")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fdead%3Fstage%3Dforward"
    assert (await log_in(console)).status_code == 303
    assert (await console.get("/")).status_code == 200


async def test_the_cookie_is_kept_from_scripts_and_other_sites(open_console: Open) -> None:
    """The session's cookie is http-only, same-site and, over TLS, secure; it does not hold the token."""
    console = await open_console(url="https://relay.example.com", console_token=TOKEN)
    cookie = (await log_in(console)).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" in cookie
    assert TOKEN not in cookie


@pytest.mark.parametrize("path", ["/", "/nowhere", "/login", "/static/console.css"])
async def test_every_answer_loads_nothing_but_our_own_files(open_console: Open, path: str) -> None:
    """Each answer has the policy by which a browser loads and runs nothing of anybody else's."""
    console = await open_console()
    headers = (await console.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"


async def test_pages_are_not_kept_by_the_browser(open_console: Open) -> None:
    """What a page tells of people stays in no cache."""
    console = await open_console()
    assert (await console.get("/")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
    ],
)
async def test_a_form_of_another_site_is_refused(
    open_console: Open, headers: dict[str, str]
) -> None:
    """A form that a browser brings from elsewhere is refused, also with the right token in it."""
    console = await open_console(console_token=TOKEN)
    await log_in(console)
    token = form_token((await console.get("/")).text)
    answer = await console.post("/logout", data={"form_token": token}, headers=headers)
    assert answer.status_code == 403
    assert (await console.get("/")).status_code == 200


@pytest.mark.parametrize("given", ["", "x", "é", None])
async def test_a_form_without_its_token_is_refused(open_console: Open, given: str | None) -> None:
    """A form is carried out only with the token of its session."""
    console = await open_console(console_token=TOKEN)
    await log_in(console)
    data = {"other": "x"} if given is None else {"form_token": given}
    assert (await console.post("/logout", data=data)).status_code == 403
    assert (await console.get("/")).status_code == 200


async def test_a_form_of_another_session_is_refused(open_console: Open) -> None:
    """A form that was taken from one session is worth nothing in another."""
    console = await open_console(console_token=TOKEN)
    await log_in(console)
    stolen = form_token((await console.get("/")).text)
    console.cookies.clear()
    await log_in(console)
    assert (await console.post("/logout", data={"form_token": stolen})).status_code == 403


async def test_a_large_form_is_not_read(open_console: Open) -> None:
    """A body larger than any form of ours is refused by its length, and so is one that does not tell it."""
    console = await open_console()
    assert (await console.post("/logout", content=b"x" * (MOST_BODY_BYTES + 1))).status_code == 413
    # a form with files may name a charset that takes seconds to decode
    files = {"token": ("x", b"x", "text/plain; charset=punycode")}
    assert (await console.post("/login", files=files)).status_code == 415
    assert (await console.post("/login", json={"token": TOKEN})).status_code == 415

    async def pieces() -> object:
        yield b"x"

    assert (await console.post("/logout", content=pieces())).status_code == 411  # type: ignore[arg-type]


async def test_programs_show_the_token_as_bearer(open_console: Open) -> None:
    """Under /api a program is let in by CONSOLE_TOKEN as bearer, and told so when it is not."""
    console = await open_console(console_token=TOKEN)
    refused = await console.get("/api/status", headers={"authorization": "Bearer wrong"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    let_in = await console.get("/api/status", headers={"authorization": f"Bearer {TOKEN}"})
    assert let_in.status_code != 401
    elsewhere = await console.get("/", headers={"authorization": f"Bearer {TOKEN}"})
    assert elsewhere.status_code == 303


async def test_a_failing_redis_is_told_in_a_sentence(open_console: Open, redis: object) -> None:
    """Without Redis a page says what is wrong and what to do, and the process lives."""
    console = await open_console(redis_url="redis://127.0.0.1:1/0")
    answer = await console.get("/")
    assert answer.status_code == 503
    assert "REDIS_URL" in answer.text
    assert (await console.get("/healthz")).status_code == 200
