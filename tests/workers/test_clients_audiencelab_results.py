"""Result files: packed or plain, whole or not, over a real server that may misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.clients.audiencelab import VENDOR, AudienceLab, EnrichmentJob, headers, results
from workers.clients.errors import CallFailed, NotFound, Rejected, Unavailable
from workers.clients.http import VendorHttp, new_client

pytestmark = pytest.mark.anyio

TABLE = 'first_name,Education\r\nWil,"[{""degree"": [\n""MA""]}]"\r\n\r\nZoë,5" pipe\r\n'
ROWS = [
    {"FIRST_NAME": "Wil", "EDUCATION": '[{"degree": [\n"MA"]}]'},
    {"FIRST_NAME": "Zoë", "EDUCATION": '5" pipe'},
]


async def pieces(raw: bytes, size: int) -> AsyncGenerator[bytes]:
    """Yield *raw* in pieces of *size* bytes."""
    for start in range(0, len(raw), size):
        yield raw[start : start + size]


async def table_of(raw: bytes, size: int = 1000) -> list[dict[str, str]]:
    """Return the rows of the file *raw*."""
    return [row async for row in results.rows(pieces(raw, size))]


PLAIN = TABLE.encode()


def gzipped(plain: bytes) -> bytes:
    """Return *plain* as gzip writes it, without the time of writing: test names must not change."""
    return gzip.compress(plain, mtime=0)


PACKED = gzipped(PLAIN)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        PACKED,
        gzipped(PACKED),
        gzipped(PLAIN[:30]) + gzipped(PLAIN[30:]),
        PACKED + b"\0" * 512,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.removesuffix(b"\r\n"),
    ],
    ids=["plain", "packed", "packed twice", "members", "padded", "marked", "no last break"],
)
async def test_a_file_is_read_in_any_packing_and_any_pieces(raw: bytes, size: int) -> None:
    """Names end wrongly, storages pack twice: the bytes decide; columns are UPPER_CASE."""
    assert await table_of(raw, size) == ROWS


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (PACKED[:-1], "breaks off"),
        (PACKED[:20], "breaks off"),
        (PACKED[:1], "breaks off"),
        (PACKED[:30] + b"\xff\xff\xff" + PACKED[33:], "damaged"),
        (PLAIN[:45], "breaks off"),
        (b"a,b\n1,2\n3", "1 columns instead of 2"),
        (b"a,b\n1,2,3\n", "3 columns instead of 2"),
        (b"", "is empty"),
        (gzipped(b""), "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>\n", "is no CSV"),
        (b'{"error":"gone"}\n', "is no CSV"),
        (b'a,b\n"1"2,3\n', "cannot be read as CSV"),
        (b"a\n" + b"x" * 200_000 + b"\n", "cannot be read as CSV"),
        (b"a\n" + b"x" * 1_100_000, "row without an end"),
    ],
    ids=map(str, range(14)),
)
async def test_a_file_that_is_not_whole_is_an_error(raw: bytes, words: str) -> None:
    """Half a file is never taken for a short one."""
    with pytest.raises(Unavailable, match=words):
        await table_of(raw)


async def test_rows_before_a_break_are_given() -> None:
    """What came whole is not lost with what did not."""
    rows = results.rows(pieces(b'a\n1\n2\n"3', 4))
    assert [await anext(rows), await anext(rows)] == [{"A": "1"}, {"A": "2"}]
    with pytest.raises(Unavailable, match="breaks off"):
        await anext(rows)


async def test_a_swelling_file_is_ungzippedin_steps() -> None:
    """A thousandfold packing is never held whole: the rows come while it is unpacked."""
    packed = gzipped(b"a\n" + b"0123456789\n" * 3_000_000)
    assert len(packed) < 200_000
    longest = 0
    async for step in results._unpacked(pieces(packed, 1_000_000)):
        longest = max(longest, len(step))
    assert longest <= results.STEP


async def test_a_file_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless file ends at a bound."""
    monkeypatch.setattr(results, "MOST_BYTES", 1000)
    with pytest.raises(Unavailable, match="larger than 1000 bytes"):
        await table_of(b"a\n" + b"1\n" * 1000, 100)


@given(
    st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=8),
    st.integers(1, 9),
)
async def test_what_a_csv_writer_writes_is_read(table: list[list[str]], size: int) -> None:
    """Quotes, commas and line breaks in values come back as they were."""
    table = [[value.replace("\0", "") for value in row] for row in table]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["A", "B"], *table])
    raw = text.getvalue().encode("utf-8", "replace")
    expected = [[v.encode("utf-8", "replace").decode() for v in row] for row in table]
    assert [[row["A"], row["B"]] for row in await table_of(raw, size)] == expected


@pytest.mark.parametrize("line", ["\n", '""\n', "x\n", ',"\n'])
async def test_no_line_is_read_over_and_over(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that goes on over many lines costs what it is long, not the square of it."""
    real, characters = csv.reader, list[int]()

    def reader(lines: list[str], *, strict: bool) -> Iterator[list[str]]:
        characters.append(len(lines[0]))
        return real(lines, strict=strict)

    monkeypatch.setattr(csv, "reader", reader)
    raw = ('A,B\n1,"' + line * 20_000).encode()
    with contextlib.suppress(Unavailable):
        await table_of(raw, 1000)
    assert sum(characters) < 4 * len(raw) + 100


async def test_a_row_of_many_lines_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be as long as any row, and one that does not end is given up."""
    text = "\n" * 5000 + '""' + "\n" * 5000
    assert await table_of(f'A,B\n1,"{text}"\n2,x\n'.encode()) == [
        {"A": "1", "B": text.replace('""', '"')},
        {"A": "2", "B": "x"},
    ]
    monkeypatch.setattr(results, "_LONGEST_ROW", 1000)
    with pytest.raises(Unavailable, match="without an end"):
        await table_of(f'A,B\n1,"{text}"\n2,x\n'.encode())


class Storage:
    """A host of files: says *answer* to every request, and keeps what it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/file.csv.gz?signature=secret"
        self.answers: list[bytes] = []
        self.heads: list[str] = []


def whole(body: bytes, *more: str) -> bytes:
    """Return a 200 with *body*."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def storing(*answers: bytes) -> AsyncIterator[Storage]:
    """Run a host that says each of *answers* once, and closes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        storage.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(storage.answers.pop(0))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    storage = Storage(server.sockets[0].getsockname()[1])
    storage.answers = list(answers)
    async with server:
        yield storage


async def rows_of(
    url: str | None, status: str = "COMPLETED", base: str = "http://127.0.0.1:9/api"
) -> list[dict[str, str]]:
    """Return the rows of a job whose file is at *url*, of a vendor at *base*."""
    async with new_client() as client:
        http = VendorHttp(VENDOR, base, headers("sk_secret"), client)
        job = EnrichmentJob("7", "job", status, url)
        return [row async for row in AudienceLab(http).enrichment_rows(job)]


async def test_a_file_is_fetched_without_our_key() -> None:
    """Wherever the file is stored, its host does not learn the vendor's key."""
    async with storing(whole(PACKED, "Content-Encoding: gzip")) as storage:
        assert await rows_of(storage.url) == ROWS
    assert storage.heads[0].startswith("GET /file.csv.gz?signature=secret HTTP/1.1")
    assert "sk_secret" not in storage.heads[0]
    assert "authorization" not in storage.heads[0].lower()


async def test_a_stored_file_may_move() -> None:
    """A redirect within what is allowed is followed."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    async with storing(moved, whole(PLAIN)) as storage:
        assert await rows_of(storage.url) == ROWS
    assert storage.heads[1].startswith("GET /there ")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"),
        *("vault.localhost", "10.0.0.1", "169.254.169.254", "[fd00::1]", "0"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_vendor_outside_names_no_host_inside(scheme: str, host: str) -> None:
    """Whatever an answer says, nothing inside is asked for it, unless the vendor is inside itself."""
    async with storing(whole(PLAIN)) as storage:
        url = storage.url.replace("http://127.0.0.1", f"{scheme}://{host}")
        with pytest.raises(Rejected, match="cannot be used"):
            await rows_of(url, base="https://api.invalid")
    assert storage.heads == []


@pytest.mark.parametrize("to", ["ftp://files.example/x", "http://files.example/x", "file:///etc"])
async def test_no_redirect_leads_out_of_https(to: str) -> None:
    """A file does not lead to plain http elsewhere, nor to another scheme."""
    moved = f"HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
    async with storing(moved) as storage:
        with pytest.raises(Rejected, match="cannot be used"):
            await rows_of(storage.url)


async def test_redirects_in_circles_end() -> None:
    """A host that always sends on is left after a few."""
    moved = b"HTTP/1.1 302 X\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    async with storing(*[moved] * 10) as storage:
        with pytest.raises(Rejected, match="circles"):
            await rows_of(storage.url)
    assert len(storage.heads) == 4


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example/x.csv",
        "ftp://files.example/x.csv",
        "file:///etc/passwd",
        "/x.csv",
        "https://",
        "https://ana:pw@files.example/x.csv",
        "http://[",
    ],
)
async def test_a_file_is_fetched_over_https_only(url: str) -> None:
    """Plain http is for loopback; nothing else is opened, and the address is not repeated."""
    with pytest.raises(Rejected, match="cannot be used") as caught:
        await rows_of(url)
    assert "example" not in caught.value.sentence


def test_a_storage_address_is_one_of_https() -> None:
    """`gs://bucket/object` is the object's address in Google's public storage."""
    http = VendorHttp(VENDOR, "https://api.invalid", {}, new_client())
    url = http._file_url(None, "gs://bucket/path/to/file.csv.gz")
    assert str(url) == "https://storage.googleapis.com/bucket/path/to/file.csv.gz"
    odd = http._file_url(None, "gs://bucket/a b?c#d%.csv")
    assert str(odd) == "https://storage.googleapis.com/bucket/a%20b%3Fc%23d%25.csv"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, Rejected), (404, NotFound), (410, NotFound), (429, Unavailable), (503, Unavailable)],
)
async def test_a_file_that_is_not_given_says_why(status: int, kind: type[CallFailed]) -> None:
    """Expired, gone or away are told apart; the signature in the address is not told."""
    raw = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()
    async with storing(raw) as storage:
        with pytest.raises(kind) as caught:
            await rows_of(storage.url)
    assert type(caught.value) is kind
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    "raw",
    [
        whole(PLAIN)[:-4],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na,b\r\n",
        b"",
        whole(PLAIN, "Content-Encoding: br"),
    ],
    ids=["short", "half a chunk", "nothing", "unknown packing"],
)
async def test_a_transfer_that_breaks_off_is_an_error(raw: bytes) -> None:
    """A connection that ends too early does not end the table, also when it is asked once more."""
    async with storing(raw, raw) as storage:
        with pytest.raises(Unavailable, match="file"):
            await rows_of(storage.url)


async def test_only_a_completed_job_has_rows() -> None:
    """Nobody found is no rows; not over, failed, or without a file are errors of their own."""
    assert await rows_of(None, "NO_DATA") == []
    with pytest.raises(Unavailable, match="not over"):
        await rows_of("https://files.example/x", "PROCESSING")
    with pytest.raises(Rejected, match="has failed"):
        await rows_of("https://files.example/x", "FAILED")
    with pytest.raises(Unavailable, match="names no result file"):
        await rows_of(None)


async def test_stopping_early_gives_the_connection_back() -> None:
    """Who reads one row only leaves nothing open."""
    async with storing(whole(PLAIN)) as storage, new_client(most_connections=1) as client:
        http = VendorHttp(VENDOR, storage.url, {}, client)
        rows = AudienceLab(http).enrichment_rows(EnrichmentJob("7", None, "COMPLETED", storage.url))
        assert await anext(rows) == ROWS[0]
        await rows.aclose()
        storage.answers.append(whole(PLAIN))
        again = AudienceLab(http).enrichment_rows(
            EnrichmentJob("7", None, "COMPLETED", storage.url)
        )
        assert [row async for row in again] == ROWS
