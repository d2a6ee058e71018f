"""What a measurement found: figures, some of them with a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median


class WrongCount(Exception):
    """What came out is not what went in; speed no longer matters."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. *rounds* are the single measurements behind a median."""

    bench: str
    name: str
    value: float
    unit: str
    rounds: tuple[float, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None when there is none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None


def middle(
    bench: str,
    name: str,
    rounds: Iterable[float],
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """Return the figure that is the median of *rounds*."""
    numbers = tuple(rounds)
    return Figure(bench, name, median(numbers), unit, numbers, at_least, at_most)


def expect(what: str, found: float, wanted: float) -> None:
    """Raise `WrongCount` unless both are equal."""
    if found != wanted:
        raise WrongCount(f"{what}: {found:,g} instead of {wanted:,g}")
