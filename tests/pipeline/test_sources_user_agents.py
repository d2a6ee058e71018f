"""User agents: what they say of program and machine, where the sender has not said it."""

from __future__ import annotations

import pytest

from pipeline.sources.user_agents import is_mail_program, read_user_agent

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
