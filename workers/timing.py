"""How long the workers wait: for a retry, a probe, a call in flight. Tests pass shorter ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, unless a name says otherwise."""

    backoff_base_s: float = 0.2
    backoff_cap_s: float = 15.0
    #: this many failures in a row pause the stage
    pauses_after: int = 5
    probe_min_s: float = 1.0
    probe_max_s: float = 60.0
    #: a wrong key or path does not mend itself: one probe a minute
    misconfigured_probe_s: float = 60.0
    #: between two tries of a held batch: most outages of a part of a vendor are over before the fourth
    rest_s: float = 3.0
    #: longer than any call (45 s), and `verify_s` before it: a probe that never came back gives its place to another
    probe_lease_s: float = 75.0
    #: a drain hands over to a fresh job well before arq's job_timeout
    drain_s: float = 25.0
    #: a drain that has nothing to do for longer than this ends; the sweep rings when the time has come
    patience_s: float = 2.5
    #: at a stop, calls in flight may still finish; platforms kill after 30 s
    stop_s: float = 20.0
    sweep_s: float = 1.0
    #: ten bulk jobs at once then take a third of AudienceLab's default rate
    bulk_poll_s: float = 60.0
    #: longer than everything that is done with a bulk job at a time (`workers.bulk`)
    bulk_lease_s: float = 120.0
    #: a bulk job that is not over by then is given up; the vendor promises no time
    bulk_give_up_s: float = 86_400.0
    #: while AudienceLab is asked, how often new visitor events are looked for
    merge_every_s: float = 0.25
    #: how often it is looked whether a segment or a pixel is to be walked again
    reconcile_s: float = 5.0
    #: a batch is verified for so long before it goes on: shorter than `stop_s`, so that a stop lets it finish
    verify_s: float = 15.0
    #: how often a poll of scores that rests, or was put off, is looked at again
    poll_s: float = 30.0
    #: longer than a call (45 s): another worker goes on with the walk of one that died
    poll_lease_s: float = 60.0
