"""The result file of an enrichment job: its bytes in, its rows out, one at a time.

A file may have millions of rows, so neither the file nor what it unpacks to is ever held whole. What
may go wrong: it is packed or not, whatever its name says; it breaks off in the middle, which a
packed file shows by its missing end and a plain one by a row with too few columns; a proxy sends a
page of its own.
"""

from __future__ import annotations

import asyncio
import codecs
import csv
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

from workers.clients.audiencelab.answers import VENDOR
from workers.clients.errors import Unavailable

#: Bytes that are unpacked at once: a packed file can swell a thousandfold.
STEP = 64 * 1024

#: Bytes of the unpacked file. Five million people of 2 KB are 10 GB.
MOST_BYTES = 64 * 1024**3

# Characters of one row; a row has about 2000.
_LONGEST_ROW = 1024 * 1024

_GZIP = b"\x1f\x8b"


async def rows(parts: AsyncGenerator[bytes]) -> AsyncGenerator[dict[str, str]]:
    """Yield the rows of a CSV file, packed with gzip or plain, columns in UPPER_CASE.

    *parts* are its bytes in any pieces; they are closed at the end. Raises `Unavailable` for a file
    that is damaged, breaks off, or is no table.
    """
    table = _Table()
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    # packed for storage, and perhaps once more for the way
    packed = _unpacked(parts)
    async with aclosing(parts), aclosing(packed), aclosing(_unpacked(packed)) as unpacked:
        async for part in unpacked:
            for row in table.read(decoder.decode(part)):
                yield row
            await asyncio.sleep(0)  # one piece of the wire can be a thousand of these
    for row in table.end(decoder.decode(b"", final=True)):
        yield row


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Yield *parts* unpacked if they are gzip, in steps, else as they are."""
    head, size, is_known = b"", 0, False
    gunzip: _Gunzip | None = None
    async for part in parts:
        piece = part
        if not is_known:
            head += part
            if len(head) < len(_GZIP):
                continue
            piece, is_known = head, True
            gunzip = _Gunzip() if head.startswith(_GZIP) else None
        for step in gunzip.steps(piece) if gunzip else (piece,):
            size += len(step)
            if size > MOST_BYTES:
                raise Unavailable(f"{VENDOR}'s result file is larger than {MOST_BYTES} bytes")
            yield step
    if gunzip is not None:
        gunzip.end()
    elif not is_known and head:
        if _GZIP.startswith(head):
            raise Unavailable(f"{VENDOR}'s result file breaks off in the middle")
        yield head


class _Gunzip:
    """Unpacks gzip of one or several members in bounded steps."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def steps(self, part: bytes) -> Iterator[bytes]:
        """Yield what *part* adds."""
        while part:
            if self._member.eof:
                if not part.strip(b"\0"):  # padding of storage blocks
                    return
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                step = self._member.decompress(part, STEP)
            except zlib.error as error:
                raise Unavailable(f"{VENDOR}'s result file is damaged ({error})") from None
            part = self._member.unconsumed_tail or self._member.unused_data
            if step:
                yield step

    def end(self) -> None:
        """Raise `Unavailable` when the file broke off."""
        if not self._member.eof:
            raise Unavailable(f"{VENDOR}'s result file breaks off in the middle")


class _Table:
    """Reads CSV (RFC 4180) from pieces of text: quoted fields may hold line breaks.

    Each line is looked at once when it comes, and once more when its row is whole: what a row costs
    grows with its length, whatever somebody has put into it.
    """

    def __init__(self) -> None:
        self._rest = ""
        #: lines of a row that ends inside quotes so far, and their characters
        self._open: list[str] = []
        self._size = 0
        self._columns: list[str] | None = None
        self._lines = 0

    def read(self, text: str) -> Iterator[dict[str, str]]:
        """Yield the rows that are whole now."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            yield from self._rows_of(f"{line}\n")
        if self._size + len(self._rest) > _LONGEST_ROW:
            raise self._broken("has a row without an end")

    def end(self, text: str) -> Iterator[dict[str, str]]:
        """Yield the last row, which may lack its line break; raise `Unavailable` for half a one."""
        yield from self.read(text)
        if self._rest:
            yield from self._rows_of(self._rest)
        if self._open:
            raise self._broken("breaks off in the middle")
        if self._columns is None:
            raise self._broken("is empty")

    def _rows_of(self, line: str) -> Iterator[dict[str, str]]:
        """Yield the row that ends with *line*, if one does."""
        # a line inside quotes is read as if they were opened before it
        fields = self._fields(f'"{line}' if self._open else line)
        if fields is None:
            self._open.append(line)
            self._size += len(line)
            if self._size > _LONGEST_ROW:
                raise self._broken("has a row without an end")
            return
        if self._open:
            fields = self._fields("".join([*self._open, line])) or []
            self._open, self._size = [], 0
        self._lines += 1
        row = self._row(fields)
        if row is not None:
            yield row

    def _fields(self, record: str) -> list[str] | None:
        """Return the fields of *record*; None when it ends inside quotes."""
        try:
            return next(csv.reader([record], strict=True), [])
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                return None
            raise self._broken(f"cannot be read as CSV ({error})") from None

    def _row(self, fields: list[str]) -> dict[str, str] | None:
        """Return a row by its columns; None for the header and for an empty line."""
        if self._columns is None:
            if fields and fields[0].lstrip()[:1] in ("<", "{", "["):
                raise self._broken("is no CSV")
            self._columns = [name.strip().upper() for name in fields] or None
            return None
        if not fields:
            return None
        if len(fields) != len(self._columns):
            many = f"{len(fields)} columns instead of {len(self._columns)}"
            raise self._broken(f"has a row of {many}: it may have broken off")
        row: dict[str, str] = {}
        for name, value in zip(self._columns, fields, strict=True):
            if not row.get(name):
                row[name] = value
        return row

    def _broken(self, how: str) -> Unavailable:
        return Unavailable(f"{VENDOR}'s result file {how} (row {self._lines})")
