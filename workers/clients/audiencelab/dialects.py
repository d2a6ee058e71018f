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

from workers.clients.errors import CallFailed, NotFound, QuotaExceeded, Unavailable, UnknownField

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

        When it knows none, the first failure of the observed form is raised; but where the other
        form could not be tried now (time-out, 429, 5xx), that is raised: nobody knows yet. An id
        that one form does not know, where the other form is not known, is `NotFound`.
        Forms that *differ in values* have the same path and keys, so that any 400 may be about the
        form.
        """
        failures: dict[Dialect, CallFailed] = {}
        for dialect in self._order(call, forms):
            try:
                result = await forms[dialect]()
            except (Unavailable, QuotaExceeded):
                raise
            except CallFailed as failed:
                is_unknown = _is_unknown_form(failed) or (differ_in_values and failed.status == 400)
                if not failures and not is_unknown:
                    raise
                failures[dialect] = failed
            else:
                if len(forms) > 1:
                    self._remember(call, dialect)
                return result
        unknown = [failed for failed in failures.values() if isinstance(failed, NotFound)]
        first = failures.get(Dialect.OBSERVED) or next(iter(failures.values()))
        raise unknown[0] if unknown else first

    def _order(self, call: str, forms: Mapping[Dialect, object]) -> list[Dialect]:
        """Return the forms to try, the first one first."""
        if self._mode != AUTO:
            chosen = Dialect(self._mode)
            return [chosen] if chosen in forms else list(forms)[:1]
        first = self._worked.get(call, Dialect.OBSERVED)
        return sorted(forms, key=lambda dialect: dialect is not first)

    def _remember(self, call: str, dialect: Dialect) -> None:
        if self._worked.get(call) is dialect:
            return
        self._worked[call] = dialect
        if self._learned is not None:
            self._learned(call, dialect.value)


def _is_unknown_form(failed: CallFailed) -> bool:
    """Whether the service does not know this form of the call, so that nothing was done."""
    return isinstance(failed, UnknownField) or failed.status in (404, 405)
