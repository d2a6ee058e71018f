"""The spill: deliveries on this machine's disk, for as long as Redis cannot take them.

A file of the folder `spill` in RELAY_HOME belongs to the process that holds its lock (flock): the kernel lets go of it
even after SIGKILL, and then any receiver of this home adopts the file. Names begin with the time in microseconds, so
that sorted by name they are in order; the random part behind it is what a file is known by. A new one costs several
fsyncs, so there is a spare one, empty, before it is needed. A file is only appended to until somebody drains it; from
then on appends go into another one, and nothing changes in it any more. Drained it is unlinked.

    records    what a file is made of: how a record is written, and found again behind a torn or damaged one
    folder     names, order and sizes of the files
    segment    one file whose lock this process holds
    new_files  how a file is begun
    own        the spill of one process: what it keeps, adopts, and gives back in order
    drained    what has been given back, and is removed
    pages      a file that is read as it is needed
    looks      what lies in a folder, whoever owns it

Nothing here knows asyncio: every method may block for as long as the disk does, and may be called from any thread.
"""

from pipeline.spill.folder import ASIDE, files_in, mark_of, name_of, used_bytes
from pipeline.spill.looks import Look, Survey, survey
from pipeline.spill.own import Spill, SpillError
from pipeline.spill.records import frame, records_in
from pipeline.spill.segment import Piece, Segment

__all__ = [
    "ASIDE",
    "Look",
    "Piece",
    "Segment",
    "Spill",
    "SpillError",
    "Survey",
    "files_in",
    "frame",
    "mark_of",
    "name_of",
    "records_in",
    "survey",
    "used_bytes",
]
