"""The legend of every Redis key: name, type, life time, who writes it, who reads it.

All keys share the hash tag `{relay}`, so that they live on one node. The Lua files under `pipeline/lua`
build the same names; a test holds them to this list. The keys of arq's jobs have fixed names without the tag,
which is why two relays must not share a database.

| key                          | type   | lives                | written by             | read by             |
|------------------------------|--------|----------------------|------------------------|---------------------|
| {relay}:books                | hash   | for ever             | every move             | status, tests       |
| {relay}:queue:QUEUE          | stream | until moved          | put, moves             | take                |
| {relay}:cursors              | hash   | until the last slice | move                   | move                |
| {relay}:attempts             | hash   | until moved          | claim, setback, unpack | claim, take         |
| {relay}:bells                | hash   | for ever             | drain, sweep           | put, moves, sweep   |
| {relay}:paused               | hash   | until resumed        | pauses, setback, moves | take, claim, status |
| {relay}:destination:STAGE    | hash   | for ever             | claim, setback, fault, moves | claim, dispatch |
| {relay}:explained:STAGE:BATCH | string | 30 days            | bury                   | fault               |
| {relay}:half:STAGE:BATCH    | string | one day              | fault                  | fault               |
| {relay}:calls:ENDPOINT      | hash   | for ever             | heartbeat              | the console         |
| {relay}:calls:ENDPOINT:WIDTH:SLOT | hash | two hours, or a day   | heartbeat              | the console         |
| {relay}:failed-calls:ENDPOINT | list   | a week               | heartbeat              | the console         |
| {relay}:rate:VENDOR          | hash   | minutes              | claim, turn, poll      | claim, turn, poll   |
| {relay}:pace:VENDOR          | hash   | an hour, until as configured | slow_down, moves | claim, turn, status |
| {relay}:turns               | hash   | for ever             | claim, turn, bulk      | claim               |
| {relay}:width:WORKER         | hash   | seconds              | heartbeat              | status              |
| {relay}:seen                 | hash   | for ever             | move, sweep            | move, sweep         |
| {relay}:seen:SLOT:BUCKET     | set    | SEEN_WINDOW_H * 1.5  | move, sweep            | move                |
| {relay}:dead                 | zset   | until retried, dropped | bury, dead letters   | dead letters        |
| {relay}:dead:ID              | hash   | same                 | same                   | same                |
| {relay}:dead-kinds          | hash   | for ever             | same                   | the console         |
| {relay}:dead-of:KIND       | zset   | same                 | same                   | dead letters        |
| {relay}:dead-checked       | string | 6 hours              | mend                   | mend                |
| {relay}:mending            | string | seconds              | mend                   | mend                |
| {relay}:same-body:DIGEST     | string | one day              | receiver               | receiver            |
| {relay}:visitors             | zset   | VISITOR_KEEP_D       | enrich, scores         | visitors            |
| {relay}:visitor:ID           | hash   | VISITOR_KEEP_D       | enrich, scores         | visitors            |
| {relay}:address:DIGEST       | hash   | VISITOR_KEEP_D       | enrich, subscribe, polled | the same, visitors |
| {relay}:enrichment:DIGEST    | string | 30 days              | enrich                 | enrich              |
| {relay}:bulk                 | zset   | until the jobs are over | bulk                 | bulk, sweep         |
| {relay}:bulk:NAME            | hash   | until the job is over | bulk                   | bulk                |
| {relay}:given-up             | hash   | for ever             | bulk                   | doctor              |
| {relay}:tombstones           | set    | until allowed again  | visitors forget        | moves, dispatch     |
| {relay}:tombstone-key        | string | for ever             | the first merge, forget | enrich, visitors forget |
| {relay}:workers              | zset   | an hour              | heartbeat              | readyz, sweep       |
| {relay}:answer:CALLER        | string | 30 minutes           | scripts told apart     | the same, run twice |
| {relay}:sweeping             | string | a second             | sweep                  | sweep               |
| {relay}:rung                 | stream | the last one         | bell                   | arq's polling         |
| {relay}:arq:queue            | zset   | until run            | bell (arq)             | arq                 |
| {relay}:arq:queue:health-check | string | seconds            | arq                    | arq                 |
| arq:job:ID                   | string | until run, 7 days    | bell (arq)             | arq                 |
| arq:in-progress:ID           | string | job_timeout + 10 s   | arq                    | arq                 |
| {relay}:refused              | hash   | for ever             | receiver               | status              |
| {relay}:arrivals            | stream | the last 1 000   | move, receiver         | the console         |
| {relay}:senders              | hash   | for ever             | move, receiver         | senders             |
| {relay}:set-up:SOURCE        | string | 3 days               | unpack                 | senders             |
| {relay}:recipient:DIGEST     | string | 30 days              | unpack                 | unpack              |
| {relay}:proof:KIND:DIGEST    | string | seconds to 7 days    | unpack                 | unpack              |
| {relay}:import:KIND:ID       | hash   | 90 days              | reconcile, console     | reconcile, console  |
| {relay}:reconciling          | string | minutes              | reconcile              | reconcile           |
| {relay}:audit                | stream | last 10 000          | console                | console             |
| {relay}:history             | stream | a week               | chronicle              | the console         |
| {relay}:retry-run            | hash   | until finished       | dead retry             | dead retry          |
| {relay}:poll                 | hash   | for ever             | poll scores            | poll scores         |
| {relay}:polling              | string | a minute             | poll scores            | poll scores         |
| {relay}:drill:NUMBER:STAGE   | string | 10 minutes           | unpack, seal           | doctor, console     |
| {relay}:spilled:FILE         | string | 30 days              | receiver               | receiver, status    |
| {relay}:dialects             | hash   | for ever             | calls to AudienceLab   | the same, doctor    |
"""

from __future__ import annotations

from pipeline.outcomes import Stage

PREFIX = "{relay}:"

GROUP = "workers"
RELEASED = "released"
"""The consumer that holds what a worker gave back; anyone may take it at once."""

BOOKS = PREFIX + "books"
CURSORS = PREFIX + "cursors"
ATTEMPTS = PREFIX + "attempts"
BELLS = PREFIX + "bells"
PAUSED = PREFIX + "paused"
RUNG = PREFIX + "rung"
SEEN = PREFIX + "seen"
DEAD = PREFIX + "dead"
DEAD_KINDS = PREFIX + "dead-kinds"
VISITORS = PREFIX + "visitors"
TOMBSTONES = PREFIX + "tombstones"
TOMBSTONE_KEY = PREFIX + "tombstone-key"
WORKERS = PREFIX + "workers"
REFUSED = PREFIX + "refused"
ARRIVALS = PREFIX + "arrivals"
SENDERS = PREFIX + "senders"
BULK = PREFIX + "bulk"
GIVEN_UP = PREFIX + "given-up"
AUDIT = PREFIX + "audit"
HISTORY = PREFIX + "history"
RETRY_RUN = PREFIX + "retry-run"
DIALECTS = PREFIX + "dialects"
POLL = PREFIX + "poll"
POLLING = PREFIX + "polling"


def retried(stage: Stage) -> str:
    """Return the line of *stage* that holds what came back from the dead letters."""
    return f"{stage}:retried"


def batches(line: str) -> str:
    """Return the name of the queue that holds the sealed batches of *line*: a stage's name, or its `retried`."""
    return f"{line}:batches"


def held(line: str) -> str:
    """Return the name of the queue of batches that wait for others to succeed first."""
    return f"{line}:held"


def bulk(stage: Stage) -> str:
    """Return the name of the queue that holds the parts of bulk jobs."""
    return f"{stage}:bulk"


def raw(stage: Stage) -> str:
    """Return the name of the queue of events that their source must read again."""
    return f"{stage}:raw"


def _lines(stage: Stage) -> tuple[str, ...]:
    """Return the queues of both lines of a stage that calls a vendor."""
    lines = (stage, retried(stage))
    return tuple(name for line in lines for name in (line, batches(line), held(line)))


#: the queue of deliveries that wait for a proof
UNPROVEN = "unpack:unproven"

#: a stage that calls a vendor has three queues: what waits to be sealed, sealed batches, and batches that
#: failed for a reason that may be their own and wait until others have succeeded; `:raw` holds single events
#: in their sender's words that came back from the dead letters and are read again; `:bulk` holds the parts of
#: bulk jobs, whoever is asked about in one. What came back from the dead letters has three queues of its own, its
#: *line*, so that it can be held to its share of the calls while other work waits
QUEUES: dict[Stage, tuple[str, ...]] = {
    Stage.UNPACK: ("unpack", UNPROVEN),
    Stage.ENRICH: (*_lines(Stage.ENRICH), "enrich:raw", "enrich:bulk"),
    Stage.SUBSCRIBE: _lines(Stage.SUBSCRIBE),
    Stage.FORWARD: (*_lines(Stage.FORWARD), "forward:raw"),
    Stage.SCORES: ("scores", "scores:raw"),
    Stage.NOTIFY: _lines(Stage.NOTIFY),
}

ALL_QUEUES = tuple(name for names in QUEUES.values() for name in names)

COUNTERS = ("in", "waiting", "done", "duplicate", "ignored", "dead", "dropped")


def sealed(stage: Stage) -> tuple[str, ...]:
    """Return the queues of *stage* whose entries are batches, or parts of bulk jobs: what a call is made with."""
    lines = (stage, retried(stage))
    ready = {bulk(stage), *map(batches, lines), *map(held, lines)}
    return tuple(name for name in QUEUES[stage] if name in ready)


def calls_of(stage: Stage) -> tuple[str, ...]:
    """Return the queues of *stage* that wait for calls to its vendor; others are worked on while calls are put off."""
    if stage is Stage.ENRICH:  # what is not sealed there is merged, which needs no vendor
        return sealed(stage)
    return tuple(name for name in QUEUES[stage] if name != raw(stage))


def queue(name: str) -> str:
    """Return the stream of the queue *name* (a word of `QUEUES`)."""
    return f"{PREFIX}queue:{name}"


def bulk_job(name: str) -> str:
    """Return the hash of one bulk job."""
    return f"{PREFIX}bulk:{name}"


def destination(stage: str) -> str:
    """Return the hash that knows how the calls of *stage* have gone."""
    return f"{PREFIX}destination:{stage}"


def explained(stage: str, root: str) -> str:
    """Return the mark that an item was buried of what the batch *root* of *stage* was split into."""
    return f"{PREFIX}explained:{stage}:{root}"


def calls(endpoint: str, width_ms: int, slot: int) -> str:
    """Return the hash of what the calls of *endpoint* came to in one slot of *width_ms*, counted since 1970."""
    return f"{PREFIX}calls:{endpoint}:{width_ms}:{slot}"


def all_calls(endpoint: str) -> str:
    """Return the hash of what all calls of *endpoint* ever came to."""
    return f"{PREFIX}calls:{endpoint}"


def failed_calls(endpoint: str) -> str:
    """Return the list of the last calls of *endpoint* that failed, newest first."""
    return f"{PREFIX}failed-calls:{endpoint}"


def pace(vendor: str) -> str:
    """Return the hash that knows how much of its configured rate *vendor* takes."""
    return f"{PREFIX}pace:{vendor}"


def width(worker: str) -> str:
    """Return the hash of the stages for which *worker* makes fewer calls at a time than it may."""
    return f"{PREFIX}width:{worker}"


def letter(dead_id: str) -> str:
    """Return the hash of one dead letter."""
    return f"{PREFIX}dead:{dead_id}"


def dead_of(kind: str) -> str:
    """Return the index of the dead letters of one kind, `stage/source/reason`."""
    return f"{PREFIX}dead-of:{kind}"


def visitor(visitor_id: str) -> str:
    """Return the hash of one visitor."""
    return f"{PREFIX}visitor:{visitor_id}"


def address(digest: str) -> str:
    """Return the hash that knows an address's visitor, its subscription, what its verification said."""
    return f"{PREFIX}address:{digest}"


def enrichment(digest: str) -> str:
    """Return the marker that AudienceLab was, or is to be, asked about the visitor whose id has this *digest*."""
    return f"{PREFIX}enrichment:{digest}"


def set_up(source: str) -> str:
    """Return the key that a sender brought when its webhook was set up, and that it wants back."""
    return f"{PREFIX}set-up:{source}"


def spilled(name: str) -> str:
    """Return how far the spilled file *name* has been stored: a place in it."""
    return f"{PREFIX}spilled:{name}"


def recipient(digest: str) -> str:
    """Return the address behind a sender's own id of somebody; *digest* is that of sender and id."""
    return f"{PREFIX}recipient:{digest}"


def import_of(kind: str, import_id: str) -> str:
    """Return the hash that knows how far the walk over a segment or a pixel has come."""
    return f"{PREFIX}import:{kind}:{import_id}"


def drill(number: str, stage: Stage) -> str:
    """Return the mark that a drill leaves where it has come to."""
    return f"{PREFIX}drill:{number}:{stage}"
