"""What a sender does next when it is refused, where another status than the usual one serves it better.

To most senders 503 and 408 mean "send it again". A few read statuses in their own way, and what the relay could
not store must reach it later all the same:

    brevo   discards the event on any 4xx or 5xx; 429 alone makes it come again (10 minutes, 1, 2, 8 hours).
            https://developers.brevo.com/docs/retry-mechanism
    ses     SNS repeats after a 5xx and takes other 4xx for final, so a body that did not arrive in time is 503.
            https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html
    mailersend   does not promise to come again after a 4xx: the same.

What is final stays what it is: a wrong token, a false signature, a body that is too large or not the sender's
form would be the same the next time.

Two statuses end every further try, and no refusal here may ever have them (a test holds all refusals to it):
406 to `mailgun` (https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries),
403 to `postmark` (https://postmarkapp.com/developer/webhooks/webhooks-overview).
MailerSend pauses a webhook after twenty failures in a day, and Klaviyo switches it off after two days, whatever
the status is: nothing serves them better than 503.
"""

from __future__ import annotations

from dataclasses import replace

from receiver.problems import RETRY, SEND_AGAIN, STALLED, Problem

#: the status after which a sender never sends the event again, though it repeats after all others
GIVES_UP_AT = {"mailgun": 406, "postmark": 403}


def _again(problem: Problem, status: int) -> Problem:
    """Return *problem* as *status*, with `Retry-After`."""
    names = {name for name, _ in problem.headers}
    more = () if b"retry-after" in names else RETRY
    return replace(problem, status=status, headers=(*problem.headers, *more))


_SLOW = {STALLED.name: _again(STALLED, 503)}
_SAID: dict[str, dict[str, Problem]] = {
    "brevo": {problem.name: _again(problem, 429) for problem in SEND_AGAIN},
    "ses": _SLOW,
    "mailersend": _SLOW,
}


def said_to(source: str, problem: Problem) -> Problem:
    """Return *problem* as *source* must be told it."""
    own = _SAID.get(source)
    return problem if own is None else own.get(problem.name, problem)
