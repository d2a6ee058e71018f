"""Readable: a payload as text for a page, whatever it is, and no more of it than anybody reads.

Of JSON each text is veiled for itself, and what the names of its fields say that somebody is reached by is masked as a
whole: below such a name, too, and in JSON that lies in a text, as Amazon's envelopes hold it. What is not read as JSON,
a form or the beginning of a long payload, is looked through for what looks like such a field. A sender may write
anything: nothing here takes longer than in proportion to what is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import unquote_plus

import orjson

from console.web import veil
from console.web.veil import GAP, Veil, clear, mask_field
from pipeline.addresses import is_address
from pipeline.dead_letters import payload_view

#: of a payload; the whole of it is what `relay dead show --json` prints
LONGEST = 100_000
#: how deep JSON is looked for inside texts
_DEEPEST = 3
# the name of a text in JSON, up to where the text begins; of one inside a text each quote has backslashes, of which a
# sender may write any number
_NAMED = re.compile(
    r"""(?<!\\)(?P<quote>\\*")(?P<name>[^"\\]{1,80})(?P=quote)\s{0,99}:\s{0,99}(?P=quote)"""
)
_UP_TO_QUOTE = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)
# a field of a form
_OF_FORM = re.compile(r"""(?<![^&\s])(?P<name>[^=&\s"]{1,80})=(?P<text>[^&\s]+)""")
# Unix time of this century's first decades, in s, ms, us or ns: no telephone number is taken for one
_TIME = re.compile(r"1\d{9}(?:\.\d{1,9}|\d{3}|\d{6}|\d{9})?")
# a whole number under such a name is none either
_NO_NUMBER = re.compile(
    r"(?:^|_)(?:ids?|time|timestamp|date|at|ts|epoch|count|size|ms)(?:$|_)", re.IGNORECASE
)


def readable(payload: bytes, veiled: Veil) -> str:
    """Return *payload* as indented JSON, else as text, *veiled*, or in `clear`; cut."""
    if len(payload) > LONGEST:  # nobody reads it all, and indenting megabytes takes long
        return _text(payload[:LONGEST].decode(errors="replace"), veiled)
    view = payload_view(payload)
    if view["encoding"] == "json":
        return _json(view["data"], veiled, orjson.OPT_INDENT_2)
    about, _, body = payload.partition(b"\n")  # a delivery is a line about it, and its body
    told, inner = payload_view(about), payload_view(body)
    if told["encoding"] == "json" and inner["encoding"] == "json":
        line = _json(told["data"], veiled)
        return f"{line}\n{_json(inner['data'], veiled, orjson.OPT_INDENT_2)}"
    return _text(payload.decode(errors="replace"), veiled)


def _json(value: object, veiled: Veil, option: int = 0) -> str:
    shown = value if veiled is clear else _masked(value, veiled)
    return orjson.dumps(shown, option=option).decode()


def _masked(value: object, veiled: Veil, field: str = "", deep: int = 0) -> object:
    """Return a JSON *value* masked; *field* is the name that it stands under, or below."""
    if isinstance(value, dict):
        reaches = _reaches(field)
        return {
            veiled(name): _masked(inner, veiled, field if reaches else name, deep)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_masked(inner, veiled, field, deep) for inner in value]
    if isinstance(value, str):
        return _masked_text(value, veiled, field, deep)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # mostly none of somebody's: then it stays a number
        shown = _masked_number(value, veiled, field)
        return value if shown == str(value) else shown
    return value


def _masked_text(text: str, veiled: Veil, field: str, deep: int) -> str:
    if text[:1] in ("{", "[") and deep < _DEEPEST:
        try:
            inner = orjson.loads(text)
            return orjson.dumps(_masked(inner, veiled, field, deep + 1)).decode()
        except (ValueError, TypeError):  # no JSON, or nested deeper than orjson writes
            return _text(text, veiled)
    shown = _masked_as_field(field, text)
    return shown if _TIME.fullmatch(shown) else veiled(shown)


def _masked_number(value: float, veiled: Veil, field: str) -> str:
    text = str(value)
    shown = _masked_as_field(field, text)
    if shown != text or isinstance(value, float) or _TIME.fullmatch(text):
        return shown
    return text if _NO_NUMBER.search(veil.words(field)) else veiled(text)


def _masked_as_field(field: str, text: str) -> str:
    # whatever its field is called, of an e-mail address the veil leaves the first letter and the domain
    if is_address(text):
        return text
    return GAP if _is_ip(text) else mask_field(field, text) if _reaches(field) else text


def _is_ip(text: str) -> bool:
    if not 6 < len(text) < 64 or not (":" in text or text.count(".") == 3):
        return False
    try:
        ip_address(text.strip())
    except ValueError:
        return False
    return True


def _reaches(field: str) -> bool:
    # no sender has names that are longer, and what is kept is small
    return _reaches_known(field) if len(field) <= 100 else veil.tells_how_to_reach(field)


@lru_cache(maxsize=4096)  # the same few names come again and again
def _reaches_known(field: str) -> bool:
    return veil.tells_how_to_reach(field)


def _text(text: str, veiled: Veil) -> str:
    if veiled is clear:
        return text
    begin = veil.beginning(text)  # no veil shows more
    return veiled(_OF_FORM.sub(_of_form, "".join(_of_json(begin))))


def _of_json(text: str) -> Iterator[str]:
    """Yield the pieces of what may be JSON, masked by the names in it."""
    at = 0
    for found in _NAMED.finditer(text):
        if found.start() < at or not _reaches(found["name"]):
            continue
        begin, end = found.end(), _end(text, found.end(), found["quote"])
        yield text[at:begin]
        yield _masked_as_field(found["name"], text[begin:end])
        at = end
    yield text[at:]


def _end(text: str, begin: int, quote: str) -> int:
    """Return where a text of JSON that begins at *begin* is over; one that is cut off is never."""
    if quote != '"':
        end = text.find(quote, begin)
        return len(text) if end < 0 else end
    inner = _UP_TO_QUOTE.match(text, begin)
    return inner.end() if inner else begin


def _of_form(found: re.Match[str]) -> str:
    text = unquote_plus(found["text"])
    shown = _masked_as_field(unquote_plus(found["name"]), text)
    return found[0] if shown == text else f"{found['name']}={shown}"
