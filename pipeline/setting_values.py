"""What a setting may hold: each `check_...` returns the value, or raises a ValueError that never quotes it.

The values may be secrets, and the sentences are printed in one list by `settings`.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from pipeline.hook_tokens import MIN_TOKEN_LENGTH, parse_tokens

# what AudienceLab's ids have; a whole URL put in by mistake has more
_ID = re.compile(r"[\w.~:-]{1,200}", re.ASCII)
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel")


def check_tokens(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        parse_tokens(value.get_secret_value())
    return value


def check_console_token(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value()) < MIN_TOKEN_LENGTH:
        raise ValueError(f"should have at least {MIN_TOKEN_LENGTH} characters")
    return value


def ids_in(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def check_ids(value: str) -> str:
    if not all(_ID.fullmatch(each) for each in ids_in(value)):
        raise ValueError("should be ids with commas between them: letters, digits and - . _ ~ :")
    return value


def check_redis_url(value: SecretStr | None) -> SecretStr | None:
    """Refuse what redis-py would only trip over later, in words that do not show the password."""
    if value is None:
        return None
    parts = _split(value.get_secret_value())
    if parts is None or parts.scheme not in _REDIS_SCHEMES:
        raise ValueError("should begin with redis://, rediss://, unix:// or redis+sentinel://")
    if parts.scheme == "redis+sentinel":
        _check_sentinel(parts)
    elif parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("should name the socket: unix:///path/to/redis.sock")
    else:
        _check_host_port_db(parts)
    return value


def _check_host_port_db(parts: SplitResult) -> None:
    try:
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host or not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError(f"should have the form {parts.scheme}://[user:password@]host[:port][/db]")


def _check_sentinel(parts: SplitResult) -> None:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not all(re.fullmatch(r"[^:,\s]+:\d{1,5}", host) for host in hosts) or not re.fullmatch(
        r"/[^/]+(/\d+)?", parts.path
    ):
        raise ValueError(
            "should have the form redis+sentinel://[user:password@]host:port,host:port/master[/db]"
        )


def check_base_url(value: str) -> str:
    parts = _split(value)
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError("should be an http:// or https:// address without user, query or fragment")
    return value.rstrip("/")


def check_public_url(value: str | None) -> str | None:
    """Refuse a whole hook URL: it would be shown, and it is the token that opens it."""
    if value is None:
        return None
    checked = check_base_url(value)
    if not re.fullmatch(r"https?://[\w.\[\]:-]+(/[\w./~%-]*)?", checked, re.ASCII):
        raise ValueError("should be https://host, with a prefix at most: https://host/prefix")
    if "/hooks" in urlsplit(checked).path:
        raise ValueError("should be what stands before /hooks, without source and token")
    return checked


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def check_webhook_url(value: SecretStr | None) -> SecretStr | None:
    """Refuse what cannot be posted to, without showing it: such an address may be a secret by itself."""
    if value is None:
        return None
    url = value.get_secret_value()
    parts = _split(url) if re.fullmatch(r"[!-~]+", url) else None
    try:
        is_usable = (
            parts is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not parts.fragment
            and "@" not in parts.netloc
        )
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("should be an http:// or https:// address without user or fragment")
    return value


def parse_webhook_keys(text: str) -> list[bytes]:
    """Read comma-separated `whsec_` keys, as Standard Webhooks writes them; a ValueError never quotes."""
    keys = []
    for item in (part.strip() for part in text.split(",")):
        try:
            key = base64.b64decode(item.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not item.startswith("whsec_") or not 24 <= len(key) <= 64:
            raise ValueError(
                "should be whsec_ and the base64 of 24 to 64 bytes, several with commas; make one with"
                " `python -c 'import base64, secrets;"
                ' print("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())\'`'
            )
        keys.append(key)
    return keys


def check_webhook_keys(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        parse_webhook_keys(value.get_secret_value())
    return value


def check_path(value: str) -> str:
    if not re.fullmatch(r"/[^\s?#]*", value):
        raise ValueError("should be a path that begins with / and has no query")
    return value


def check_ec_key(value: SecretStr | None) -> SecretStr | None:
    """Refuse now what would otherwise refuse every delivery of this sender later."""
    if value is None:
        return None
    keys = [key for key in value.get_secret_value().split(",") if key.strip()]
    if not keys or not all(map(_is_ec_key, keys)):
        raise ValueError(
            "holds something that is not a public key of SendGrid's kind; copy the verification key from its page"
        )
    return value


def _is_ec_key(text: str) -> bool:
    # imported here: only a process that has such a key pays for loading OpenSSL
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    body = re.sub(r"-----[A-Z ]+-----|\s|\\n", "", text)
    try:
        key = load_der_public_key(base64.b64decode(body, validate=True))
    except Exception:
        return False
    return isinstance(key, EllipticCurvePublicKey)


def check_topics(value: SecretStr | None) -> SecretStr | None:
    """Refuse now what would otherwise refuse every message of this topic later."""
    if value is None:
        return None
    # imported here: only a process that has topics pays for loading OpenSSL
    from pipeline.sources.sns import is_topic, topics_in

    topics = topics_in(value.get_secret_value())
    if not topics or not all(is_topic(topic) for topic in topics):
        raise ValueError(
            "should be the ARNs of topics, with commas between them, each as SNS shows it:"
            " arn:aws:sns:region:account:name"
        )
    return value
