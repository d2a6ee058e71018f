"""The desk: what every page of the console works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from console.web.attempts import Attempts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from console.web.errands import Errands
    from console.web.examination import Examinations
    from console.web.forgetting import Forgettings
    from console.web.gauges import Gauges
    from console.web.replay import Replays
    from console.web.sessions import Sessions
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Desk:
    """Settings, Redis (with the bell of the workers), and who is logged in."""

    settings: Settings
    redis: Redis
    sessions: Sessions
    replays: Replays
    gauges: Gauges
    forgettings: Forgettings
    examinations: Examinations
    attempts: Attempts = field(default_factory=Attempts)
    #: set when the process is asked to end
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def errands(self) -> tuple[Errands[Any], ...]:
        """Return what may go on in the background."""
        return (self.replays, self.forgettings, self.examinations)


def desk_of(request: Request) -> Desk:
    """Return the desk of the application that serves *request*."""
    desk: Desk = request.app.state.desk
    return desk
