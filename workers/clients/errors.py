"""How a call to a vendor can fail, in the words `workers.fates` decides by.

CallFailed                 the base; every message is a sentence an operator can act on, no personal data
├── Unavailable            the destination's fault: network, time-out, 429, 5xx, 200 without the keys
│   ├── Throttled          429, or 400 in the words of AWS: the vendor asks for fewer requests
│   ├── TimedOut           no answer came in time
│   └── BreaksOff          a list ends before the end that it tells of
├── Misconfigured          401, 403, 404, 405, 410, 415, 3xx: key, path or address is wrong, and which
├── QuotaExceeded          402, 429 "Limit Exceeded": nothing more until the next UTC day or Retry-After
└── Rejected               400, 413, 422 and any other 4xx: the items' fault, with the vendor's own words
    ├── NotFound           the vendor knows nothing of that id
    └── UnknownField       400 "Unknown Field": the vendor speaks another form of this call
"""

from __future__ import annotations

#: A dead letter has room for 500 characters of error.
LONGEST_SENTENCE = 500


class CallFailed(Exception):
    """A call that did not succeed. *status* is None when no answer came."""

    def __init__(
        self,
        sentence: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        maybe_stored: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.retry_after_s = retry_after_s
        #: the request may have been carried out although no good answer came (time-out, 504, reset)
        self.maybe_stored = maybe_stored
        #: of a list that was sent in several calls: the positions of what the calls before have stored,
        #: and, when this one may have been carried out, of what was in it
        self.taken: tuple[int, ...] = ()
        self.unclear: tuple[int, ...] = ()
        #: the tally has it already, as a call of another endpoint than the one it was made for
        self.is_counted = False

    def add(self, words: str) -> None:
        """Add *words* to the sentence, of which as much is cut as there is no room for."""
        own = self.sentence
        room = LONGEST_SENTENCE - len(words) - 2
        self.sentence = f"{own if len(own) <= room else own[: room - 1] + '…'}; {words}"
        self.args = (self.sentence,)


class Unavailable(CallFailed):
    """The destination's fault: wait and try again, as long as it takes."""


class Throttled(Unavailable):
    """The vendor asks for fewer requests: what is sent is right, and too fast."""


class TimedOut(Unavailable):
    """No answer came in time; the request may have been carried out."""


class BreaksOff(Unavailable):
    """A list ends before the end that it tells of: an outage behind the service, or it tells of too much."""


class Misconfigured(CallFailed):
    """Key or path is wrong: nothing will pass until somebody changes a setting."""


class QuotaExceeded(CallFailed):
    """The vendor's quota is used up: wait for the next UTC day or for Retry-After."""


class Rejected(CallFailed):
    """The vendor refused what was sent; sending the same again would be refused again."""


class NotFound(Rejected):
    """The vendor knows nothing of the id that was asked for."""


class UnknownField(Rejected):
    """The vendor does not know a key of the request: perhaps it knows another form of the call."""
