"""Whether a URL that a vendor holds leads to this relay."""

from __future__ import annotations

import pytest

from console.commands import BadUsage
from console.hooks import Hooks, Points, host_of
from pipeline.hook_tokens import HookToken

TOKEN = "hYq3-token-of-pixels_7Kd2"
AUDIENCES_ONLY = "Zc81-token-of-audiences_"
TOKENS = (HookToken(None, TOKEN), HookToken("audience", AUDIENCES_ONLY))
HOOKS = Hooks("https://relay.example.com", TOKENS)


@pytest.mark.parametrize(
    "url",
    [
        f"https://relay.example.com/hooks/pixel/{TOKEN}",
        f"https://RELAY.example.com.:443/hooks/pixel/{TOKEN}?tag=spring",
        f"http://relay.example.com/hooks/workflow/{TOKEN}",
        f"https://relay.example.com/hooks/audience?token={TOKEN}&token=other",
        f"https://relay.example.com/hooks/audience/{AUDIENCES_ONLY}",
        f"https://relay.example.com/hooks/pixel/{TOKEN}/",
        f"https://relay.example.com/hooks/pixel/?token={TOKEN}",
        f" https://relay.example.com/hooks/pixel/{TOKEN.replace('-', '%2D')}\n",
    ],
)
def test_what_leads_here_and_is_let_in(url: str) -> None:
    """The host is compared, not its spelling; the token may stand in the path or in the query."""
    place = HOOKS.place(url)
    assert (place.points, place.token_valid, place.problem) == (Points.HERE, True, None)
    assert (place.host or "").rstrip(".") == "relay.example.com"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://relay.example.com/hooks/pixel/an-old-token", "not valid for pixel"),
        (f"https://relay.example.com/hooks/pixel/{AUDIENCES_ONLY}", "not valid for pixel"),
        (f"https://relay.example.com/hooks/pixel/{TOKEN}/more", "not valid for pixel"),
        ("https://relay.example.com/hooks/pixel", "no token"),
        (f"https://relay.example.com/hooks/sendgrid/{TOKEN}", "its source is none of"),
        (f"https://relay.example.com/hooks/{TOKEN}", "its source is none of"),
        (f"https://relay.example.com/{TOKEN}", "404"),
    ],
)
def test_what_leads_here_and_is_refused(url: str, problem: str) -> None:
    """What the receiver would refuse is a problem, told without the token."""
    place = HOOKS.place(url)
    assert place.points is Points.HERE
    assert place.problem is not None
    assert problem in place.problem
    assert TOKEN not in str(place)
    assert "an-old-token" not in str(place)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (f"https://crm.example.org/hooks/pixel/{TOKEN}?key=secret", "crm.example.org"),
        (f"https://relay.example.com:8443/hooks/pixel/{TOKEN}", "relay.example.com"),
        ("not a URL at all", None),
        ("https://[::1/hooks", None),
        ("https://relay.example.com:port/hooks", None),
    ],
)
def test_of_what_leads_elsewhere_only_the_host_is_told(url: str, host: str | None) -> None:
    """Somebody else's path and query may be a secret."""
    place = HOOKS.place(url)
    assert (place.points, place.host, place.token_valid) == (Points.ELSEWHERE, host, None)
    assert host_of(url) == host


@pytest.mark.parametrize("url", [None, "", "  "])
def test_no_webhook_leads_nowhere(url: str | None) -> None:
    """An empty text is no webhook either."""
    assert HOOKS.place(url).points is Points.NOWHERE


def test_below_a_prefix_the_rest_of_the_host_is_elsewhere() -> None:
    """Behind a shared proxy only what is below the prefix is ours."""
    hooks = Hooks("https://example.com/relay", TOKENS)
    assert hooks.place(hooks.url("pixel")).token_valid
    other = hooks.place(f"https://example.com/hooks/pixel/{TOKEN}")
    assert other.points is Points.ELSEWHERE


def test_the_url_takes_a_token_of_its_source() -> None:
    """The first token that is valid for the source is taken, escaped; without one there is no URL."""
    odd = Hooks("https://r.example.com", [HookToken("audience", AUDIENCES_ONLY), *TOKENS])
    assert odd.url("pixel", "spring") == f"https://r.example.com/hooks/pixel/{TOKEN}?tag=spring"
    assert odd.url("audience").endswith(AUDIENCES_ONLY)
    assert TOKEN not in odd.url("pixel", masked=True)
    braces = Hooks("https://r.example.com", [HookToken(None, "a{token}with|braces")])
    assert braces.url("pixel") == "https://r.example.com/hooks/pixel/a%7Btoken%7Dwith%7Cbraces"
    assert braces.place(braces.url("pixel")).token_valid
    with pytest.raises(BadUsage, match="HOOK_TOKENS"):
        Hooks("https://r.example.com", [HookToken("audience", AUDIENCES_ONLY)]).url("pixel")
