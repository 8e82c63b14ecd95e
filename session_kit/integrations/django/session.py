"""The session behind Django's API, and how one is opened by a key of Django's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from session_kit.integrations.django.expiry import EXPIRY
from session_kit.integrations.django.settings import manager, options
from session_kit.manager import Cookies
from session_kit.session import Session

if TYPE_CHECKING:
    from typing import Self

LONGEST_KEY = 300
"""Letters: a name of 256, a `~` and a token. No longer text is looked for."""


class DjangoSession(Session[Any]):
    """A session whose cookie ends with the browser if Django's `set_expiry(0)` says so."""

    __slots__ = ()

    @property
    def persistent(self) -> bool | None:
        expiry = self.get(EXPIRY)
        return super().persistent if expiry is None else expiry != 0

    def remember(self, days: float | None = None) -> Self:
        """As of any `Session`; what `set_expiry` said before does not count any more."""
        super().remember(days)
        self.pop(EXPIRY, None)
        return self

    async def aremember(self, days: float | None = None) -> Self:
        await super().aremember(days)
        self.pop(EXPIRY, None)
        return self


def open_session(key: str | None = None, cookies: Cookies | None = None) -> DjangoSession:
    """Return the session of an id (`name~token`), of the signed value of a cookie, or of the cookies of a request.

    One that is opened by a key gets no new id by itself when somebody logs in: nobody may be there to send it. Django's
    `login` asks for one (`cycle_key`).
    """
    # On an event loop it is to be used by the methods with an `a`; anywhere else by either.
    session = manager().open(cookies or (), asynchronous=True, session_class=DjangoSession)
    session.lifecycle.rotates = bool(cookies) or "rotate_on" in options()
    if cookies is None:
        session.lifecycle.header_token = None  # whatever carried the key, it was no header
    sid = read_key(key)
    if sid is not None:
        session.lifecycle.look_for(sid)
    return session


def read_key(key: str | None) -> str | None:
    """The id in what Django calls a session key: an id, or the signed value of a cookie that holds one."""
    if not key or not key.isascii():
        return None
    candidate = manager().policy.signer.verify(key.encode()) if "." in key else None
    if candidate is not None:
        return candidate[0]
    return key if len(key) <= LONGEST_KEY else None
