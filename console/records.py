"""People to be found by a job, read from a file: a CSV with a header, a JSON array, or JSON Lines.

Only columns that AudienceLab matches by leave, or those that are named: a file of a CRM's has others, which are
nobody's business.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

from console.commands import BadUsage

Record = Mapping[str, str]


def read_records(name: str, chosen: Sequence[str]) -> tuple[list[str], list[Record]]:
    """Return the columns in UPPER_CASE that leave, and the records that have any of them, of the file *name*.

    Raises `BadUsage` for a file that cannot be read, for columns nobody knows, and where nobody is left.
    """
    try:
        text = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode(
            "utf-8-sig"
        )
    except FileNotFoundError:
        raise BadUsage(f"There is no file {name}.") from None
    except OSError as error:
        raise BadUsage(f"{name} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise BadUsage(f"{name} is not UTF-8.") from None
    rows = _json(text) if text.lstrip()[:1] in ("{", "[") else _csv(text)
    columns = _columns(list(dict.fromkeys(each for row in rows for each in row)), chosen)
    records: list[Record] = [
        record for row in rows if (record := {n: row[n].strip() for n in columns if _says(row, n)})
    ]
    if not records:
        raise BadUsage("The file holds nobody who could be found by these columns.")
    return columns, records


def _says(row: Record, column: str) -> bool:
    return bool(row.get(column, "").strip())


def _columns(there: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Return the columns to send; raises `BadUsage` for those that are not there, or that nobody knows."""
    from workers.clients.audiencelab.enrichment import COLUMNS

    if chosen:
        wanted = list(dict.fromkeys(each.strip().upper() for each in chosen))
        if missing := [each for each in wanted if each not in there]:
            raise BadUsage(f"The file has no column {', '.join(missing)}.")
        return wanted
    if unknown := [each for each in there if each not in COLUMNS]:
        raise BadUsage(
            f"AudienceLab is not known to match by {', '.join(unknown)[:300]}:"
            f" say with --column what leaves. It matches by {', '.join(COLUMNS)}."
        )
    return list(there)


def _csv(text: str) -> list[Record]:
    reader = csv.reader(StringIO(text), strict=True)
    try:
        header = [each.strip().upper() for each in next(reader, [])]
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise BadUsage(f"Line {reader.line_num} of the file is no CSV ({error}).") from None
    if wrong := next((n for n, row in enumerate(rows, 2) if len(row) != len(header)), None):
        raise BadUsage(f"Row {wrong} of the file has other columns than its header.")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _json(text: str) -> list[Record]:
    import orjson

    try:
        told = orjson.loads(text) if text.lstrip()[0] == "[" else _lines(text)
    except orjson.JSONDecodeError:
        raise BadUsage("The file is neither a JSON array nor JSON Lines.") from None
    return [_record(number, each) for number, each in enumerate(told, 1)]


def _lines(text: str) -> Iterable[object]:
    import orjson

    return [orjson.loads(line) for line in text.split("\n") if line.strip()]


def _record(number: int, told: object) -> Record:
    """Return a record of texts, a number as its digits; raises `BadUsage` for what is none."""
    if not isinstance(told, dict):
        raise BadUsage(f"Record {number} of the file is no object.")
    row = {name.upper(): value for name, value in told.items() if value is not None}
    if any(isinstance(value, bool | list | dict) for value in row.values()):
        raise BadUsage(f"Record {number} of the file holds more than texts.")
    return {name: str(value) for name, value in row.items()}
