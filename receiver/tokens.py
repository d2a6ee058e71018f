"""Which tokens open which source, compared in constant time.

Every valid token of a source is compared on every request, also after one has matched, so the time
that an answer takes says nothing about how much of a guess was right, nor which token it was near.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from hmac import compare_digest
from urllib.parse import parse_qsl

# More parameters than any sender's probe has; `parse_qsl` refuses above it.
_MAX_PARAMETERS = 100


class Tokens:
    """The valid tokens: pairs of a source's name (None: every source) and the token."""

    def __init__(self, valid: Iterable[tuple[str | None, str]], sources: Iterable[str]) -> None:
        pairs = list(valid)
        self._valid = {
            source: tuple(_bytes(token) for only, token in pairs if only in (None, source))
            for source in sources
        }

    def admit(self, source: str, presented: Sequence[bytes]) -> bool:
        """Say whether one of the *presented* tokens is valid for *source*."""
        admitted = False
        for candidate in presented:
            for valid in self._valid[source]:
                admitted |= compare_digest(candidate, valid)
        return admitted


def presented(
    path_token: str, headers: Mapping[bytes, bytes], parameters: Mapping[str, str]
) -> list[bytes]:
    """Return the tokens that a request shows: the one in its path, else all in headers and query.

    A sender may use `Authorization` for somebody else's sake, so any one of the places will do.
    """
    if path_token:
        return [_bytes(path_token)]
    found = [
        *_from_authorization(headers.get(b"authorization", b"")),
        headers.get(b"x-webhook-token", b""),
        headers.get(b"x-audiencelab-secret", b""),
        _bytes(parameters.get("token", "")),
    ]
    return [token for token in found if token]


def parameters(query: bytes) -> dict[str, str]:
    """Return the query's parameters, the first of each name; none when it is not readable."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        return {}
    return dict(reversed(pairs))


def _from_authorization(value: bytes) -> list[bytes]:
    # whatever the word before it is: some senders (Iterable) send what was typed in, alone or after one of theirs
    scheme, *rest = value.split(maxsplit=1) or [b""]
    if scheme.lower() != b"basic" or not rest:
        return [rest[0].strip() if rest else scheme]
    try:
        _, _, password = b64decode(rest[0]).partition(b":")
    except (binascii.Error, ValueError):
        return []
    return [password]


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
