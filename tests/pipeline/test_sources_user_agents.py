"""User agents: what they say of program and machine, where the sender has not said it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ua_parser import Domain
from ua_parser.basic import Resolver
from ua_parser.loaders import load_lazy_builtins

from pipeline.sources.agent_expressions import Expressions, needed_words
from pipeline.sources.user_agents import is_mail_program, read_user_agent

SEEN = (
    "",
    "Mozilla/5.0",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.4266; Pro)",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile Safari/537.36",
    "curl/8.4.0",
)
_TABLET_PC = "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.1; .NET CLR 2.0; Tablet PC 2.0"


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (f"{_TABLET_PC}; Microsoft Outlook 14.0)", "Desktop"),
        (f"{_TABLET_PC})", "Desktop"),
        ("Mozilla/5.0 (Android 14; Tablet; rv:120.0) Gecko/120.0 Firefox/120.0", "Tablet"),
        ("Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) Mobile/15E148", "Tablet"),
        (
            "Mozilla/5.0 (Linux; Android 9; KFMAWI) Silk/100.1 like Chrome/100.0 Safari/537.36",
            "Tablet",
        ),
        ("Mozilla/5.0 (Linux; Android 9; AFTMM) Silk/100.1 like Chrome/100.0 Safari/537.36", None),
        ("Mozilla/5.0 (Linux; Android 12; BRAVIA 4K VH2 Build/X; Android TV) Chrome/120.0", None),
        ("Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) SamsungBrowser/4.0 Chrome/94.0", None),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/120.0 Mobile Safari/537.36", "Mobile"),
        ("Mozilla/5.0 (Linux; Android 14; SM-X200) Chrome/120.0 Safari/537.36", "Tablet"),
    ],
)
def test_a_machine_is_told_from_others(text: str, device: str | None) -> None:
    """Windows with tablet services is a desktop, and a television is none of the three."""
    assert read_user_agent(text).device == device


@pytest.mark.parametrize(
    ("name", "reads_mail"),
    [
        *((name, True) for name in ("Outlook", "Apple Mail", "Thunderbird", "GmailImageProxy")),
        *((name, True) for name in ("Gmail", "YahooMailProxy", "Windows Live Mail", "Airmail")),
        *((name, False) for name in ("Chrome", "Mobile Safari", "Firefox", "Edge", "", "Other")),
    ],
)
def test_what_reads_mail_is_no_browser(name: str, reads_mail: bool) -> None:
    """Programs are known by their names, as senders and ua-parser write them."""
    assert is_mail_program(name) is reads_mail


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (r"(Teams)/(\d+)", [{"teams"}, {"/"}]),
        (r"[Bb]ot(?:[Ss]pider|Crawl)x?", [{"bot"}, {"spider", "crawl"}]),
        (r"(?:ab|cd\d+efg)", [{"ab", "efg"}]),
        (r"(?:abc)?de", [{"de"}]),
        (r"(?:abc|)de", [{"de"}]),
        (r"(?:abcd){0,2}e+", [{"e"}]),
        (r"(?i)AB(?!cdef)", [{"ab"}]),
        (r"Windows 10", [{"windows "}]),
        (r"NT[1]5[.]0", [{"nt"}, {"."}]),
        (r"\d+|abc", []),
        (r"[ab]\w*", []),
        ("\u017fafari", [{"afari"}]),
    ],
)
def test_words_are_needed_only_where_nothing_may_be_left_out(
    expression: str, words: list[set[str]]
) -> None:
    """Every word of an expression that must stand is needed, of alternatives one each, and no number."""
    assert needed_words(expression) == words


@pytest.mark.parametrize("agent", [*SEEN, *(f"{one} \u017fpider \u00e9/1.2" for one in SEEN)])
def test_the_first_expression_is_that_of_all(agent: str) -> None:
    """What is found is what ua-parser finds when it tries every expression, also among other letters."""
    programs, systems, devices = load_lazy_builtins()
    wanted = Resolver((programs, systems, devices))(agent, Domain.USER_AGENT | Domain.OS)
    assert Expressions(programs).first(agent) == wanted.user_agent
    assert Expressions(systems).first(agent) == wanted.os


_TABLES = load_lazy_builtins()
_ALL = Resolver(_TABLES)
_PROGRAMS, _SYSTEMS = Expressions(_TABLES[0]), Expressions(_TABLES[1])
_WORDS = sorted(
    {
        word
        for table in _TABLES[:2]
        for matcher in table
        for word in re.findall(r"[A-Za-z][A-Za-z0-9]{2,}", matcher.regex)
    }
)


@given(
    st.lists(
        st.tuples(st.sampled_from(_WORDS), st.sampled_from(["", "/1.2", "/10.2.3.4", " 5.0", ";"])),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_words_of_the_expressions_hide_none(pieces: list[tuple[str, str]]) -> None:
    """Of texts made from the expressions' own words what is found is what ua-parser finds when it tries all."""
    agent = " ".join(word + version for word, version in pieces)
    wanted = _ALL(agent, Domain.USER_AGENT | Domain.OS)
    assert _PROGRAMS.first(agent) == wanted.user_agent
    assert _SYSTEMS.first(agent) == wanted.os
