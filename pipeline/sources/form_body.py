"""Reading a form: some senders post their events as one, or put JSON into a field of it."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import parse_qsl

from python_multipart import parse_form
from python_multipart.exceptions import FormParserError

from pipeline.outcomes import Reason, Unreadable
from pipeline.sources import Malformed

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
# Far above any sender's event, far below what costs seconds: a thousand parts cost 40 ms.
_MOST_FIELDS = 2_000
_TOO_MANY = "the body is not a form: it has too many fields"


class _TooManyParts(Exception):
    pass


def is_form(content_type: str) -> bool:
    """Tell whether a request says that its body is a form."""
    return content_type.partition(";")[0].strip().lower() in (URLENCODED, MULTIPART)


def check_form(body: bytes, content_type: str) -> None:
    """Raise `Malformed` unless *body* is a form with at least one field."""
    try:
        _read(body, content_type)
    except ValueError as error:
        raise Malformed(str(error)) from None


def read_form(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """Return name and value of each field, in order; raise `Unreadable` (malformed) for what `check_form` refuses.

    Uploaded files are left out.
    """
    try:
        return _read(body, content_type)
    except ValueError as error:
        raise Unreadable(Reason.MALFORMED, str(error)) from None


def _read(body: bytes, content_type: str) -> list[tuple[str, str]]:
    is_multipart = content_type.partition(";")[0].strip().lower() == MULTIPART
    read = _read_multipart if is_multipart else _read_urlencoded
    if found := read(body, content_type):
        return found
    raise ValueError("the body is empty, not a form")


def _read_urlencoded(body: bytes, content_type: str) -> list[tuple[str, str]]:
    try:
        # no sender splits by the semicolon, and a value may hold one
        return parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=_MOST_FIELDS,
        )
    except UnicodeDecodeError:
        raise ValueError("the body is not a form: it is not UTF-8") from None
    except ValueError:
        raise ValueError(_TOO_MANY) from None


def _read_multipart(body: bytes, content_type: str) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    parts = 0

    def count(_part: object) -> None:
        nonlocal parts
        parts += 1
        if parts > _MOST_FIELDS:
            raise _TooManyParts

    def keep(field: object) -> None:
        count(field)
        name, value = field.field_name or b"", field.value or b""  # type: ignore[attr-defined]
        fields.append((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")))

    headers = {"Content-Type": content_type.encode("latin-1", "replace")}
    try:
        parse_form(headers, BytesIO(body), keep, count)
    except _TooManyParts:
        raise ValueError(_TOO_MANY) from None
    except (FormParserError, ValueError):
        raise ValueError("the body is not the form that its Content-Type says") from None
    return fields
