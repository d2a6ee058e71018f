"""Keeping tokens out of uvicorn's logs, whichever way uvicorn was started.

The token stands in the URL, because many senders can set nothing but a URL, and uvicorn's access
log shows URLs. `tame` puts a filter on uvicorn's loggers that shows of a path only what is known
to be harmless: `/hooks/{source}/***` of a known source, our own pages, and `/***` for everything
else, since a token is also a token in a misspelt path; of a query nothing. Filters on loggers
outlive uvicorn's own logging set-up, so it does not matter which comes first. At uvicorn's level
`trace` whole requests would be printed: that logger is silenced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import unquote

_PAGES = frozenset(("/healthz", "/readyz", "/metrics"))
_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)
HIDDEN = "***"


def tame(sources: Iterable[str]) -> None:
    """Make uvicorn's loggers hide what may be a token; calling it again changes nothing."""
    known = frozenset(sources)
    _replace_filter(logging.getLogger("uvicorn.access"), AccessLines(known))
    _replace_filter(logging.getLogger("uvicorn.error"), ErrorLines(known))
    logging.getLogger("uvicorn.asgi").setLevel(logging.INFO)


def shown_path(target: str, known: frozenset[str]) -> str:
    """Return what a log may show of the request target *target*."""
    path, question_mark, _ = target.partition("?")
    query = f"?{HIDDEN}" if question_mark else ""
    if path in _PAGES:
        return path + query
    _, _, rest = unquote(path).partition("/hooks/")
    source, slash, token = rest.partition("/")
    if not path.startswith("/hooks/") or source not in known:
        return f"/{HIDDEN}{query}"
    return f"/hooks/{source}{slash}{HIDDEN if token else ''}{query}"


class AccessLines(logging.Filter):
    """Rewrites the access log's lines: client, method, path, HTTP version, status."""

    def __init__(self, known: frozenset[str]) -> None:
        super().__init__()
        self._known = known

    def filter(self, record: logging.LogRecord) -> bool:
        """Hide the path's secrets; drop a line of another form, for which nobody can vouch."""
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            return False
        client, method, target, version, status = record.args
        method = method if method in _METHODS else HIDDEN
        record.args = (client, method, shown_path(str(target), self._known), version, status)
        return True


class ErrorLines(logging.Filter):
    """Rewrites the server's own lines, where refused websockets show their path."""

    def __init__(self, known: frozenset[str]) -> None:
        super().__init__()
        self._known = known

    def filter(self, record: logging.LogRecord) -> bool:
        """Hide paths; below INFO there are header values: such lines are dropped."""
        if record.levelno < logging.INFO:
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(
                shown_path(arg, self._known) if isinstance(arg, str) and arg[:1] == "/" else arg
                for arg in record.args
            )
        return True


def _replace_filter(logger: logging.Logger, new: logging.Filter) -> None:
    for old in [kept for kept in logger.filters if type(kept) is type(new)]:
        logger.removeFilter(old)
    logger.addFilter(new)
