"""What `relay doctor` finds at the vendors, without sending them anybody's data: name, TLS, whether the key is taken.

The key is tried by a call that only reads. AudienceLab is asked for one pixel of its list. AudiencePoint has no call
without an address, so it is asked for the scores of one that nobody can have (of the domain `invalid`, RFC 2606), as
a hash: the gateway looks at the key first, and a path that is wrong is told apart from it. Each costs one request of
the vendor's rate or quota, beside what the workers are allowed. Nobody waits longer than `WITHIN_S` for any of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from console.findings import Finding, bad, ok, warn
from pipeline import loopback

if TYPE_CHECKING:
    from pydantic import SecretStr

    from pipeline.settings import Settings

#: of each of the three steps
WITHIN_S = 10.0
#: most authorities renew a month before; who is this late has forgotten it
CERTIFICATE_LEFT_D = 14
NOBODY = "doctor@relay.invalid"

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class _Vendor:
    """One vendor, and the call that tries its key."""

    name: str
    url: str
    key: SecretStr
    ask: Callable[[Settings, SecretStr], Awaitable[str]]


async def of_vendors(settings: Settings) -> list[Finding]:
    """Return what is found at each vendor whose key is set, all of them asked beside each other."""
    found = await asyncio.gather(*(_of(settings, vendor) for vendor in _vendors(settings)))
    return [finding for findings in found for finding in findings]


def _vendors(settings: Settings) -> Iterator[_Vendor]:
    lab, point = settings.audiencelab_api_key, settings.audiencepoint_api_key
    if lab is not None:
        yield _Vendor("AudienceLab", settings.audiencelab_base_url, lab, _ask_audiencelab)
    if point is not None:
        yield _Vendor("AudiencePoint", settings.audiencepoint_base_url, point, _ask_audiencepoint)


async def _of(settings: Settings, vendor: _Vendor) -> list[Finding]:
    """Look at one vendor, step by step: the first that fails explains the next ones."""
    parts = urlsplit(vendor.url)
    findings: list[Finding] = []
    if _is_reached_by_proxy(parts.scheme, parts.hostname or ""):
        findings.append(ok(f"{vendor.name} name", "left to the proxy of the environment"))
    else:
        for look in (_name, _tls):
            if (finding := await look(vendor)) is not None:
                findings.append(finding)
                if finding.state == "bad":
                    return findings
    return [*findings, await _key(settings, vendor)]


def _is_reached_by_proxy(scheme: str, host: str) -> bool:
    proxies = getproxies()
    has_one = bool(proxies.get(scheme) or proxies.get("all"))
    return has_one and host not in loopback.HOSTS and not proxy_bypass(host)


async def _name(vendor: _Vendor) -> Finding:
    check, parts = f"{vendor.name} name", urlsplit(vendor.url)
    host, setting = parts.hostname or "", f"{vendor.name.upper()}_BASE_URL"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(WITHIN_S):
            found = await loop.getaddrinfo(host, _port(vendor), type=socket.SOCK_STREAM)
    except TimeoutError:
        return bad(check, f"no answer about {host} in {WITHIN_S:g} s", "look at the resolver")
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or "it is no host name"
        return bad(check, f"{host} is not found: {words}", f"look at {setting} and the resolver")
    count = len({each[4][0] for each in found})
    return ok(check, f"{host}: {count} address{'es' if count > 1 else ''}")


async def _tls(vendor: _Vendor) -> Finding | None:
    """Shake hands and hang up; None where there is no TLS, on loopback."""
    import httpx

    check, parts = f"{vendor.name} TLS", urlsplit(vendor.url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        if host in loopback.HOSTS:
            return None
        found = f"{vendor.url}: the key and addresses travel in the clear"
        return bad(check, found, f"set {vendor.name.upper()}_BASE_URL to https")
    try:
        async with asyncio.timeout(WITHIN_S):
            _, writer = await asyncio.open_connection(
                host, _port(vendor), ssl=httpx.create_ssl_context(), server_hostname=host
            )
    except ssl.SSLCertVerificationError as error:
        do = "look at what stands between, the clock, and the certificates of this machine"
        return bad(check, f"its certificate is not believed: {error.verify_message}", do)
    except ssl.SSLError as error:
        return bad(check, f"no agreement: {error.reason}", "look at what stands between")
    except TimeoutError:
        return bad(check, f"no answer in {WITHIN_S:g} s", "look at the firewall")
    except OSError as error:
        return bad(check, f"no connection: {error.strerror or error}", "look at the firewall")
    try:
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return _certificate(check, secured)
    finally:
        writer.transport.abort()


def _certificate(check: str, secured: ssl.SSLObject) -> Finding:
    certificate = secured.getpeercert() or {}
    ends = str(certificate.get("notAfter", ""))
    left_d = (ssl.cert_time_to_seconds(ends) - time()) / _DAY_S
    told = f"{secured.version()}, certificate until {ends}"
    if left_d < CERTIFICATE_LEFT_D:
        do = "tell the vendor, or whoever runs what stands between"
        return warn(check, f"{told}: {left_d:.0f} days", do)
    return ok(check, told)


async def _key(settings: Settings, vendor: _Vendor) -> Finding:
    """Make the call that reads. What it refuses is told in the words of the client, without the key."""
    from console.vendors import hidden
    from workers.clients.errors import CallFailed, Misconfigured, QuotaExceeded, Rejected

    check, setting = f"{vendor.name} key", f"{vendor.name.upper()}_API_KEY"
    try:
        async with asyncio.timeout(WITHIN_S):
            return ok(check, await vendor.ask(settings, vendor.key))
    except TimeoutError:
        return bad(
            check, f"no answer in {WITHIN_S:g} s", "its stages wait; look at the vendor's status"
        )
    except ValueError:
        return bad(check, "it cannot stand in a header", f"look at {setting} for stray characters")
    except CallFailed as failed:
        words = hidden(failed.sentence, settings)
        if isinstance(failed, Rejected):  # who refuses what was asked has taken the key
            return ok(check, f"taken; the question was not: {words}")
        if isinstance(failed, QuotaExceeded):
            return warn(check, words, "its stages wait until then; ask the vendor for more")
        if isinstance(failed, Misconfigured):
            return bad(check, words, "correct what it names")
        return bad(check, words, "its stages wait and go on by themselves; nothing is lost")


async def _ask_audiencelab(settings: Settings, key: SecretStr) -> str:
    from workers.clients import audiencelab
    from workers.clients.audiencelab import AudienceLab
    from workers.clients.http import VendorHttp, new_client

    async with new_client() as connections:
        headers = audiencelab.headers(key.get_secret_value())
        http = VendorHttp(audiencelab.VENDOR, settings.audiencelab_base_url, headers, connections)
        await AudienceLab(http).list_pixels(1, 1)
    return "taken: it lists the account's pixels"


async def _ask_audiencepoint(settings: Settings, key: SecretStr) -> str:
    from workers.clients.http import new_client
    from workers.vendors import audiencepoint_client

    async with new_client() as connections:
        await audiencepoint_client(settings, key, connections).scores([NOBODY], hashed=True)
    return "taken: it answered about an address that nobody has"


def _port(vendor: _Vendor) -> int:
    parts = urlsplit(vendor.url)
    return parts.port or (443 if parts.scheme == "https" else 80)
