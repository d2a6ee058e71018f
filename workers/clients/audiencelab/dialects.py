"""The two forms that several of AudienceLab's calls have, and which of them the service speaks.

*Observed* is what the vendor's pages (docs.audiencelab.io), live answers and clients agree on;
*documented* is the API reference of December 2025, whose calls differ in paths and names. Which one
a service speaks is known only by asking: a form it does not know is answered 400 "Unknown Field",
404 or 405, and then nothing was done, so that the other form can be tried at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from workers.clients.errors import CallFailed, NotFound, UnknownField

T = TypeVar("T")

AUTO = "auto"


class Dialect(StrEnum):
    """A form of a call."""

    OBSERVED = "observed"
    DOCUMENTED = "documented"


class Dialects:
    """Chooses a form for each call and remembers, by the call's name, which one worked.

    *mode* is `auto`, `observed` or `documented`. `auto` begins with what *worked* before, else with
    the observed form, and tries the other when the service does not know the first. A fixed mode
    tries one form only; a call that has no such form goes out in the only one it has. *learned* is
    told each time another form than before has worked: its call's name and the dialect.
    """

    def __init__(
        self,
        mode: str = AUTO,
        worked: Mapping[str, str] | None = None,
        learned: Callable[[str, str], None] | None = None,
    ) -> None:
        if mode not in (AUTO, *Dialect):
            raise ValueError("a dialect is auto, observed or documented")
        self._mode = mode
        self._learned = learned
        known = {each.value for each in Dialect}
        self._worked = {
            call: Dialect(name) for call, name in (worked or {}).items() if name in known
        }

    @property
    def worked(self) -> dict[str, str]:
        """Which form worked last, by the name of the call."""
        return {call: dialect.value for call, dialect in self._worked.items()}

    async def speak(
        self,
        call: str,
        forms: Mapping[Dialect, Callable[[], Awaitable[T]]],
        *,
        differ_in_values: bool = False,
    ) -> T:
        """Return what the first of *forms* answers that the service knows.

        A failure that is not about the form is raised as it is, whichever form it was: the service
        knows that one. When it knows none, an id that one form does not know is `NotFound`, a
        refusal (400) tells more than an unknown path (404, 405), and of two alike the first is
        raised. Forms that *differ in values* have the same path and keys, so that any 400 may be
        about the form.
        """
        failures: list[CallFailed] = []
        for dialect in self._order(call, forms):
            try:
                result = await forms[dialect]()
            except CallFailed as failed:
                if not _is_unknown_form(failed) and not (differ_in_values and failed.status == 400):
                    raise
                failures.append(failed)
            else:
                if len(forms) > 1:
                    self.learn(call, dialect)
                return result
        raise min(failures, key=lambda failed: (type(failed) is not NotFound, failed.status != 400))

    def known(self, call: str) -> Dialect | None:
        """Return the form of *call* that is chosen, or has worked; None while nobody knows."""
        return self._worked.get(call) if self._mode == AUTO else Dialect(self._mode)

    def _order(self, call: str, forms: Mapping[Dialect, object]) -> list[Dialect]:
        """Return the forms to try, the first one first."""
        if self._mode != AUTO:
            chosen = Dialect(self._mode)
            return [chosen] if chosen in forms else list(forms)[:1]
        first = self._worked.get(call, Dialect.OBSERVED)
        return sorted(forms, key=lambda dialect: dialect is not first)

    def learn(self, call: str, dialect: Dialect) -> None:
        """Remember the form in which *call* works, for as long as no other one does."""
        if self._worked.get(call) is dialect:
            return
        self._worked[call] = dialect
        if self._learned is not None:
            self._learned(call, dialect.value)


def _is_unknown_form(failed: CallFailed) -> bool:
    """Whether the service does not know this form of the call, so that nothing was done."""
    return isinstance(failed, UnknownField) or failed.status in (404, 405)
