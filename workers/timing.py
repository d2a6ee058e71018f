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
    #: longer than any call (45 s): a probe that never came back gives its place to another
    probe_lease_s: float = 50.0
    #: a drain hands over to a fresh job well before arq's job_timeout
    drain_s: float = 25.0
    #: a drain that has nothing to do for longer than this ends; the sweep rings when the time has come
    patience_s: float = 2.5
    #: at a stop, calls in flight may still finish; platforms kill after 30 s
    stop_s: float = 20.0
    sweep_s: float = 1.0
    #: while AudienceLab is asked, how often new visitor events are looked for
    merge_every_s: float = 0.25
