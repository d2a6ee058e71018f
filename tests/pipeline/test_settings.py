"""The settings: one list of all problems, no secret shown, the example file true."""

from __future__ import annotations

import logging
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.connections import NoRedis
from pipeline.home import Address, Home
from pipeline.hook_tokens import HookToken, parse_tokens, token_for
from pipeline.settings import (
    Settings,
    SettingsError,
    load_settings,
    render_example,
    render_table,
)
from pipeline.sources import Rules
from pipeline.starting import made_of_settings

ROOT = Path(__file__).parents[2]
TOKEN = "invented-token-0123456789"
WEBHOOK_SECRET = "whsec_" + b64encode(bytes(range(24))).decode()
# the base point of P-256: a valid key that is nobody's
PUBLIC_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8"
    "D54WK84zV2sxXs7LtkBoN79R9Q=="
)
TOPIC = "arn:aws:sns:us-east-1:123456789012:ses"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own environment and `.env` out."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """Return what the settings say about *variables*."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.problems


def test_the_defaults_are_those_of_the_contract() -> None:
    """Without any variable the settings are complete and as documented."""
    settings = load_settings()
    assert settings.audiencepoint_base_url == "https://api.audiencepoint.com/v1"
    assert (settings.audiencepoint_rate, settings.audiencelab_rate) == (5, 0.5)
    assert (settings.seen_window_h, settings.dead_keep_d, settings.visitor_keep_d) == (168, 30, 365)
    assert settings.max_body_bytes == 20 * 1024**2
    assert settings.max_inflight_bytes == 256 * 1024**2
    assert settings.relay_home == Path.cwd() / ".relay"
    assert settings.rules() == Rules()
    assert settings.sender_secrets() == {}
    assert settings.is_trial


def test_every_setting_is_described() -> None:
    """Each setting has a one-line description, which the example file and the README show."""
    for name, info in Settings.model_fields.items():
        assert info.description, name
        assert "\n" not in info.description


def test_the_example_file_is_what_the_settings_render() -> None:
    """`.env.example` cannot fall behind the settings."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == render_example()


def test_the_module_prints_the_example_and_the_table() -> None:
    """`python -m pipeline.settings` is how both documents are made."""
    for arguments, text in (([], render_example()), (["--table"], render_table())):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.settings", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == text


def test_the_example_file_is_valid_and_changes_nothing(tmp_path: Path) -> None:
    """Copied to `.env` with every line taken in, the example gives the defaults."""
    before = load_settings()
    lines = render_example().splitlines()
    taken_in = [line.removeprefix("#") for line in lines if not line.startswith("# ")]
    (tmp_path / ".env").write_text("\n".join(taken_in), encoding="utf-8")
    assert load_settings() == before


def test_all_problems_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run shows every wrong setting by its name."""
    found = problems(
        monkeypatch,
        REDIS_URL="http://example.com",
        HOOK_TOKENS="short",
        FORWARD_MAX_WAIT_S="soon",
        AUDIENCEPOINT_RATE="-1",
        EMAIL_FORMAT="md5",
        PORT="0",
        AUDIENCELAB_BASE_URL="api.example.com",
    )
    assert {problem.split(":")[0] for problem in found} == {
        "REDIS_URL",
        "HOOK_TOKENS",
        "FORWARD_MAX_WAIT_S",
        "AUDIENCEPOINT_RATE",
        "EMAIL_FORMAT",
        "PORT",
        "AUDIENCELAB_BASE_URL",
    }


def test_a_body_must_fit_into_what_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that no body can pass is told at the start, not at the first body."""
    found = problems(monkeypatch, MAX_BODY_BYTES="4096", MAX_INFLIGHT_BYTES="2048")
    assert found == [
        "MAX_INFLIGHT_BYTES: should be at least MAX_BODY_BYTES, or the largest body never fits"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOK_TOKENS", "hunter2-hunter2"),
        ("HOOK_TOKENS", f"nowhere:{TOKEN}-hunter2"),
        ("HOOK_TOKENS", f"{TOKEN}/hunter2"),
        ("HOOK_TOKENS", " , "),
        ("REDIS_URL", "redis://:hunter2@example.com:port/0"),
        ("REDIS_URL", "redis://:hunter2@/0"),
        ("REDIS_URL", "redis://:hunter2@example.com/zero"),
        ("REDIS_URL", "redis://[hunter2/0"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "redis+sentinel://:hunter2@example.com/main"),
        ("REDIS_URL", "redis+sentinel://:hunter2@example.com:26379"),
        ("PUBLIC_URL", "hunter2.example.com"),
        ("PUBLIC_URL", "https://relay.example.com/hooks/pixel/hunter2-hunter2-h"),
        ("PUBLIC_URL", "https://relay.example.com/?token=hunter2"),
        ("PUBLIC_URL", "https://relay.example.com/hunter2 or so"),
        ("AUDIENCELAB_BASE_URL", "https://user:hunter2@example.com"),
        ("AUDIENCEPOINT_BASE_URL", "https://example.com/?key=hunter2"),
        ("AUDIENCEPOINT_EVENTS_PATH", "hunter2"),
        ("AUDIENCELAB_RATE", "nan"),
        ("SEEN_WINDOW_H", "0"),
        ("DEAD_KEEP_D", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
        ("SCORES_WEBHOOK_URL", "hunter2"),
        ("SCORES_WEBHOOK_URL", "ftp://hunter2.example.com/crm"),
        ("SCORES_WEBHOOK_URL", "https://user:hunter2@example.com/crm"),
        ("SCORES_WEBHOOK_URL", "https://example.com/crm#hunter2"),
        ("SCORES_WEBHOOK_URL", "https://example.com/crm hunter2"),
        ("SCORES_WEBHOOK_URL", "https://example.com:0/hunter2"),
        ("SCORES_WEBHOOK_URL", "https://example.com:hunter2/crm"),
        ("SCORES_WEBHOOK_URL", "https:///hunter2"),
        ("SCORES_WEBHOOK_SECRET", "hunter2"),
        ("SCORES_WEBHOOK_SECRET", "whsec_hunter2"),
        ("SCORES_WEBHOOK_SECRET", "whsec_aHVudGVyMg=="),
        ("SCORES_WEBHOOK_SECRET", WEBHOOK_SECRET.removeprefix("whsec_")),
        ("SCORES_WEBHOOK_SECRET", f"{WEBHOOK_SECRET},"),
        ("SENDGRID_PUBLIC_KEY", "hunter2"),
        ("SENDGRID_PUBLIC_KEY", PUBLIC_KEY[:40]),
        ("SENDGRID_PUBLIC_KEY", f"{PUBLIC_KEY}, hunter2"),
        ("SENDGRID_PUBLIC_KEY", " , "),
        ("SES_TOPIC_ARNS", " , "),
        ("SES_TOPIC_ARNS", "hunter2"),
        ("SES_TOPIC_ARNS", f"{TOPIC} {TOPIC}"),
        ("SES_TOPIC_ARNS", f"{TOPIC}, hunter2"),
        ("SES_TOPIC_ARNS", f"{TOPIC}:6b0e71bd-7e97-4d97-80ce-4a0994e55286"),
        ("SES_TOPIC_ARNS", TOPIC.replace(":sns:", ":sqs:")),
        ("SES_TOPIC_ARNS", TOPIC.replace("aws", "hunter2")),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A problem names its setting and never quotes the value, which may be a secret."""
    (found,) = problems(monkeypatch, **{name: value})
    assert found.startswith(f"{name}: ")
    assert "hunter2" not in found


def test_the_public_address_is_shown_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have a prefix, loses a slash at its end, and is refused with a hook token in it."""
    monkeypatch.setenv("PUBLIC_URL", "https://example.com:8443/relay/")
    assert load_settings().public_url == "https://example.com:8443/relay"
    (found,) = problems(monkeypatch, HOOK_TOKENS=TOKEN, PUBLIC_URL=f"https://example.com/{TOKEN}")
    assert found == "PUBLIC_URL: should have no hook token in it: it is shown"


def test_what_is_reconciled_is_ids_and_needs_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids come with commas and once each; without AudienceLab's key, or as whole URLs, they are a problem."""
    ids = {"RECONCILE_SEGMENTS": " a-1, b-2,a-1,, ", "RECONCILE_PIXELS": "p"}
    assert {problem.split(":")[0] for problem in problems(monkeypatch, **ids)} == set(ids)
    monkeypatch.setenv("AUDIENCELAB_API_KEY", "sk_test")
    settings = load_settings()
    assert settings.reconciled_segments() == ["a-1", "b-2"]
    assert settings.reconciled_pixels() == ["p"]
    wrong = {"RECONCILE_SEGMENTS": "https://example.com/a", "RECONCILE_PIXELS": "a b"}
    found = problems(monkeypatch, RECONCILE_EVERY_H="0", **wrong)
    assert {problem.split(":")[0] for problem in found} == {"RECONCILE_EVERY_H", *wrong}


def test_a_webhook_needs_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a secret is a problem; with both, each of several keys is one that signs."""
    (found,) = problems(monkeypatch, SCORES_WEBHOOK_URL="https://example.com/crm?key=hunter2")
    assert found.startswith("SCORES_WEBHOOK_SECRET: should be set beside SCORES_WEBHOOK_URL")
    assert "hunter2" not in found

    monkeypatch.setenv("SCORES_WEBHOOK_SECRET", f"{WEBHOOK_SECRET} , {WEBHOOK_SECRET}")
    settings = load_settings()
    assert settings.scores_webhook_url is not None
    assert settings.scores_webhook_url.get_secret_value() == "https://example.com/crm?key=hunter2"
    assert settings.webhook_keys() == [bytes(range(24))] * 2
    assert "hunter2" not in f"{settings!r} {settings.model_dump()}"
    assert WEBHOOK_SECRET not in f"{settings!r} {settings.model_dump()}"
    monkeypatch.delenv("SCORES_WEBHOOK_URL")
    monkeypatch.delenv("SCORES_WEBHOOK_SECRET")
    assert load_settings().webhook_keys() == []


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_topics_of_every_partition_are_accepted(
    monkeypatch: pytest.MonkeyPatch, partition: str
) -> None:
    """One topic or several, with commas and spaces as anybody writes them."""
    topics = f"{TOPIC.replace('aws', partition)} ,{TOPIC}-2.fifo,"
    monkeypatch.setenv("SES_TOPIC_ARNS", topics)
    assert load_settings().sender_secrets() == {"SES_TOPIC_ARNS": topics}


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:secret@192.0.2.1:6380/3",
        "rediss://example.com:6379/0?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://192.0.2.1:26379,192.0.2.2:26379/main/2",
        "redis+sentinel://user:secret@192.0.2.1:26379/main",
    ],
)
def test_every_form_of_redis_url_is_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Plain, TLS, socket and sentinel addresses are all good."""
    monkeypatch.setenv("REDIS_URL", url)
    settings = load_settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url


def test_choices_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """`softbounce` and `debug` mean what they say."""
    monkeypatch.setenv("DEFERRAL_AS", "softbounce")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    settings = load_settings()
    assert (settings.rules().deferral_as, settings.log_level) == ("SoftBounce", "DEBUG")


def test_an_empty_variable_beats_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment beats `.env`, also with an empty value, which means the default."""
    (tmp_path / ".env").write_text("AUDIENCELAB_API_KEY=from-file\nPORT=9\n", encoding="utf-8")
    assert load_settings().port == 9
    assert not load_settings().is_trial
    monkeypatch.setenv("AUDIENCELAB_API_KEY", "")
    monkeypatch.setenv("PORT", "")
    assert load_settings().port == 8000
    assert load_settings().is_trial


def test_a_file_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    """A damaged `.env` is told in a sentence, not as a traceback."""
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.problems[0].startswith(".env: cannot be read")


def test_no_secret_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings nor a token show a secret when printed."""
    monkeypatch.setenv("HOOK_TOKENS", TOKEN)
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@localhost/0")
    monkeypatch.setenv("AUDIENCELAB_API_KEY", "hunter2")
    settings = load_settings()
    shown = f"{settings!r} {settings} {settings.tokens()!r} {settings.model_dump()}"
    assert "hunter2" not in shown
    assert TOKEN not in shown


def test_a_token_may_belong_to_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """`source:token` is for that source, a bare token for all; spaces around do not matter."""
    monkeypatch.setenv("HOOK_TOKENS", f"{TOKEN}, pixel:{TOKEN}-2 ,")
    assert load_settings().tokens() == [
        HookToken(None, TOKEN),
        HookToken("pixel", f"{TOKEN}-2"),
    ]


def test_a_token_is_found_for_a_source() -> None:
    """To post to a source, its own token or one for all is taken, whichever stands first."""
    tokens = [HookToken("pixel", "p"), HookToken(None, "a")]
    assert token_for(tokens, "pixel") == "p"
    assert token_for(tokens, "events") == "a"
    assert token_for(tokens[:1], "events") is None


def test_tokens_come_from_the_home_when_unset() -> None:
    """Without HOOK_TOKENS the file of `relay up` is used; without both it is a problem."""
    settings = load_settings()
    with pytest.raises(SettingsError, match="HOOK_TOKENS"):
        settings.tokens()
    home = Home(settings.relay_home)
    home.make()
    made = home.make_token()
    assert settings.tokens() == [HookToken(None, made)]


def test_tokens_of_a_damaged_home_are_a_problem() -> None:
    """A broken file in RELAY_HOME is told like any other wrong setting."""
    settings = load_settings()
    home = Home(settings.relay_home)
    home.make()
    home.tokens_file.write_text("short\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="shorter than 16"):
        settings.tokens()
    home.tokens_file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="RELAY_HOME"):
        settings.tokens()


def test_a_running_trial_lends_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds the trial's Redis by the address file uses the trial's token."""
    monkeypatch.setenv("HOOK_TOKENS", TOKEN)
    settings = load_settings()
    home = Home(settings.relay_home)
    home.make()
    home.trial().make()
    made = home.trial().make_token()
    home.write_address(Address("unix:///x", home.trial().path, trial=True))
    assert settings.tokens() == [HookToken(None, made)]


def test_a_child_sees_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rendered environment gives equal settings again, whatever a `.env` says by then."""
    monkeypatch.setenv("REDIS_URL", "redis://localhost/1")
    monkeypatch.setenv("FORWARD_MAX_WAIT_S", "0.25")
    keys = f"{PUBLIC_KEY}, {PUBLIC_KEY}"  # while one takes over from the other
    monkeypatch.setenv("SENDGRID_PUBLIC_KEY", keys)
    settings = load_settings()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text("AUDIENCELAB_API_KEY=late\nENRICH=off\n", encoding="utf-8")
    assert load_settings() == settings
    assert settings.sender_secrets() == {"SENDGRID_PUBLIC_KEY": keys}


@pytest.fixture
def log_set_back() -> Iterator[None]:
    """Leave the log as it was: its new handler writes to a stderr that is gone with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("log_set_back")
def test_wrong_settings_end_a_process_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A main prints the list on stderr and exits 2; good settings come back."""
    assert made_of_settings(lambda settings: settings.port) == 8000
    monkeypatch.setenv("PORT", "high")
    monkeypatch.setenv("ENRICH", "maybe")
    with pytest.raises(SystemExit) as caught:
        made_of_settings(lambda settings: settings)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "PORT: " in shown.err
    assert "ENRICH: " in shown.err


@pytest.mark.usefixtures("log_set_back")
def test_a_process_without_redis_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no Redis is named and none runs here, a main prints the sentence and exits 2."""

    def make(settings: Settings) -> None:
        raise NoRedis("set REDIS_URL")

    with pytest.raises(SystemExit) as caught:
        made_of_settings(make)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "set REDIS_URL\n"


@given(st.text(max_size=60))
def test_any_text_is_tokens_or_a_value_error(text: str) -> None:
    """Whatever HOOK_TOKENS holds, each accepted token is long enough and fits into a URL."""
    try:
        tokens = parse_tokens(text)
    except ValueError:
        return
    assert tokens
    for each in tokens:
        assert len(each.token) >= 16
        assert each.token.isascii()
        assert not set(each.token) & set("/?#%&+,: ")


def test_data_lies_where_its_redis_is(tmp_path: Path) -> None:
    """Who finds a trial's Redis by the address file has the trial's home; with REDIS_URL it is RELAY_HOME."""
    home = Home(tmp_path / "home")
    home.make()
    settings = Settings.model_validate({"relay_home": home.path})
    assert settings.data_home().path == home.path
    trial = home.trial()
    home.write_address(Address("redis://127.0.0.1:1", trial.path, trial=True))
    assert settings.data_home().spill_dir == trial.spill_dir
    outside = Settings.model_validate({"relay_home": home.path, "redis_url": "redis://h:1"})
    assert outside.data_home().path == home.path
    home.address_file.write_text("not JSON")
    with pytest.raises(SettingsError, match="RELAY_HOME"):
        settings.data_home()
