"""What a user agent says of the person's program and machine, where the sender has not said it.

The reading is by ua-parser's tables of expressions, which the browsers' makers and their users keep up to date;
its table of devices is not needed. The agents in use at a time are some thousands: the last ones are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from ua_parser import OS, UserAgent
from ua_parser.loaders import load_lazy_builtins

from pipeline.sources.agent_expressions import MOST_KINDS, Expressions, without_versions

# What reads mail and nothing else; every other program is a browser. Proxies load pictures for people.
_MAIL_PROGRAMS = re.compile(
    r"outlook|thunderbird|apple mail|mailproxy|imageproxy|postbox|airmail|lotus notes|eudora"
    r"|the bat|windows mail|spicebird|sparrow|mailbird|em client|barca|zdesktop|gmail|live mail",
    re.IGNORECASE,
)
# Windows calls its services for pens "Tablet PC", also on desktops
_TABLET = re.compile(r"ipad|tablet(?! pc)|kindle|playbook|silk/", re.IGNORECASE)
# AFT...: Amazon's Fire TV, whose browser is Silk
_TELEVISION = re.compile(
    r"\bAFT[A-Z]|\b(?:smart-?|google ?|android ?|apple ?)?tv\b|bravia", re.IGNORECASE
)
_MOBILE = re.compile(r"mobi|iphone|ipod|android.*mobile|windows phone|blackberry", re.IGNORECASE)
_ON_DESKS = frozenset(
    ("Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD")
)
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Agent:
    """Program and machine; None where the user agent says nothing."""

    client: str | None = None
    browser: str | None = None
    os: str | None = None
    device: str | None = None


def read_user_agent(text: str) -> Agent:
    """Return what *text* says, whatever it is."""
    return _read(text[:_LONGEST])


@lru_cache(maxsize=1024)
def is_mail_program(name: str) -> bool:
    """Tell whether the program of that *name* reads mail, and is no browser."""
    return _MAIL_PROGRAMS.search(name) is not None


# more than a day of mail brings; one takes some 300 bytes, most of them its text: 10 MB when all are there
@lru_cache(maxsize=32_768)
def _read(text: str) -> Agent:
    programs, systems = _tables()
    found, system = programs.first(text), systems.first(text)
    program = found.family if found else None
    reads_mail = program is not None and is_mail_program(program)
    os = system.family if system else None
    if program is not None and "proxy" in program.lower():
        return Agent(client=program)  # the machine is the proxy's, not the person's
    return Agent(
        client=program if reads_mail else None,
        browser=None if reads_mail else program,
        os=os,
        device=_device(without_versions(text), os),
    )


@cache
def _tables() -> tuple[Expressions[UserAgent], Expressions[OS]]:
    programs, systems, _ = load_lazy_builtins()
    return Expressions(programs), Expressions(systems)


@lru_cache(maxsize=MOST_KINDS)
def _device(text: str, os: str | None) -> str | None:
    if _TELEVISION.search(text):
        return None
    if _TABLET.search(text) or (os == "Android" and not _MOBILE.search(text)):
        return "Tablet"
    if _MOBILE.search(text):
        return "Mobile"
    return "Desktop" if os in _ON_DESKS else None
