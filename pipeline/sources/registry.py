"""The table of all sources. What is not in it is an unknown source: 404, and nothing is stored."""

from __future__ import annotations

from pipeline.sources import Source
from pipeline.sources.audiencelab import AUDIENCE, PIXEL, WORKFLOW
from pipeline.sources.events import EVENTS
from pipeline.sources.scores import SCORES
from pipeline.sources.sendgrid import SENDGRID

_ALL: tuple[Source, ...] = (PIXEL, AUDIENCE, WORKFLOW, SCORES, EVENTS, SENDGRID)

#: By the word in `/hooks/{source}/...`.
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
