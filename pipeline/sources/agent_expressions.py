"""The first of ua-parser's expressions that matches a user agent, without trying all of them.

ua-parser tries one after the other, of several hundred; the slowest look for robots, which hardly anybody is. But
nearly every expression can match only where certain words stand. They are found in its own text, once, and
whether they stand in an agent is seen far faster than whether the expression matches. What may go wrong: a word
that is not needed after all would hide a match. So only plain ASCII letters count, and only where nothing
around them may be left out; an agent with other letters is shown to every expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

Found_co = TypeVar("Found_co", covariant=True)
Found = TypeVar("Found")

#: of which a text must hold one, in lower case; empty: nobody knows
Words = frozenset[str]

_BEGINNING = 3

# how `re` itself reads an expression; private to it, and the same since Python 3.11
_parse: Callable[[str], Any] = import_module("re._parser").parse


class Matcher(Protocol[Found_co]):
    """One expression of ua-parser's, and what it tells of an agent that it matches."""

    @property
    def regex(self) -> str:
        """The expression."""

    def __call__(self, ua: str, /) -> Found_co | None:
        """Return what *ua* is; None when it does not match."""


class Expressions(Generic[Found]):
    """Expressions in the order in which they are tried."""

    def __init__(self, matchers: Iterable[Matcher[Found]]) -> None:
        self._matchers = list(matchers)
        # by their beginnings, of which a text has fewer than there are words
        self._words: dict[str, list[str]] = {}
        self._places: dict[str, list[int]] = {}
        for place, matcher in enumerate(self._matchers):
            for word in needed_words(matcher.regex) or {""}:
                self._places.setdefault(word, []).append(place)
        for word in self._places:
            self._words.setdefault(word[:_BEGINNING], []).append(word)
        self._short = [word for word in self._places if len(word) < _BEGINNING]

    def first(self, text: str) -> Found | None:
        """Return what the first expression that matches *text* tells."""
        for place in self._worth_trying(text):
            if (found := self._matchers[place](text)) is not None:
                return found
        return None

    def _worth_trying(self, text: str) -> Iterable[int]:
        if not text.isascii():
            return range(len(self._matchers))
        lower = text.lower()
        beginnings = {lower[at : at + _BEGINNING] for at in range(len(lower) - _BEGINNING + 1)}
        words = {*self._short}.union(*map(self._words.__getitem__, self._words.keys() & beginnings))
        return sorted({place for word in words if word in lower for place in self._places[word]})


def needed_words(expression: str) -> Words:
    """Return words of which one stands, in any case, in every ASCII text that *expression* matches."""
    return _needed(_parse(expression))


def _needed(parts: Iterable[Any]) -> Words:
    best, run = Words(), ""
    for operation, value in parts:
        if letter := _letter(operation.name, value):
            run += letter
            continue
        best = max(best, _words(run), _inside(operation.name, value), key=_worth)
        run = ""
    return max(best, _words(run), key=_worth)


def _words(run: str) -> Words:
    return Words([run]) if run else Words()


def _worth(words: Words) -> tuple[int, int]:
    # short ones stand everywhere, and each costs a look
    return min(map(len, words), default=0), -len(words)


def _letter(operation: str, value: Any) -> str:
    """Return the letter that must stand here, in lower case; also `[Bb]` is one."""
    if operation == "LITERAL":
        return chr(value).lower() if value < 128 else ""
    if operation == "IN" and all(kind.name == "LITERAL" and one < 128 for kind, one in value):
        letters = {chr(one).lower() for _, one in value}
        return letters.pop() if len(letters) == 1 else ""
    return ""


def _inside(operation: str, value: Any) -> Words:
    """Return the words that a group needs, an alternative of every branch, or what is repeated at least once."""
    if operation == "SUBPATTERN":
        return _needed(value[3])
    if operation == "BRANCH":
        branches = [_needed(branch) for branch in value[1]]
        return Words().union(*branches) if all(branches) else Words()
    if operation in ("MAX_REPEAT", "MIN_REPEAT") and value[0]:
        return _needed(value[2])
    return Words()
