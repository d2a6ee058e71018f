"""The spill on disk: what was acknowledged is read again, whatever became of the end of the file."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.home import Home
from pipeline.spill import (
    ASIDE,
    Spill,
    SpillError,
    files_in,
    frame,
    looks,
    mark_of,
    name_of,
    records_in,
    survey,
    used_bytes,
)
from pipeline.spill import segment as segment_module
from pipeline.spill.pages import PAGE_BYTES, Pages
from pipeline.spill.records import HEAD_BYTES

MARK = b"01234567"
MANY = 1 << 20
PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)


def found_in(data: bytes) -> tuple[list[bytes], bool]:
    """Return the payloads in *data*, and whether it is damaged: the same in memory and read as it is needed."""
    records = records_in(data, MARK)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        assert records_in(Pages(file.fileno(), page_bytes=24), MARK) == records
    pairs = zip(records.starts, records.ends, strict=True)
    return [data[start:end] for start, end in pairs], records.is_damaged


def taken_out(spill: Spill) -> list[bytes]:
    """Drain *spill* as a receiver does."""
    payloads: list[bytes] = []
    while segment := spill.next():
        for piece in segment.pieces(0, most=3, most_bytes=100, count=MANY):
            payloads += piece.payloads
            segment.advance(piece.end)
        assert segment.left == 0
        spill.finish(segment)
    return payloads


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give a home that does not exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def spill(home: Home) -> Iterator[Spill]:
    """Give a spill with room."""
    spill = Spill(home, MANY)
    yield spill
    spill.close()


# the format ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(PAYLOADS, st.binary(max_size=40), st.data())
def test_any_cut_loses_only_what_was_cut(
    payloads: list[bytes], last: bytes, data: st.DataObject
) -> None:
    """Wherever the last append is cut off, all before it are there, and nothing is called damaged."""
    whole = b"".join(frame(MARK, payload) for payload in payloads)
    torn = frame(MARK, last)
    cut = data.draw(st.integers(0, len(torn) - 1))
    assert found_in(whole + torn[:cut]) == (payloads, False)
    assert found_in(whole + bytes(cut)) == (payloads, False)
    assert found_in(whole + torn) == ([*payloads, last], False)


@settings(deadline=None)
@given(PAYLOADS, st.binary(max_size=40), PAYLOADS, st.data())
def test_damage_costs_only_the_record_it_is_in(
    before: list[bytes], hit: bytes, after: list[bytes], data: st.DataObject
) -> None:
    """One wrong byte anywhere costs one record: those before and behind it are read, and the damage is told."""
    record = bytearray(frame(MARK, hit))
    place = data.draw(st.integers(0, len(record) - 1))
    record[place] ^= data.draw(st.integers(1, 255))
    parts = [b"".join(frame(MARK, payload) for payload in some) for some in (before, after)]
    assert found_in(parts[0] + bytes(record) + parts[1]) == (before + after, True)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_their_end(data: bytes) -> None:
    """Whatever lies in a file, reading it ends, and finds nothing that was not written."""
    assert found_in(data)[0] == []


def test_a_body_that_looks_like_a_record_is_none(spill: Spill, home: Home) -> None:
    """A sender may copy the format, but not the mark of a file: nothing of a body is taken for a record."""
    forged = frame(b"forged!!", b"never sent")
    spill.append([forged, b"second"])
    (path,) = files_in(home.spill_dir)
    data = bytearray(path.read_bytes())
    data[9] ^= 1  # the first length: its record has to be passed over by looking for the next
    records = records_in(bytes(data), mark_of(path))
    pairs = zip(records.starts, records.ends, strict=True)
    assert [bytes(data[start:end]) for start, end in pairs] == [b"second"]


@pytest.mark.parametrize(("size", "blocks", "whole"), [(9000, 1, 0), (9000, 3, 1), (4050, 1, 1)])
def test_an_append_whose_last_blocks_were_lost_is_torn(size: int, blocks: int, whole: int) -> None:
    """A power cut may keep a file's new length and not its last blocks: they are zeros, and no damage."""
    payload = b"x" * size
    data = frame(MARK, b"first") + frame(MARK, payload) * 2
    kept = data[: blocks * 4096]
    lost = bytes(len(data) - len(kept))
    assert found_in(kept + lost) == ([b"first", *[payload] * whole], False)
    assert found_in(frame(MARK, b"first") + MARK + lost) == ([b"first"], False)


# one process --------------------------------------------------------------------------------------------


def test_what_is_appended_is_taken_out_in_order(spill: Spill, home: Home) -> None:
    """Many appends, over several files, come out in order, once; nothing stays on the disk."""
    small = Spill(home, MANY, segment_bytes=100)
    payloads = [b"%d" % n for n in range(50)]
    for at in range(0, 50, 5):
        small.append(payloads[at : at + 5])
    assert len(files_in(home.spill_dir)) > 3
    assert small.left == 50
    assert taken_out(small) == payloads
    assert (small.left, used_bytes(home.spill_dir)) == (0, 0)
    small.close()


def test_what_comes_while_a_file_is_drained_goes_into_the_next(spill: Spill) -> None:
    """A file that is being drained does not change any more."""
    spill.append([b"1", b"2"])
    segment = spill.next()
    assert segment is not None
    spill.append([b"3"])
    spill.finish(segment)
    assert taken_out(spill) == [b"3"]


def test_a_spare_file_waits_for_its_use(spill: Spill, home: Home) -> None:
    """It is there before, empty, and counts as begun with its first append; a stop removes it."""
    spill.prepare()
    spill.prepare()
    (spare,) = files_in(home.spill_dir)
    assert (spill.left, survey(home).deliveries, survey(home).oldest_ms) == (0, 0, None)
    spill.append([b"1"])
    (used,) = files_in(home.spill_dir)
    assert used > spare
    assert name_of(used) == name_of(spare)
    spill.prepare()
    assert [each == used for each in files_in(home.spill_dir)] == [True, False]
    assert taken_out(spill) == [b"1"]
    (spare,) = files_in(home.spill_dir)
    spare.unlink()  # by somebody else's hand: then the append makes its own
    spill.append([b"2"])
    assert taken_out(spill) == [b"2"]
    spill.prepare()
    spill.close()
    assert files_in(home.spill_dir) == []


def test_a_clock_set_back_turns_no_order_over(
    spill: Spill, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process begins is sorted behind all that lay there before, also after a restart."""
    spill.append([b"1"])
    spill.close()
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    other = Spill(home, MANY)
    other.append([b"2"])
    other.adopt()
    assert taken_out(other) == [b"1", b"2"]
    other.close()


def test_an_append_does_not_wait_for_a_reader(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are read beside the appends, however long that takes."""
    spill.append([b"1"])
    goes_on, chunks, segments = threading.Event(), segment_module._chunks, []

    def read(handle: int) -> Iterator[bytes]:
        assert goes_on.wait(60)
        return chunks(handle)

    monkeypatch.setattr(segment_module, "_chunks", read)
    reader = threading.Thread(target=lambda: segments.append(spill.next()))
    reader.start()
    writer = threading.Thread(target=lambda: spill.append([b"2"]))
    writer.start()
    writer.join(30)
    is_kept = not writer.is_alive()
    goes_on.set()
    reader.join()
    writer.join()
    assert is_kept
    assert taken_out(spill) == [b"1", b"2"]


def test_adopting_reads_nothing(spill: Spill, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes locks and sizes only; as long as a file is unread the spill does not count as drained."""
    spill.append([b"1"])
    spill.close()
    other = Spill(home, MANY)
    with monkeypatch.context() as patch:
        patch.delattr(segment_module, "_chunks")
        assert other.adopt() == 1
    assert (other.held_bytes > 0, other.is_drained) == (True, False)
    assert taken_out(other) == [b"1"]
    assert other.is_drained
    other.close()


def test_what_is_finished_after_the_end_is_left_alone(spill: Spill) -> None:
    """Its handle may be somebody else's by then."""
    spill.append([b"1"])
    segment = spill.next()
    assert segment is not None
    spill.close()
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == segment.handle
    spill.finish(segment)
    os.fstat(other)
    os.close(other)
    assert segment.path.exists()


def test_what_a_death_left_half_made_is_removed(spill: Spill, home: Home) -> None:
    """Drafts and probes that are empty and old; younger ones may be somebody's."""
    home.make()
    home.spill_dir.mkdir()
    stem = "-0123456789abcdef"
    names = (f".00000000000000001{stem}.log", ".probe-0123456789abcdef")
    young = home.spill_dir / f".00000000000000002{stem}.log"
    for path in (*(home.spill_dir / name for name in names), young):
        path.touch()
        os.utime(path, None if path == young else (1, 1))
    spill.adopt()
    assert list(home.spill_dir.iterdir()) == [young]


def test_what_can_only_be_read_is_drained_once() -> None:
    """A disk that takes nothing any more gives what lies there, and not again while the file cannot be removed."""
    with tempfile.TemporaryDirectory() as folder:  # others may not look into pytest's
        home = Home(Path(folder) / "home")
        spill = Spill(home, MANY)
        spill.append([b"1"])
        spill.close()
        other = Spill(home, MANY)
        with only_readable(home):
            with pytest.raises(SpillError):
                other.check()
            assert other.adopt() == 1
            assert taken_out(other) == [b"1"]
            assert other.adopt() == 0
            assert len(files_in(home.spill_dir)) == 1
        assert other.adopt() == 0
        assert files_in(home.spill_dir) == []
        other.close()


@contextmanager
def only_readable(home: Home) -> Iterator[None]:
    """Take the right to write from the folder and its files, and, for a while, root's rights from root."""
    for path in home.spill_dir.iterdir():
        path.chmod(0o444)
    for path in (home.spill_dir, home.path, home.path.parent):
        path.chmod(0o555)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
        for path in (home.path.parent, home.path, home.spill_dir):
            path.chmod(0o700)


def test_only_the_owner_can_read_it(spill: Spill, home: Home) -> None:
    """People's data lie there: folder 0700, files 0600."""
    spill.append([b"1"])
    (path,) = files_in(home.spill_dir)
    assert [each.stat().st_mode & 0o777 for each in (home.path, path.parent, path)] == [
        *(0o700, 0o700, 0o600)
    ]


def test_pieces_are_bounded_and_join(spill: Spill) -> None:
    """No piece has more records or bytes than allowed but for a single large one, and no byte lies between two."""
    spill.append([b"a", b"b", b"c", b"d" * 90, b"e" * 500, b"f"])
    segment = spill.next()
    assert segment is not None
    pieces = segment.pieces(0, most=2, most_bytes=100, count=9)
    assert [len(piece.payloads) for piece in pieces] == [2, 2, 1, 1]
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert segment.pieces(pieces[1].end, most=2, most_bytes=100, count=1) == [pieces[2]]
    assert segment.pieces(pieces[-1].end, most=2, most_bytes=100, count=9) == []


def test_the_limit_is_for_all_files_of_the_folder(spill: Spill, home: Home) -> None:
    """Whoever wrote them, and also those kept aside: beyond the limit nothing is taken, and room comes back."""
    spill.append([b"x" * 400])
    (home.spill_dir / f"old{ASIDE}").write_bytes(bytes(400))
    other = Spill(home, 1000)
    with pytest.raises(SpillError, match="full"):
        other.append([b"y" * 200])
    other.append([b"y" * 150])
    with pytest.raises(SpillError, match="full"):
        other.check()
    assert taken_out(spill) == [b"x" * 400]
    other.check()
    other.append([b"z" * 200])
    assert taken_out(other) == [b"y" * 150, b"z" * 200]
    other.close()


def test_zero_takes_nothing_and_gives_back_what_lies_there(spill: Spill, home: Home) -> None:
    """Who switches the spill off still gets what was in it."""
    spill.append([b"1"])
    spill.close()
    off = Spill(home, 0)
    with pytest.raises(SpillError, match="full"):
        off.append([b"2"])
    assert off.adopt() == 1
    assert taken_out(off) == [b"1"]
    off.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size*, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_refusal_and_leaves_nothing_behind(spill: Spill, home: Home) -> None:
    """An append that the disk takes in part is cut off again; what was kept before and comes after is whole."""
    spill.append([b"first"])
    with largest_file(200), pytest.raises(SpillError, match="cannot be written"):
        spill.append([b"half", b"x" * 500])
    spill.append([b"after"])
    assert not any(
        records_in(p.read_bytes(), mark_of(p)).is_damaged for p in files_in(home.spill_dir)
    )
    assert taken_out(spill) == [b"first", b"after"]
    with largest_file(10), pytest.raises(SpillError):
        spill.append([b"x" * 500])
    assert files_in(home.spill_dir) == []


def test_a_failed_fsync_promises_nothing(
    spill: Spill, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what a second fsync says about the same bytes: the file gets no more, the next append another."""
    spill.append([b"first"])

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.spill.own.sync", fail)
        with pytest.raises(SpillError, match="Input/output"):
            spill.append([b"lost"])
    spill.append([b"second"])
    assert len(files_in(home.spill_dir)) == 2
    assert taken_out(spill) == [b"first", b"second"]


def test_a_folder_that_cannot_be_made_is_told(home: Home) -> None:
    """Where there is no disk to write to, nothing is promised, and the sentence says why."""
    home.path.write_text("a file where the folder should be")
    spill = Spill(home, MANY)
    for work in (spill.check, lambda: spill.append([b"1"])):
        with pytest.raises(SpillError, match="cannot be"):
            work()
    assert spill.adopt() == 0


def test_damage_is_kept_aside(spill: Spill, home: Home) -> None:
    """The good records of a damaged file leave it; the file stays, under a name that nobody adopts."""
    spill.append([b"first", b"second", b"third"])
    (path,) = files_in(home.spill_dir)
    data = path.read_bytes().replace(b"second", b"sec0nd")
    path.write_bytes(data)
    assert taken_out(spill) == [b"first", b"third"]
    assert [each.suffix for each in home.spill_dir.iterdir()] == [ASIDE]
    assert path.with_suffix(ASIDE).read_bytes() == data
    assert survey(home).aside == 1


# several processes ----------------------------------------------------------------------------------------

_KEEP = """
import sys, time
from pathlib import Path
from pipeline.home import Home
from pipeline.spill import Spill
spill = Spill(Home(Path(sys.argv[1])), 1 << 20)
spill.append([b"1", b"2"])
spill.append([b"3"])
print("kept", flush=True)
time.sleep(600)
"""


def test_the_files_of_a_killed_process_are_adopted(spill: Spill, home: Home) -> None:
    """While their owner lives nobody touches them; after kill -9 they come before what was spilled later, once."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEP, str(home.path)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        spill.append([b"4"])
        assert spill.adopt() == 0
        assert survey(home).deliveries == 4
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    other = Spill(home, MANY)
    assert other.adopt() == 1
    assert spill.adopt() == 0
    other.close()
    assert spill.adopt() == 1
    assert taken_out(spill) == [b"1", b"2", b"3", b"4"]


def test_a_torn_end_is_adopted_without_it(spill: Spill, home: Home) -> None:
    """What a death left of its last append was promised to nobody: the rest is taken, and the file goes."""
    spill.append([b"1", b"2"])
    spill.close()
    (path,) = files_in(home.spill_dir)
    os.truncate(path, path.stat().st_size - 1)
    other = Spill(home, MANY)
    assert other.adopt() == 1
    assert taken_out(other) == [b"1"]
    assert list(home.spill_dir.iterdir()) == []
    other.close()


def test_what_is_no_file_of_ours_is_left_alone(spill: Spill, home: Home) -> None:
    """Other files in the folder are neither read nor removed."""
    home.make()
    home.spill_dir.mkdir()
    for name in ("notes.txt", "x.log", "12-zz.log", "12-0123.log", ".12-0123456789abcdef.log"):
        (home.spill_dir / name).write_bytes(b"anything")
    assert spill.adopt() == 0
    assert survey(home).deliveries == 0
    assert len(list(home.spill_dir.iterdir())) == 5


def test_a_survey_counts_what_lies_behind_a_place(spill: Spill, home: Home) -> None:
    """Without any lock it tells how many deliveries there are, how many behind a place, and since when."""
    assert survey(home).deliveries == 0
    assert survey(home).oldest_ms is None
    spill.append([b"1", b"2", b"3"])
    segment = spill.next()
    assert segment is not None
    (first, *_) = segment.pieces(0, most=1, most_bytes=9, count=9)
    told = survey(home)
    assert told.deliveries == 3
    assert told.looks[0].left(first.end) == 2
    assert told.looks[0].left(1 << 40) == 0
    assert told.used_bytes == segment.size
    assert told.oldest_ms is not None
    handle = os.open(segment.path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_a_survey_reads_a_file_again_only_when_it_has_changed(spill: Spill, home: Home) -> None:
    """What was found is kept as long as size and time are the same; an append is seen, a drained file is let go of."""
    spill.append([b"1", b"2"])
    assert survey(home).deliveries == 2
    (path,) = files_in(home.spill_dir)
    about = path.stat()
    path.write_bytes(b"x" * about.st_size)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert survey(home).deliveries == 2  # nobody has read it
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert survey(home).deliveries == 0
    spill.append([b"3"])
    assert survey(home).deliveries == 1
    assert path in looks._known
    path.unlink()
    assert survey(home).deliveries == 0
    assert path not in looks._known


def test_a_survey_holds_no_file_in_memory(home: Home) -> None:
    """However much lies there, it is looked at page by page."""
    spill = Spill(home, 1 << 25)
    spill.append([b"x" * 100_000] * 80)
    tracemalloc.start()
    try:
        told = survey(home)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    spill.close()
    assert told.deliveries == 80
    assert most < 4 * PAGE_BYTES < told.used_bytes


def test_what_its_owner_cuts_off_meanwhile_is_a_torn_end(spill: Spill, home: Home) -> None:
    """A file may become shorter while it is looked at: what lies before is read, and nothing is called damaged."""
    spill.append([b"1"])
    spill.append([b"2" * 200])
    (path,) = files_in(home.spill_dir)
    with path.open("r+b") as file:
        pages = Pages(file.fileno())
        file.truncate(HEAD_BYTES + 1)  # what remains are whole appends
        records = records_in(pages, mark_of(path))
    assert len(records.ends) == 1
    assert not records.is_damaged


def test_only_what_could_not_be_read_is_passed_over(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older file that is adopted in between, and can be read, is drained."""
    older, spill = Spill(home, MANY), Spill(home, MANY)
    older.append([b"older"])
    spill.append([b"younger"])
    with monkeypatch.context() as patch:
        patch.setattr(segment_module.Segment, "load", unreadable)
        with pytest.raises(SpillError):
            spill.next()
    older.close()
    assert spill.adopt() == 1
    spill.pass_over()
    assert taken_out(spill) == [b"older"]
    spill.close()


def unreadable(*_: object) -> None:
    """Fail as a broken disk does."""
    raise OSError(5, "Input/output error")
