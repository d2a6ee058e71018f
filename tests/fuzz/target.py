"""One thing that is fuzzed: what is drawn, and what must hold of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

Drawn = Mapping[str, Any]


@dataclass(slots=True)
class Target:
    """*hold* is called with what *drawn* draws; it returns when all is well. *ran* counts."""

    name: str
    drawn: st.SearchStrategy[Drawn]
    hold: Callable[..., None]
    ran: int = 0

    def run(self, number: int, examples: int) -> None:
        """Try *examples* drawn from seed *number*; raises what failed, with the smallest example in its notes."""

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(self.drawn)
        def example(drawn: Drawn) -> None:
            self.ran += 1
            self.hold(**drawn)

        example()
