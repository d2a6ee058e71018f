"""Logging for every process: one line per happening, for people or for machines.

`console` lines are `time LEVEL logger message key=value`, `json` lines are one object each with
the same fields. What is passed as `extra` becomes keys of its own. Lines hold ids and counts,
never an address, a token, a body; but some libraries print such things at INFO or DEBUG (httpx whole
URLs, arq job arguments), so these are kept at WARNING whatever LOG_LEVEL says. The reader of forms tells
the very bytes that it finds wrong, a line for each of them: it is kept silent, the refusal has a line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

_AT_LEAST = {
    **dict.fromkeys(("httpx", "httpcore", "arq", "websockets", "urllib3"), logging.WARNING),
    "python_multipart": logging.CRITICAL,
    # of a collector that is gone they tell each try, with its address; `pipeline.spans` says it now and then
    "opentelemetry.exporter": logging.CRITICAL,
}
# What every record has; the rest is `extra`.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def configure(log_format: str, level: str) -> None:
    """Send all log lines to stderr, in *log_format* (`console` or `json`) from *level* on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else ConsoleLines())
    root = logging.getLogger()
    for old in [
        kept for kept in root.handlers if isinstance(kept.formatter, ConsoleLines | JsonLines)
    ]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, at_least in _AT_LEAST.items():
        logging.getLogger(name).setLevel(at_least)
    _adopt_uvicorn()


def _adopt_uvicorn() -> None:
    """Let uvicorn's lines come through our handler, in our format.

    An access log that was switched off (`--no-access-log` leaves its logger without handlers)
    stays off.
    """
    for name in ("uvicorn", "uvicorn.access"):
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers.clear()
            logger.propagate = True


class ConsoleLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO receiver.webhooks refused source=pixel`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback under it."""
        line = f"{_when(record)} {record.levelname} {record.name} {record.getMessage()}"
        for key, value in _extra(record).items():
            line += f" {key}={value}"
        # A line break inside a message could fake a second line.
        line = line.replace("\r", "\\r").replace("\n", "\\n")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is a field of it."""
        fields = {
            "time": _when(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _PLAIN}
