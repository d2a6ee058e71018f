"""Reading a form: some senders post their events as one, or put JSON into a field of it."""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from python_multipart import MultipartParser
from python_multipart.multipart import parse_options_header

from pipeline.outcomes import Reason, Unreadable
from pipeline.sources import Malformed

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
# Far above any sender's event, far below what costs seconds: a thousand parts cost 40 ms.
_MOST_FIELDS = 2_000
_EMPTY = "the body is empty, not a form"
_TOO_MANY = "the body is not a form: it has too many fields"
_NOT_AS_SAID = "the body is not the form that its Content-Type says"
# field and field, name and value, blanks, percent signs; then what may not be there, as one of it
_AS_QUOTED_PRINTABLE = bytes.maketrans(b"&=+%\r\n\x1e\x1f", b"\x1e\x1f =\r\r\r\r")
_PADDED = rb"[ \t]{100}"
_CODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"base64": a2b_base64,
    b"quoted-printable": a2b_qp,
}


def is_form(content_type: str) -> bool:
    """Tell whether a request says that its body is a form."""
    return _media_type(content_type) in (URLENCODED, MULTIPART)


def check_form(body: bytes, content_type: str) -> None:
    """Raise `Malformed` unless *body* is a form with at least one field."""
    try:
        found = _read_multipart(body, content_type) if _is_multipart(content_type) else _split(body)
    except ValueError as error:
        raise Malformed(str(error)) from None
    if not found:
        raise Malformed(_EMPTY)


def read_form(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """Return name and value of each field, in order; raise `Unreadable` (malformed) for what `check_form` refuses.

    Uploaded files are left out.
    """
    try:
        return _read(body, content_type)
    except ValueError as error:
        raise Unreadable(Reason.MALFORMED, str(error)) from None


def _read(body: bytes, content_type: str) -> list[tuple[str, str]]:
    is_multipart = _is_multipart(content_type)
    if found := _read_multipart(body, content_type) if is_multipart else _read_urlencoded(body):
        return found
    raise ValueError(_EMPTY)


def _is_multipart(content_type: str) -> bool:
    return _media_type(content_type) == MULTIPART


# a sender writes it the same way in every call, but for the boundary of parts
@lru_cache(maxsize=64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _split(body: bytes) -> list[str]:
    """Return the fields of an urlencoded form, still with their percent signs; or raise `ValueError`."""
    try:
        # no sender splits by the semicolon, and a value may hold one
        fields = body.decode("utf-8").replace("+", " ").split("&")
    except UnicodeDecodeError:
        raise ValueError("the body is not a form: it is not UTF-8") from None
    if len(fields) > _MOST_FIELDS:
        raise ValueError(_TOO_MANY)
    return [field for field in fields if field]


def _read_urlencoded(body: bytes) -> list[tuple[str, str]]:
    if fields := _split_at_once(body):
        return fields
    pairs = (field.partition("=") for field in _split(body))
    return [(_unquoted(name), _unquoted(value)) for name, _, value in pairs]


def _split_at_once(body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a plain form, ten times as fast as one by one; nothing where that could go wrong.

    Quoted-printable differs from percent signs by its sign only, and is decoded in C. But its sign means something
    else before a line break, and where no two hex digits follow: the text is then longer than it should be. What
    separates fields, and name from value, is put into characters that the form holds neither as they are nor
    behind a percent sign.
    """
    if not body.isascii() or body.count(b"&") >= _MOST_FIELDS or b"%1" in body:
        return []
    quoted = body.translate(_AS_QUOTED_PRINTABLE)
    if b"\r" in quoted:
        return []
    decoded = a2b_qp(quoted)
    if len(decoded) != len(body) - 2 * body.count(b"%"):
        return []
    return [
        (name, value.replace("\x1f", "=") if "\x1f" in value else value)
        for field in decoded.decode("utf-8", "replace").split("\x1e")
        if field
        for name, _, value in (field.partition("\x1f"),)
    ]


def _unquoted(text: str) -> str:
    return unquote(text, errors="replace") if "%" in text else text


def _read_multipart(body: bytes, content_type: str) -> list[tuple[str, str]]:
    boundary = parse_options_header(content_type.encode("latin-1", "replace"))[1].get(b"boundary")
    if not boundary:
        raise ValueError(_NOT_AS_SAID)
    edge = b"\r\n--" + boundary
    if body.count(edge) > _MOST_FIELDS:
        raise ValueError(_TOO_MANY)
    if re.search(re.escape(edge) + _PADDED, body):  # read byte by byte, a second for each MB
        raise ValueError(_NOT_AS_SAID)
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except ValueError:
        raise ValueError(_NOT_AS_SAID) from None
    return parts.fields


class _Parts:
    """Hears what stands in a form in parts, and keeps its fields.

    What is uploaded is stepped over where it lies: the library's own collector would write it to a file.
    """

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self._headers: dict[bytes, bytes] = {}
        self._header = self._told = b""
        self._name: bytes | None = None
        self._value: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
        }

    def _part_begin(self) -> None:
        self._headers, self._value = {}, []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._told += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._told.strip(b" \t")
        self._header = self._told = b""

    def _headers_finished(self) -> None:
        about = parse_options_header(self._headers.get(b"content-disposition"))[1]
        if b"name" not in about:
            raise ValueError("a part has no name")
        self._name = None if b"filename" in about else about[b"name"]

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._value.append(data[start:end])

    def _part_end(self) -> None:
        if self._name is None:
            return
        value = b"".join(self._value)
        coding = self._headers.get(b"content-transfer-encoding", b"").lower()
        if decode := _CODINGS.get(coding):
            value = decode(value)
        self.fields.append(
            (self._name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
        )
