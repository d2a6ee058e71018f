"""Forms: what a page posts, believed only with its session's token, and refused while nothing may be changed."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from console.web.desk import desk_of

#: the hidden field that carries the session's token
TOKEN = "form_token"  # noqa: S105 - a name
#: the hidden field in which a page carries somebody's name along, sealed
NAME = "whom"


async def read_form(request: Request, *, changes: bool = True) -> FormData:
    """Return the fields of a form; raises `HTTPException` unless this session may post it.

    *changes*: whether it changes anything; looking for somebody does not.
    """
    desk = desk_of(request)
    form = await request.form(max_files=0, max_fields=1000)
    given = form.get(TOKEN)
    if not isinstance(given, str) or not desk.sessions.is_form_token(request.state.session, given):
        raise HTTPException(
            403, "This form belongs to another session. Reload the page and try again."
        )
    if changes and desk.settings.console_read_only:
        raise HTTPException(403, "CONSOLE_READ_ONLY is set: this page changes nothing.")
    return form


def word(form: FormData, name: str) -> str:
    """Return the text of the field *name*, trimmed; nothing when it is missing or a file."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""
