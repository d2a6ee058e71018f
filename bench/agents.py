"""User agents as a day of mail brings them: a few proxies read most, and the rest is a long tail.

Of the opens nearly half come from Apple's proxy and a quarter from Gmail's; the rest of them, and every click,
come from people's own programs, of which there are ten thousand here. The n-th most frequent is seen about
1/n as often as the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random

MOST = 10_000

_APPLE = "Mozilla/5.0 (%s) AppleWebKit/605.1.15 (KHTML, like Gecko)%s"
_CHROME = (
    "Mozilla/5.0 (%s) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.0 %sSafari/537.36%s"
)
_MODELS = (
    *("K", "Pixel 6", "Pixel 7", "Pixel 7a", "Pixel 8", "Pixel 8 Pro", "moto g84", "moto g54 5G"),
    *(f"SM-{letter}{number}B" for letter in "AGSF" for number in range(105, 995, 55)),
    *(f"2{number}RN{letter}G" for number in range(201, 212) for letter in "ACE"),
    *(f"CPH{number}" for number in range(2333, 2660, 13)),
)


@dataclass(frozen=True, slots=True)
class Agent:
    """One user agent, and what a sender that reads it makes of it."""

    text: str
    program: str
    os: str
    is_browser: bool = True
    is_mobile: bool = False
    is_proxy: bool = False


APPLES_PROXY = Agent("Mozilla/5.0", "Apple Mail", "Other", is_browser=False, is_proxy=True)
GMAILS_PROXY = Agent(
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    *("Gmail Image Proxy", "Windows"),
    is_browser=False,
    is_proxy=True,
)


def of_an_open(random: Random) -> Agent:
    """Return who loads the picture of an open."""
    draw = random.random()
    if draw < 0.45:
        return APPLES_PROXY
    return GMAILS_PROXY if draw < 0.7 else of_a_person(random)


def of_a_person(random: Random) -> Agent:
    """Return a person's own program, which is what clicks."""
    return every_person()[int(MOST ** random.random())]


@cache
def every_person() -> list[Agent]:
    """Return every program of people's, the most frequent first."""
    found = [*_telephones(), *_desktops(), *_mail_programs()]
    Random(1).shuffle(found)
    return found[: MOST + 1]


def _telephones() -> Iterator[Agent]:
    for major, minor, patch, kind in product(range(14, 19), range(8), range(3), range(8)):
        version = f"{major}_{minor}" + (f"_{patch}" if patch else "")
        system = f"iPhone; CPU iPhone OS {version} like Mac OS X"
        if kind == 0:
            yield Agent(_APPLE % (system, " Mobile/15E148"), "Apple Mail", "iOS", is_mobile=True)
        else:
            tail = f" Version/{major}.{kind} Mobile/15E148 Safari/604.1"
            yield Agent(_APPLE % (system, tail), "Mobile Safari", "iOS", is_mobile=True)
    for model, android, chrome in product(_MODELS, range(10, 15), range(118, 130)):
        system, build = f"Linux; Android {android}; {model}", 5900 + 17 * (chrome - 110)
        text = _CHROME % (system, chrome, build, "Mobile ", "")
        yield Agent(text, "Chrome Mobile", "Android", is_mobile=True)


def _desktops() -> Iterator[Agent]:
    systems = {"Windows": "Windows NT 10.0; Win64; x64", "Mac OS X": "Macintosh; Intel Mac OS X "}
    for (os, system), version, build in product(systems.items(), range(100, 130), range(30)):
        there = system + f"10_15_{build % 8}" if os == "Mac OS X" else system
        patch = 4000 + version * 10 + build
        yield Agent(_CHROME % (there, version, patch, "", ""), "Chrome", os)
        yield Agent(
            _CHROME % (there, version, patch, "", f" Edg/{version}.0.{build}.1"), "Edge", os
        )
    for version, system in product(range(90, 135), (*systems.values(), "X11; Linux x86_64")):
        text = f"Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"
        yield Agent(text, "Firefox", "Linux" if "X11" in system else "Windows")


def _mail_programs() -> Iterator[Agent]:
    for build, patch in product(range(4000, 5600, 40), range(10)):
        text = (
            f"Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.{build + patch}; Pro)"
        )
        yield Agent(text, "Outlook", "Windows", is_browser=False)
    for version, patch in product(range(78, 129), range(12)):
        text = (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{version}.0) Gecko/20100101 "
            f"Thunderbird/{version}.{patch}.0"
        )
        yield Agent(text, "Thunderbird", "Windows", is_browser=False)
