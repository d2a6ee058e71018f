"""Whether the tests of this folder run. Where they do not this one says so; the others are left out."""

from __future__ import annotations

import os

import pytest

from tests.browser.chromium import what_is_missing


def test_a_browser_is_there() -> None:
    """What the tests in a browser need is installed; with CI set nothing else will do."""
    missing = what_is_missing()
    if missing and os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    if missing:
        pytest.skip(f"no test in a browser runs: {missing}")
