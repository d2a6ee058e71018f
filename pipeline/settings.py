"""Every setting of the relay, read once from the environment and `.env` in the working directory.

All problems are found together and told together, each with the setting's name and what to do,
never with its value: a value may be a secret. An empty value means "as the default", and a
variable of the environment beats the same line of `.env` also when it is empty. `python -m
pipeline.settings` prints the `.env.example` of these fields; a test holds the file in the
repository equal to it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn, get_args, get_origin

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline import setting_values
from pipeline.home import Address, Home, HomeError
from pipeline.hook_tokens import HookToken, parse_tokens
from pipeline.setting_values import parse_webhook_keys
from pipeline.sources import Rules


class SettingsError(Exception):
    """One or more settings are wrong. *problems* are sentences without values, one for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_BaseUrl = Annotated[str, AfterValidator(setting_values.check_base_url)]
_Path = Annotated[str, AfterValidator(setting_values.check_path)]
_Rate = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
_Key = SecretStr | None


class Settings(BaseSettings):
    """The relay's settings; an attribute is its variable's name in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    redis_url: Annotated[_Key, AfterValidator(setting_values.check_redis_url)] = Field(
        default=None,
        description="redis://, rediss://, unix:// or redis+sentinel://host:port,host:port/master/db;"
        " unset: the embedded Redis of `relay up`",
    )
    hook_tokens: Annotated[_Key, AfterValidator(setting_values.check_tokens)] = Field(
        default=None,
        description="comma-separated, all valid (rotation), at least 16 characters each;"
        " `source:token` is valid for that source only;"
        " unset: made on the first `relay up`, kept in RELAY_HOME",
    )
    public_url: Annotated[str | None, AfterValidator(setting_values.check_public_url)] = Field(
        default=None,
        description="the receiver's public address, the part before /hooks: https://host[/prefix];"
        " for the commands that register webhooks at vendors",
    )
    audiencelab_api_key: _Key = Field(default=None, description="AudienceLab's API key")
    audiencelab_base_url: _BaseUrl = Field(
        default="https://api.audiencelab.io", description="where AudienceLab's API is"
    )
    audiencelab_hash_filter: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = Field(
        default="sha256_personal_email",
        description="AudienceLab's filter name for a hashed address in POST /enrich",
    )
    audiencelab_dialect: Literal["auto", "observed", "documented"] = Field(
        default="auto",
        description="form of AudienceLab's calls: observed (live answers), documented (its older"
        " reference), auto (what works)",
    )
    audiencepoint_api_key: _Key = Field(default=None, description="AudiencePoint's API key")
    audiencepoint_base_url: _BaseUrl = Field(
        default="https://api.audiencepoint.com/v1", description="where AudiencePoint's API is"
    )
    audiencepoint_scores_path: _Path = Field(
        default="/scores", description="path of the scores call"
    )
    audiencepoint_events_path: _Path = Field(
        default="/events", description="path of the event ingestion"
    )
    audiencepoint_subscription_path: _Path = Field(
        default="/list-subscription", description="path of the list subscription"
    )
    audiencepoint_sto_path: _Path = Field(default="/sto", description="path of the send-time call")
    audiencepoint_verification_path: _Path = Field(
        default="/email-verification", description="path of the e-mail verification"
    )
    email_format: Literal["sha256", "plain"] = Field(
        default="sha256", description="how addresses leave for AudiencePoint: sha256 or plain"
    )
    enrich: Literal["missing", "always", "off"] = Field(
        default="missing",
        description="whom to enrich: missing (no name and no verified e-mail yet), always, off",
    )
    enrich_bulk_from: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=100,
        description="when more visitors than this wait for AudienceLab, one bulk job asks about up to 1 000 of"
        " them; 0: never (100 single calls take 200 s at the default rate)",
    )
    subscribe: Literal["identified", "verified", "all", "off"] = Field(
        default="identified",
        description="which addresses of a visitor to subscribe: identified, verified, all, off",
    )
    verify: Literal["off", "before_subscribe"] = Field(
        default="off",
        description="before_subscribe: AudiencePoint first verifies each address known in plain text (one call"
        " each, sent in plain text); those found Invalid or Spamtrap are not subscribed",
    )
    score_poll_every_h: Annotated[float, Field(ge=0, le=8760, allow_inf_nan=False)] = Field(
        default=24,
        description="hours between two requests for an address's scores, made only while AudiencePoint has"
        " pushed none for 7 days; 0: never",
    )
    forward_max_wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        default=2, description="a batch leaves at 30 events or at this age in seconds"
    )
    audiencepoint_rate: _Rate = Field(
        default=5,
        description="requests per second to AudiencePoint at most, over all workers; a 429 halves it for a while;"
        " 0 is no limit",
    )
    audiencelab_rate: _Rate = Field(
        default=0.5,
        description="requests per second to AudienceLab at most, over all workers; a 429 halves it for a while;"
        " 0 is no limit",
    )
    seen_window_h: _Positive = Field(
        default=168, description="how long a repeated event is recognised, in hours"
    )
    ack_policy: Literal["stored", "fsynced", "replicated"] = Field(
        default="stored",
        description="what an answer promises: stored, fsynced (appendfsync always, or WAITAOF"
        " where the server has it), replicated (WAIT 1)",
    )
    dead_keep_d: _Positive = Field(
        default=30, description="age in days at which the sweep moves dead letters to dropped"
    )
    visitor_keep_d: _Positive = Field(
        default=365, description="how long a visitor is kept, in days since last seen"
    )
    send_from: Literal["accepted", "delivered"] = Field(
        default="accepted",
        description="which event of a mail sender is a Send: accepted or delivered; unset: accepted,"
        " but delivered for Mailgun, Postmark, Mailjet and Mailtrap",
    )
    deferral_as: Literal["none", "SoftBounce"] = Field(
        default="none", description="what a mail sender's deferral becomes: none or SoftBounce"
    )
    send_id: Literal["message", "campaign"] = Field(
        default="message", description="which id becomes send_id: the message's or the campaign's"
    )
    reconcile_every_h: _Positive = Field(
        default=24,
        description="hours between two imports of the segments and pixels below, for what webhooks missed",
    )
    reconcile_segments: Annotated[str, AfterValidator(setting_values.check_ids)] = Field(
        default="", description="comma-separated ids of the AudienceLab segments to import"
    )
    reconcile_pixels: Annotated[str, AfterValidator(setting_values.check_ids)] = Field(
        default="", description="comma-separated ids of the AudienceLab pixels to import"
    )
    scores_webhook_url: Annotated[_Key, AfterValidator(setting_values.check_webhook_url)] = Field(
        default=None,
        description="where changes of scores are posted to, for a CRM; needs SCORES_WEBHOOK_SECRET;"
        " unset: none are posted",
    )
    scores_webhook_secret: Annotated[_Key, AfterValidator(setting_values.check_webhook_keys)] = (
        Field(
            default=None,
            description="the key that signs them (Standard Webhooks, `whsec_...`); several, separated by"
            " commas, all sign, while you rotate it",
        )
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=512 * 1024**2)] = Field(
        default=20 * 1024**2, description="largest body that is accepted, also after decompression"
    )
    max_inflight_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=256 * 1024**2, description="bodies that one receiver holds in memory at most"
    )
    spill_max_bytes: Annotated[int, Field(ge=0)] = Field(
        default=1024**3,
        description="most bytes that receivers keep in RELAY_HOME/spill while Redis cannot take deliveries;"
        " above it they answer 503; 0: nothing is kept there",
    )
    relay_home: Path = Field(
        default=Path(".relay"),
        description="directory of the embedded Redis, the token, the address file and the spill",
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8000, description="the receiver's port"
    )
    console_token: Annotated[_Key, AfterValidator(setting_values.check_console_token)] = Field(
        default=None,
        description="opens the operator's page, at least 16 characters; unset: no log-in, and the page opens"
        " on this machine only",
    )
    console_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8001, description="the port of the operator's page; 0: `relay up` starts none"
    )
    console_read_only: bool = Field(
        default=False, description="true: the operator's page shows everything and changes nothing"
    )
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0,
        description="port of a worker's own GET /metrics; 0: none. Of several workers on one machine the first"
        " takes it and reports for all",
    )
    worker_metrics_host: str = Field(
        default="127.0.0.1",
        description="the address it listens on; 0.0.0.0 when Prometheus runs in another container",
    )
    log_format: Literal["console", "json"] = Field(default="console", description="console or json")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING, ERROR or CRITICAL"
    )
    sendgrid_public_key: Annotated[_Key, AfterValidator(setting_values.check_ec_key)] = Field(
        default=None,
        description="SendGrid's verification key, or several separated by commas; once it is set, unsigned"
        " deliveries are refused",
    )
    mailgun_signing_key: _Key = Field(
        default=None,
        description="Mailgun's HTTP webhook signing key; set, it refuses unsigned deliveries, as all below do",
    )
    resend_signing_secret: _Key = Field(
        default=None,
        description="Resend's signing secret (`whsec_...`), or several separated by commas",
    )
    mailersend_signing_secret: _Key = Field(
        default=None, description="MailerSend's webhook signing secret"
    )
    mandrill_webhook_key: _Key = Field(
        default=None, description="Mandrill's webhook key; needs MANDRILL_WEBHOOK_URL"
    )
    mandrill_webhook_url: _Key = Field(
        default=None, description="the whole URL that Mandrill was given, which it signs"
    )
    ses_topic_arns: Annotated[_Key, AfterValidator(setting_values.check_topics)] = Field(
        default=None,
        description="comma-separated SNS topics that Amazon SES may publish to; once set, unsigned messages and"
        " other topics' are refused, and subscriptions to these are confirmed by themselves",
    )
    ses_raw_delivery: bool = Field(
        default=False,
        description="whether SNS's raw message delivery is accepted, which Amazon does not sign",
    )
    klaviyo_signing_key: _Key = Field(
        default=None, description="the secret key of Klaviyo's webhook"
    )
    customerio_signing_key: _Key = Field(
        default=None, description="Customer.io's webhook signing key"
    )
    sfmc_signing_key: _Key = Field(
        default=None, description="the signature key of Marketing Cloud's callback"
    )
    mailtrap_signing_secret: _Key = Field(
        default=None, description="Mailtrap's webhook signing secret"
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {
            name: value
            for name, value in values.items()
            if not (isinstance(value, str) and not value.strip())
        }

    @field_validator("*", mode="before")
    @classmethod
    def _whatever_the_case(cls, value: object, info: ValidationInfo) -> object:
        choices = cls.model_fields[info.field_name or ""].annotation
        if not isinstance(value, str) or get_origin(choices) is not Literal:
            return value
        spelt = {choice.casefold(): choice for choice in get_args(choices)}
        return spelt.get(value.casefold(), value)

    @field_validator("max_inflight_bytes")
    @classmethod
    def _holds_one_body(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("max_body_bytes", 0):
            raise ValueError("should be at least MAX_BODY_BYTES, or the largest body never fits")
        return value

    @field_validator("public_url")
    @classmethod
    def _holds_no_token(cls, value: str | None, info: ValidationInfo) -> str | None:
        tokens: SecretStr | None = info.data.get("hook_tokens")
        secrets = parse_tokens(tokens.get_secret_value()) if tokens else []
        if value and any(each.token in value for each in secrets):
            raise ValueError("should have no hook token in it: it is shown")
        return value

    @field_validator("mandrill_webhook_url")
    @classmethod
    def _goes_with_its_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("mandrill_webhook_key") is not None:
            raise ValueError("should be set beside MANDRILL_WEBHOOK_KEY: Mandrill signs its URL")
        return value

    @field_validator("scores_webhook_secret")
    @classmethod
    def _goes_with_its_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("scores_webhook_url") is not None:
            raise ValueError(
                "should be set beside SCORES_WEBHOOK_URL: what is sent there is signed"
            )
        return value

    @field_validator("reconcile_segments", "reconcile_pixels")
    @classmethod
    def _goes_with_audiencelab(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("audiencelab_api_key") is None:
            raise ValueError("should be set beside AUDIENCELAB_API_KEY: that is who is asked")
        return value

    @field_validator("relay_home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def is_trial(self) -> bool:
        """Whether neither vendor's key is set, which makes `relay up` a trial."""
        return self.audiencelab_api_key is None and self.audiencepoint_api_key is None

    def reconciled_segments(self) -> list[str]:
        """Return the segments to walk, once each, in the order they are written."""
        return setting_values.ids_in(self.reconcile_segments)

    def reconciled_pixels(self) -> list[str]:
        """Return the pixels to walk, likewise."""
        return setting_values.ids_in(self.reconcile_pixels)

    def rules(self) -> Rules:
        """Return how mail senders' words map to AudiencePoint's."""
        return Rules(
            send_from=self.send_from if "send_from" in self.model_fields_set else None,
            deferral_as=self.deferral_as,
            send_id=self.send_id,
        )

    def is_off(self, stage: str) -> bool:
        """Tell whether no calls of *stage* are wanted."""
        off = {
            "enrich": self.enrich == "off",
            "subscribe": self.subscribe == "off",
            "notify": self.scores_webhook_url is None,
        }
        return off.get(stage, False)

    def webhook_keys(self) -> list[bytes]:
        """Return the keys that sign what goes to SCORES_WEBHOOK_URL."""
        secret = self.scores_webhook_secret
        return parse_webhook_keys(secret.get_secret_value()) if secret else []

    def sender_secrets(self) -> dict[str, str]:
        """Return variable name -> value of the senders' secrets that are set."""
        secrets = {name.upper(): getattr(self, name) for name in _SENDERS_SECRETS}
        found = {name: value.get_secret_value() for name, value in secrets.items() if value}
        return found | ({"SES_RAW_DELIVERY": "true"} if self.ses_raw_delivery else {})

    def tokens(self) -> list[HookToken]:
        """Return the valid hook tokens, in the order they are written.

        They come from HOOK_TOKENS, else from the file in RELAY_HOME. A process that finds its
        Redis by the address file of a running trial takes the trial's tokens too: data and token
        belong together. Raises `SettingsError` when there is none.
        """
        address = self._running()
        try:
            if address is not None and address.trial:
                return _tokens_in(Home(address.home))
            if self.hook_tokens is not None:
                return parse_tokens(self.hook_tokens.get_secret_value())
            return _tokens_in(Home(self.relay_home))
        except HomeError as error:
            raise SettingsError([f"RELAY_HOME: {error}"]) from error

    def is_beside_trial(self) -> bool:
        """Tell whether the data that this process works on is a running trial's, which has settings of its own."""
        try:
            address = self._running()
        except SettingsError:
            return False
        return address is not None and address.trial

    def data_home(self) -> Home:
        """Return the home of the data that this process works on: a running trial's where it finds its Redis there.

        Raises `SettingsError` when the address file cannot be read.
        """
        address = self._running()
        return Home(self.relay_home) if address is None else Home(address.home)

    def _running(self) -> Address | None:
        """Return where the running `relay up` is whose Redis this process uses; raises `SettingsError`."""
        try:
            return None if self.redis_url else Home(self.relay_home).running()
        except HomeError as error:
            raise SettingsError([f"RELAY_HOME: {error}"]) from error

    def environment(self) -> dict[str, str]:
        """Return every setting as an environment variable, secrets in clear: for children only.

        What is unset is there as an empty value, so that no `.env` can change a child's mind.
        """
        return {
            name.upper(): as_text(getattr(self, name)) if name in self.model_fields_set else ""
            for name in type(self).model_fields
        }


# What proves a sender; the sources know them by the same names in upper case.
_SENDERS_SECRETS = (
    *("sendgrid_public_key", "mailgun_signing_key", "resend_signing_secret"),
    *("mailersend_signing_secret", "mandrill_webhook_key", "mandrill_webhook_url"),
    *("ses_topic_arns", "klaviyo_signing_key", "customerio_signing_key", "sfmc_signing_key"),
    "mailtrap_signing_secret",
)


def _tokens_in(home: Home) -> list[HookToken]:
    text = home.read_tokens()
    if text is None:
        raise SettingsError(
            [f"HOOK_TOKENS: not set, and there is no {home.tokens_file}; set it, or run `relay up`"]
        )
    try:
        return parse_tokens(text)
    except ValueError as error:
        raise SettingsError([f"{home.tokens_file}: {error}"]) from None


def load_settings() -> Settings:
    """Read and check all settings; raise `SettingsError` with every problem at once."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            _problem(str(each["loc"][0]) if each["loc"] else "", each["msg"])
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    except (OSError, UnicodeDecodeError) as error:
        problems = [
            f".env: cannot be read ({type(error).__name__}); it should be a UTF-8 text file"
        ]
    raise SettingsError(problems)


def _problem(name: str, message: str) -> str:
    message = message.removeprefix("Value error, ").replace("Input should", "should")
    return f"{name.upper()}: {message}"


def exit_with(error: SettingsError) -> NoReturn:
    """Print every problem on stderr and end the process with status 2."""
    print("These settings are wrong:", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)
    raise SystemExit(2)


def as_text(value: object) -> str:
    """Return *value* as its variable would have it, a secret in clear."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _default_text(info: FieldInfo) -> str:
    return as_text(info.default)


def render_example() -> str:
    """Return the text of `.env.example`: every setting, commented out, with its default."""
    lines = [
        "# Settings of the relay. Copy to .env and take the # away from what you change.",
        "# An empty value means the default. Made by: python -m pipeline.settings > .env.example",
    ]
    for name, info in Settings.model_fields.items():
        lines += ["", f"# {info.description}", f"#{name.upper()}={_default_text(info)}"]
    return "\n".join(lines) + "\n"


def render_table() -> str:
    """Return the same as a Markdown table, for the README."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for name, info in Settings.model_fields.items():
        default = _default_text(info)
        rows.append(
            f"| `{name.upper()}` | {f'`{default}`' if default else ''} | {info.description} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_table() if "--table" in sys.argv[1:] else render_example())
