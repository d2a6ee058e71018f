"""Chronicle: see to it that the history has an entry for every minute."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipeline import history
from pipeline.scripts import words_of
from workers.stopping import rest

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

# so that an entry stands at most this long behind its minute
EVERY_S = 10.0


async def keep_chronicling(context: Context) -> None:
    """Write each minute's entry until the worker stops; Redis being away leaves minutes out."""
    while not context.stopping.is_set():
        try:
            await history.note(context.redis)
        except Exception as error:  # a chart without a minute is no reason to end a worker
            logger.warning("history not written error=%s", words_of(error))
        await rest(context.stopping, EVERY_S)
