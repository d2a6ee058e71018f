"""Logs: both formats, what is hidden in the server's lines, and what is kept quiet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import orjson
import pytest

from pipeline import logs
from pipeline.sources import Malformed
from pipeline.sources.form_body import check_form
from receiver.access_log import AccessLines, ErrorLines, shown_path

SECRET = "s3cret-t0ken-0123456789"
KNOWN = frozenset(("pixel", "events"))


@pytest.fixture
def untouched_root() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, *arguments: object, level: int = logging.INFO) -> logging.LogRecord:
    """Return a record as a logger makes it."""
    return logging.LogRecord("a.logger", level, "file.py", 1, message, arguments, None)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/healthz", "/healthz"),
        ("/readyz?x=1", "/readyz?***"),
        ("/hooks/pixel", "/hooks/pixel"),
        ("/hooks/pixel/", "/hooks/pixel/"),
        (f"/hooks/pixel/{SECRET}", "/hooks/pixel/***"),
        (f"/hooks/pixel/{SECRET}/more", "/hooks/pixel/***"),
        (f"/hooks/pixel?token={SECRET}", "/hooks/pixel?***"),
        (f"/hooks/pixel%2F{SECRET}", "/hooks/pixel/***"),
        (f"/hooks/{SECRET}", "/***"),
        (f"/hooks/{SECRET}/pixel", "/***"),
        (f"//hooks/pixel/{SECRET}", "/***"),
        (f"/{SECRET}", "/***"),
        (SECRET, "/***"),
        ("", "/***"),
    ],
)
def test_only_harmless_parts_of_a_path_are_shown(target: str, shown: str) -> None:
    """A path shows its known source, never what may be a token, wherever it was put."""
    assert shown_path(target, KNOWN) == shown


def test_access_lines_are_rewritten_or_dropped() -> None:
    """The line keeps its form; a line of an unknown form does not come through."""
    line = record('%s - "%s %s HTTP/%s" %d', "ip", SECRET, f"/hooks/pixel/{SECRET}", "1.1", 202)
    assert AccessLines(KNOWN).filter(line)
    assert line.getMessage() == 'ip - "*** /hooks/pixel/*** HTTP/1.1" 202'
    assert not AccessLines(KNOWN).filter(record("something else: %s", SECRET))


def test_the_servers_own_lines_hide_paths_and_details() -> None:
    """Paths among the arguments are rewritten; whatever is below INFO is dropped."""
    line = record('%s - "WebSocket %s" 403', "ip", f"/hooks/pixel/{SECRET}")
    assert ErrorLines(KNOWN).filter(line)
    assert SECRET not in line.getMessage()
    assert not ErrorLines(KNOWN).filter(record("< header: %s", SECRET, level=logging.DEBUG))


def test_a_console_line_is_one_line() -> None:
    """`extra` becomes key=value, and a line break in a message cannot fake a second line."""
    line = record("first\nsecond")
    line.count = 3
    text = logs.ConsoleLines().format(line)
    assert text.endswith(" INFO a.logger first\\nsecond count=3")
    assert "\n" not in text


def test_a_json_line_is_one_object_with_the_traceback_inside() -> None:
    """Machines get the same fields, `extra` as keys of their own."""
    line = record("stored %d", 2)
    line.source = "pixel"
    line.exc_info = (ValueError, ValueError("why"), None)
    fields = orjson.loads(logs.JsonLines().format(line))
    assert fields["message"] == "stored 2"
    assert fields["source"] == "pixel"
    assert fields["level"] == "INFO"
    assert "ValueError: why" in fields["traceback"]
    assert "ValueError: why" in logs.ConsoleLines().format(line)


@pytest.mark.usefixtures("untouched_root")
def test_configuring_twice_prints_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The last configuration holds; libraries that print personal data stay quiet."""
    logs.configure("json", "INFO")
    logs.configure("console", "INFO")
    logging.getLogger("receiver.test").info("hello")
    logging.getLogger("httpx").info("GET https://example.com/?key=%s", SECRET)
    written = capsys.readouterr().err
    assert written.count("hello") == 1
    assert SECRET not in written


@pytest.mark.usefixtures("untouched_root")
def test_a_bad_form_does_not_flood_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """The parser of forms says nothing of the bytes that it skips: one body could hold a million of them."""
    logs.configure("console", "DEBUG")
    body = (
        b"--edge\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--edge--\r\n" + b"rest" * 9
    )
    with contextlib.suppress(Malformed):
        check_form(body, "multipart/form-data; boundary=edge")
    with contextlib.suppress(Malformed):
        check_form(b"edge" + body, "multipart/form-data; boundary=edge")
    logging.getLogger("python_multipart.multipart").error("Opening file: %s", SECRET)
    assert capsys.readouterr().err == ""
