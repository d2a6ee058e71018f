"""The table of all sources. What is not in it is an unknown source: 404, and nothing is stored."""

from __future__ import annotations

from pipeline.sources import Source
from pipeline.sources.audiencelab import AUDIENCE, PIXEL, WORKFLOW
from pipeline.sources.braze import BRAZE
from pipeline.sources.brevo import BREVO
from pipeline.sources.customerio import CUSTOMERIO
from pipeline.sources.events import EVENTS
from pipeline.sources.iterable import ITERABLE
from pipeline.sources.klaviyo import KLAVIYO
from pipeline.sources.mailchimp import MAILCHIMP
from pipeline.sources.mailersend import MAILERSEND
from pipeline.sources.mailgun import MAILGUN
from pipeline.sources.mailjet import MAILJET
from pipeline.sources.mailtrap import MAILTRAP
from pipeline.sources.mandrill import MANDRILL
from pipeline.sources.postmark import POSTMARK
from pipeline.sources.resend import RESEND
from pipeline.sources.scores import SCORES
from pipeline.sources.sendgrid import SENDGRID
from pipeline.sources.ses import SES
from pipeline.sources.sfmc import SFMC
from pipeline.sources.sparkpost import SPARKPOST

_ALL: tuple[Source, ...] = (
    *(PIXEL, AUDIENCE, WORKFLOW, SCORES, EVENTS),
    *(SENDGRID, MAILGUN, POSTMARK, SES, SPARKPOST, MANDRILL, BREVO, MAILJET, RESEND, MAILERSEND),
    *(MAILTRAP, MAILCHIMP, KLAVIYO, CUSTOMERIO, ITERABLE, BRAZE, SFMC),
)

#: By the word in `/hooks/{source}/...`.
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}

#: The settings by which a source's signature is checked, all of which it takes. Who is not in it signs
#: nothing that could be checked: the token alone proves it.
SECRETS: dict[str, tuple[str, ...]] = {
    "sendgrid": ("SENDGRID_PUBLIC_KEY",),
    "mailgun": ("MAILGUN_SIGNING_KEY",),
    "ses": ("SES_TOPIC_ARNS",),
    "mandrill": ("MANDRILL_WEBHOOK_KEY", "MANDRILL_WEBHOOK_URL"),
    "resend": ("RESEND_SIGNING_SECRET",),
    "mailersend": ("MAILERSEND_SIGNING_SECRET",),
    "mailtrap": ("MAILTRAP_SIGNING_SECRET",),
    "klaviyo": ("KLAVIYO_SIGNING_KEY",),
    "customerio": ("CUSTOMERIO_SIGNING_KEY",),
    "sfmc": ("SFMC_SIGNING_KEY",),
}
