"""The first of ua-parser's expressions that matches a user agent, without trying all of them.

ua-parser tries one after the other, of several hundred; the slowest look for robots, which hardly anybody is. But
nearly every expression can match only where certain words stand. They are found in its own text, once, and
whether they stand in an agent is seen far faster than whether the expression matches. What may go wrong: a word
that is not needed after all would hide a match. So only plain ASCII letters and signs count, and only where nothing
around them may be left out; an agent with other letters is shown to every expression.

Most agents differ from each other in their versions only. Words have no digits, so what is worth trying is found once
for all of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

Found_co = TypeVar("Found_co", covariant=True)
Found = TypeVar("Found")

#: of which a text must hold one, in lower case
Words = frozenset[str]

_DIGITS = re.compile(r"[0-9]+")
#: of agents without their versions, about as many as there are models of telephones
MOST_KINDS = 4096

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
        self._needs = [(matcher, needed_words(matcher.regex)) for matcher in matchers]
        self._worth_trying = lru_cache(MOST_KINDS)(self._that_may_match)

    def first(self, text: str) -> Found | None:
        """Return what the first expression that matches *text* tells."""
        kind = without_versions(text) if text.isascii() else None
        for matcher in self._worth_trying(kind):
            if (found := matcher(text)) is not None:
                return found
        return None

    def _that_may_match(self, kind: str | None) -> Sequence[Matcher[Found]]:
        """Return the expressions whose words stand in *kind*, an agent in lower case; all of them without one."""
        return [
            matcher
            for matcher, needs in self._needs
            if kind is None or all(any(word in kind for word in words) for words in needs)
        ]


@lru_cache(maxsize=16)  # asked a few times for each agent
def without_versions(text: str) -> str:
    """Return *text* in lower case, with a 0 for every number: the same for all versions of a program."""
    return _DIGITS.sub("0", text.lower())


def needed_words(expression: str) -> list[Words]:
    """Return what stands, in any case, in every ASCII text that *expression* matches: one word of each set."""
    return _needed(_parse(expression))


def _needed(parts: Iterable[Any]) -> list[Words]:
    found: list[Words] = []
    run = ""
    for operation, value in parts:
        if letter := _letter(operation.name, value):
            run += letter
            continue
        found += [*_words(run), *_inside(operation.name, value)]
        run = ""
    return [*found, *_words(run)]


def _words(run: str) -> list[Words]:
    return [Words([run])] if run else []


def _letter(operation: str, value: Any) -> str:
    """Return the letter or sign that must stand here, in lower case; also `[Bb]` is one, a digit is none."""
    if operation == "LITERAL":
        letters = {chr(value).lower()}
    elif operation == "IN" and all(kind.name == "LITERAL" for kind, _ in value):
        letters = {chr(one).lower() for _, one in value}
    else:
        return ""
    letter = letters.pop()
    return "" if letters or not letter.isascii() or letter.isdigit() else letter


def _inside(operation: str, value: Any) -> list[Words]:
    """Return what a group needs, what is repeated at least once, or one word of every branch."""
    if operation == "SUBPATTERN":
        return _needed(value[3])
    if operation == "BRANCH":
        branches = [_needed(branch) for branch in value[1]]
        return (
            [Words().union(*(max(each, key=_worth) for each in branches))] if all(branches) else []
        )
    if operation in ("MAX_REPEAT", "MIN_REPEAT") and value[0]:
        return _needed(value[2])
    return []


def _worth(words: Words) -> tuple[int, int]:
    # short ones stand everywhere, and each costs a look
    return min(map(len, words)), -len(words)
