"""Strangers: how often those who show no valid token are told why they are refused.

A guess costs the receiver as much as it costs the guesser, and leaves a line in the log. So each address and each
wrong token has a bucket of refusals; when it is empty the answer is 429 instead of the reason, and no line is
written. Whoever shows a valid token never comes here, whatever others behind the same address do: nothing that
could be stored is ever refused by this. Who shows no token at all (SNS and others send theirs only after a 401)
is always told 401.

An address is what the server takes for the peer's: a header of the request counts only where the server was told
to trust who sends it (`FORWARDED_ALLOW_IPS`). Of IPv6 it is the /64, which one host has to itself.

All buckets of a kind are one table of fixed size, found by a hash that is keyed anew in each process. Two that fall
on the same slot share it; then a stranger hears 429 a little sooner, which is all that can happen.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from ipaddress import IPv6Address
from math import ceil
from secrets import token_bytes
from time import monotonic

# Enough for somebody who sets up a sender and reads its log; a sender with a token that was taken out of the
# settings is still told the reason once a second.
BURST = 60
PER_S = 1.0
# Floats, so 64 KB a table: with a thousand busy strangers, one more finds his slot taken in one case of eight.
SLOTS = 8192


class Strangers:
    """The buckets of addresses and of wrong tokens, each as the moment at which it will be full again."""

    def __init__(self) -> None:
        self._every_s = 1 / PER_S
        self._reach_s = BURST / PER_S
        self._key = token_bytes(16)
        self._addresses = array("d", bytes(8 * SLOTS))
        self._tokens = array("d", bytes(8 * SLOTS))

    def wait_s(self, address: str, tokens: Iterable[bytes]) -> int:
        """Take one refusal from each bucket; return 0, or in how many seconds to come again when one is empty.

        What is refused so takes nothing: a flood does not keep its own bucket empty.
        """
        now = monotonic()
        places = [(self._addresses, self._slot(_network(address)))]
        places += [(self._tokens, self._slot(token)) for token in tokens]
        full_at = [max(table[slot], now) + self._every_s for table, slot in places]
        over_s = max(full_at) - now - self._reach_s
        if over_s > 0:
            return ceil(over_s)
        for (table, slot), moment in zip(places, full_at, strict=True):
            table[slot] = moment
        return 0

    def _slot(self, name: bytes) -> int:
        return int.from_bytes(blake2b(name, digest_size=4, key=self._key).digest(), "big") % SLOTS


def _network(address: str) -> bytes:
    if ":" in address:
        try:
            found = IPv6Address(address.partition("%")[0])
        except ValueError:
            pass
        else:  # a socket for both families tells an IPv4 address as a part of one network
            return found.packed if found.ipv4_mapped else found.packed[:8]
    return address.encode("utf-8", "surrogatepass")
