"""The veil: what somebody can be reached by is masked until it is asked for.

`ada@example.com` is shown as `a…@example.com`, and of a number the last two digits, also inside other texts: a page's
URL, a title, a field. Streets, IP addresses and profiles in networks are known by the names of their fields; names,
towns and what somebody does are shown: an operator must know whom a page is about. Too much is masked rather than
too little; who needs the original asks, and is written down. A text is split into words first, so that a long one
costs linear time, and of a very long one the beginning is enough: no page shows more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

#: what a page masks, or does not mask, its texts with
Veil = Callable[[object], str]

GAP = "\u2026"
#: of a text; a page shows less
LONGEST = 20_000
#: of so few digits the last two would tell much
_FEW = 5
# what ends an address, as a rule; one that holds any of it is known as a whole, or its end is masked
_ENDS = ' \t\n<>()[],;:"/?&=#'
_PART = rf"[^\s{re.escape(_ENDS)}]+"
_WORD = re.compile(rf'"[^"]{{0,64}}"@{_PART}|{_PART}')
_AT = re.compile(r"@|%(?:25){0,3}40|\uff20|\ufe6b|\\u0040", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#0{0,6}64|#x0{0,6}40|commat);", re.IGNORECASE)
# between the digits of a number, also in a URL
_BETWEEN = r"(?:[\s().+/-]|%2[089BDF]){0,3}"
_NUMBER = re.compile(
    # an id or a hash, a day, an American postcode: left as they are
    r"(?P<other>(?<!\w)(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?!\w)|[0-9a-f]{32,64}(?!\w)"
    r"|\d{4}-\d\d-\d\d(?!\d)|\d{5}-\d{4}(?![\w-])))"
    rf"|(?:(?<![0-9A-Za-z])|(?<=%[0-9A-F]{{2}}))\d(?:{_BETWEEN}\d){{7,14}}(?![0-9A-Za-z])",
    re.IGNORECASE,
)
# columns of AudienceLab's, and whatever else is called like them
_OF_NUMBERS = re.compile(r"PHONE|MOBILE|LANDLINE|WIRELESS|DIRECT_NUMBER|FAX", re.IGNORECASE)
# a postcode of nine digits is a street's; of a company's profile everybody may know
_OF_PLACES = re.compile(
    r"ADDRESS|STREET|ZIP_?4|IBAN|(?:^|_)(?:IP|IP_?V[46]|ADDR|FORWARDED|FORWARDED_FOR)(?:$|_)",
    re.IGNORECASE,
)
_OF_PROFILES = re.compile(
    r"(?<!COMPANY_)(?:LINKEDIN|TWITTER|FACEBOOK|INSTAGRAM|SKYPE|TIKTOK|TELEGRAM|WHATSAPP)",
    re.IGNORECASE,
)
# between the words of a name: `clientIp`, `data[ip_opt]`
_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\[\].\s-]+")
_SITE = re.compile(r"(?:https?://)?([\w-]+(?:\.[\w-]+)+)/", re.IGNORECASE)


def clear(text: object) -> str:
    """Return *text* as it is."""
    return str(text)


def veil(
    addresses: Iterable[str] = (), numbers: Iterable[str] = (), places: Iterable[str] = ()
) -> Veil:
    """Return what masks a text about somebody with these *addresses*, telephone *numbers* and *places*."""
    # only what is not found as it is; a short number would be found in every other one
    masks = {
        each.lower(): mask_address(each)
        for each in addresses
        if _AT.search(each) and not _WORD.fullmatch(each)
    }
    masks |= {
        each.lower(): mask_number(each)
        for each in numbers
        if _digits(each) > _FEW and not _NUMBER.fullmatch(each)
    }
    masks |= {each.lower(): GAP for each in places if len(each) > _FEW}
    longest_first = sorted(masks, key=len, reverse=True)
    known = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if masks else None

    def masked(text: object) -> str:
        plain = _ENTITY.sub("@", beginning(str(text)))
        if known is not None:
            plain = known.sub(lambda found: masks.get(found[0].lower(), GAP), plain)
        return _NUMBER.sub(_masked_number, _WORD.sub(_masked_word, plain))

    return masked


def mask_address(address: str) -> str:
    """Return *address* with the first letter and the domain only; of one letter nothing is left."""
    found = list(_AT.finditer(address))
    if not found:
        return address
    local, domain = address[: found[0].start()].lstrip(GAP), address[found[-1].end() :]
    return f"{local[0] if len(local) > 1 else ''}{GAP}@{domain}"


def mask_number(number: str) -> str:
    """Return the last two digits of *number*, and that there are others; a text without digits is none."""
    digits = [sign for sign in number if sign.isdigit()]
    if not digits:
        return number
    return GAP + ("".join(digits[-2:]) if len(digits) > _FEW else "")


def is_place(field: str) -> bool:
    """Tell whether the *field* of that name says where somebody lives, works or is on the net."""
    return _OF_PLACES.search(words(field)) is not None


def tells_how_to_reach(field: str) -> bool:
    """Tell whether `mask_field` masks what stands in the *field* of that name."""
    name = words(field)
    return any(each.search(name) for each in (_OF_NUMBERS, _OF_PLACES, _OF_PROFILES))


def words(field: str) -> str:
    """Return the name of a field with `_` between its words: `client_Ip` for `clientIp`."""
    return _BETWEEN_WORDS.sub("_", field)


def mask_field(field: str, text: str) -> str:
    """Return the *text* of a *field*, masked as a whole where the field's name says that somebody is reached by it."""
    name = words(field)
    if _OF_NUMBERS.search(name):
        return ", ".join(map(mask_number, text.split(",")))
    if _OF_PLACES.search(name):
        return GAP if text.strip() else text
    if _OF_PROFILES.search(name) and text.strip():
        site = _SITE.match(text.strip())
        return f"{site[1]}/{GAP}" if site else GAP
    return text


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def beginning(text: str) -> str:
    """Return as much of *text* as is looked at, without a word whose end is not: it may be half an address."""
    if len(text) <= LONGEST:
        return text
    cut = text[:LONGEST]
    return cut[: max(map(cut.rfind, _ENDS)) + 1] + GAP


def _masked_word(found: re.Match[str]) -> str:
    # an address that was masked already is masked once more, to the same
    return mask_address(found[0])


def _masked_number(found: re.Match[str]) -> str:
    return found[0] if found["other"] else mask_number(found[0])
