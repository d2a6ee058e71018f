"""Sessions: who has shown CONSOLE_TOKEN, kept in a signed cookie, and the token that each form of theirs carries.

It also seals the names that a page's forms carry along, which its source is not to show.

Nothing is kept here: the cookie says when it was made, and is believed for `KEPT_S`. It is signed with CONSOLE_TOKEN,
so that another token ends all sessions, and several processes know the same ones. Without CONSOLE_TOKEN everybody on
this machine has a session; it still ties forms to the page that they came from.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from cryptography.fernet import Fernet, InvalidToken
from itsdangerous import BadData, Signer, URLSafeTimedSerializer

#: a working day: who is on call at night logs in once
KEPT_S = 12 * 3600
COOKIE = "relay_console"


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in."""

    id: str


class Sessions:
    """Begins sessions and knows them again."""

    def __init__(self, console_token: str | None) -> None:
        self._token = console_token
        key = console_token or secrets.token_urlsafe(32)
        self._cookies = URLSafeTimedSerializer(key, salt="session")
        self._forms = Signer(key, salt="form")
        self._sentences = URLSafeTimedSerializer(key, salt="said")
        self._names = Fernet(urlsafe_b64encode(sha256(b"names\n" + key.encode()).digest()))

    @property
    def need_token(self) -> bool:
        """Whether a session begins with CONSOLE_TOKEN, and not with the first look."""
        return self._token is not None

    def is_token(self, given: str) -> bool:
        """Tell whether *given* is CONSOLE_TOKEN."""
        return self._token is not None and compare_digest(given.encode(), self._token.encode())

    def begin(self) -> Session:
        """Return a new session."""
        return Session(secrets.token_urlsafe(16))

    def cookie(self, session: Session) -> str:
        """Return what the browser keeps of *session*."""
        return self._cookies.dumps(session.id)

    def read(self, cookie: str) -> Session | None:
        """Return the session of *cookie*; None for one that is not ours, or has ended."""
        try:
            found = self._cookies.loads(cookie, max_age=KEPT_S)
        except BadData:
            return None
        return Session(found) if isinstance(found, str) else None

    def form_token(self, session: Session) -> str:
        """Return what every form shown to *session* carries."""
        return self._forms.get_signature(session.id).decode()

    def is_form_token(self, session: Session, given: str) -> bool:
        """Tell whether a form that carries *given* was shown to *session*."""
        return compare_digest(given.encode(), self.form_token(session).encode())

    def say(self, sentence: str) -> str:
        """Return a cookie by which the next page tells *sentence*."""
        return self._sentences.dumps(sentence[:500])

    def said(self, cookie: str) -> str | None:
        """Return the sentence of a cookie that `say` made within the last minute."""
        try:
            return str(self._sentences.loads(cookie, max_age=60))
        except BadData:
            return None

    def seal(self, name: str) -> str:
        """Return *name* as nobody but a console with this token can read it."""
        return self._names.encrypt(name.encode("utf-8", "surrogatepass")).decode()

    def unseal(self, sealed: str) -> str | None:
        """Return the name in what `seal` made; None for anything else."""
        try:
            return self._names.decrypt(sealed).decode("utf-8", "surrogatepass")
        except (InvalidToken, ValueError):
            return None
