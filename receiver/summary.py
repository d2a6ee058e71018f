"""Summary: one line in the log now and then, with how many deliveries were acknowledged.

A line for each would cost more than storing it.
"""

from __future__ import annotations

import asyncio
import logging

from receiver.metrics import Metrics

log = logging.getLogger(__name__)


class Summary:
    """Says every ten seconds, at INFO, how many deliveries were acknowledged since the last time."""

    EVERY_S = 10.0

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told = 0

    async def tell(self) -> None:
        """Tell for ever; nothing while nothing comes."""
        while True:
            await asyncio.sleep(self.EVERY_S)
            self.tell_once()

    async def finish(self) -> None:
        """Tell the rest."""
        self.tell_once()

    def tell_once(self) -> None:
        """Tell what has come since the last time."""
        answered = self._metrics.answered.items()
        acknowledged = sum(count for (_, status), count in answered if status < 300)
        if (new := acknowledged - self._told) > 0:
            log.info("acknowledged deliveries=%d seconds=%g", new, self.EVERY_S)
        self._told = acknowledged
