"""AudienceLab's one call that the flow needs: `POST /enrich`, which finds a person by one fact.

Requests are made and answers read by pure functions; `AudienceLab` only carries them. What may go
wrong: keys it does not know are refused with 400, "nobody found" may come as a 200 with a status in
words, and the same column is spelt lower-case in the vendor's pages and UPPER_CASE in live answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from workers.clients.http import VendorHttp
from workers.clients.messages import Answer, Request
from workers.clients.refusals import failure

VENDOR = "AudienceLab"
ENRICH_PATH = "/enrich"

_NOBODY = frozenset({"not_found", "no_data", "no data"})


def headers(key: str) -> dict[str, str]:
    """Return the headers that every call to AudienceLab carries.

    `X-Api-Key` is what the vendor's pages and live clients use, the bearer what its older reference
    says; sending both is known to work.
    """
    return {"X-Api-Key": key, "Authorization": f"Bearer {key}"}


def enrich_request(
    facts: Mapping[str, str],
    *,
    is_or_match: bool = True,
    request_id: str | None = None,
) -> Request:
    """Return the request for people whom *facts* fit: any of them, or all of them.

    Nothing optional is sent unasked: AudienceLab refuses keys it does not know.
    """
    form: dict[str, object] = {"filter": dict(facts), "is_or_match": is_or_match}
    if request_id is not None:
        form["request_id"] = request_id
    return Request("POST", ENRICH_PATH, orjson.dumps(form))


def read_enrich(answer: Answer) -> list[dict[str, object]]:
    """Return the people found, columns in UPPER_CASE, values as they came; nobody: empty.

    Raises the `CallFailed` that *answer* means.
    """
    if answer.is_success:
        rows = _rows({name.lower(): value for name, value in answer.members().items()})
        if rows is not None:
            return [_upper_case(row) for row in rows]
    raise failure(answer, VENDOR, ENRICH_PATH, path_setting="AUDIENCELAB_BASE_URL")


def _rows(members: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return the rows of an answer's object, or None when it is not an enrichment at all."""
    if str(members.get("status", "")).lower() in _NOBODY:
        return []
    if members.get("error"):
        return None
    result = members.get("result")
    if result == [] or (not result and members.get("found") == 0):
        return []
    found = result if isinstance(result, list) else [result]
    return [row for row in found if isinstance(row, dict)] or None


def _upper_case(row: Mapping[str, object]) -> dict[str, object]:
    """Return *row* with UPPER_CASE names; of two spellings the first that says something."""
    columns: dict[str, object] = {}
    for name, value in row.items():
        if not columns.get(name.upper()):
            columns[name.upper()] = value
    return columns


class AudienceLab:
    """The calls, over one `VendorHttp`. Every failure is a `CallFailed`.

    *hash_filter* is the name under which a hashed address is asked for; it is not documented.
    """

    def __init__(self, http: VendorHttp, hash_filter: str = "sha256_personal_email") -> None:
        self._http = http
        self._hash_filter = hash_filter

    async def enrich(
        self,
        email: str | None = None,
        hem_sha256: str | None = None,
        phone: str | None = None,
    ) -> list[dict[str, object]]:
        """Return the people behind one fact; exactly one must be given, else `ValueError`."""
        facts = {"email": email, self._hash_filter: hem_sha256, "phone": phone}
        given = {name: fact for name, fact in facts.items() if fact}
        if len(given) != 1:
            raise ValueError(f"give exactly one of email, hem_sha256 and phone, not {len(given)}")
        return read_enrich(await self._http.send(enrich_request(given)))
