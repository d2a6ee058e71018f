"""AudienceLab's API: pixels, audiences, segments, enrichment.

Requests are made and answers read by pure functions, a file for each noun; `AudienceLab` carries
them. What the calls look like is known from the vendor's pages and live answers ("observed") and
from an older reference that differs ("documented"); `dialects` finds out which one a service speaks.
"""

from workers.clients.audiencelab.answers import VENDOR, headers
from workers.clients.audiencelab.audiences import KINDS, Attribute, Audience, Preview
from workers.clients.audiencelab.client import PAGE_SIZE, AudienceLab
from workers.clients.audiencelab.dialects import Dialect, Dialects
from workers.clients.audiencelab.enrichment import (
    ENRICH_PATH,
    EnrichmentJob,
    enrich_request,
    read_enrich,
)
from workers.clients.audiencelab.pages import Course, Page, walk
from workers.clients.audiencelab.pixels import CreatedPixel, Pixel

__all__ = [
    "ENRICH_PATH",
    "KINDS",
    "PAGE_SIZE",
    "VENDOR",
    "Attribute",
    "Audience",
    "AudienceLab",
    "Course",
    "CreatedPixel",
    "Dialect",
    "Dialects",
    "EnrichmentJob",
    "Page",
    "Pixel",
    "Preview",
    "enrich_request",
    "headers",
    "read_enrich",
    "walk",
]
