"""The session that users of Flask and of Quart know, over ours."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, cast

from werkzeug.local import LocalProxy

from session_kit.draft import Draft
from session_kit.errors import SessionError
from session_kit.flash import FLASHES, pack, unpack
from session_kit.lifecycle import Lifecycle
from session_kit.session import Session

PERMANENT = "_permanent"
NOT_OURS = "the sessions of this application are not those of session_kit: SessionKit(app, ...) is missing"


class FlaskSession(Session[Any]):
    """A `Session` with what Flask's users know of theirs: `permanent`, `modified`, `new`, `accessed`, and `flash`."""

    __slots__ = ("_asked", "_unsaved")

    def __init__(self, lifecycle: Lifecycle) -> None:
        super().__init__(lifecycle)
        self._asked = False  # `modified` was set to True
        self._unsaved: tuple[Draft, int] | None = None  # how many changes there were at `modified = False`

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's session. False until it is set."""
        return bool(self.get(PERMANENT, False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if bool(value) != self.permanent:
            self[PERMANENT] = bool(value)
            self.lifecycle.client_id = None  # the cookie is sent again

    @property
    def persistent(self) -> bool | None:
        remembered = super().persistent
        return self.permanent if remembered is None else remembered

    @property
    def modified(self) -> bool:
        """Whether something changed, also inside values.

        True sends a permanent session's cookie again where `SESSION_REFRESH_EACH_REQUEST` is off. False leaves out of
        the session's record what has changed so far, unless more is changed afterwards.
        """
        draft = self.loaded()
        draft.detect_changes()
        return self._asked or (draft.changed and self._unsaved != (draft, len(draft.log)))

    @modified.setter
    def modified(self, value: bool) -> None:
        draft = self.loaded()
        draft.detect_changes()
        self._asked = bool(value)
        self._unsaved = None if value else (draft, len(draft.log))

    @property
    def new(self) -> bool:
        """Flask's name for `is_new`."""
        return self.is_new

    @property
    def accessed(self) -> bool:
        """Whether the request has looked into the session."""
        return self.lifecycle.touched

    @accessed.setter
    def accessed(self, value: bool) -> None: ...  # Flask sets it whenever the proxy is touched

    def leave_out(self) -> None:
        """Before the session is committed, drop what is not to be saved."""
        lifecycle, draft = self.lifecycle, self.lifecycle.draft
        if draft is None:
            return
        if self._unsaved is not None and not self.modified:
            lifecycle.revert()
        # Many applications set it before every request; that alone shall not make a session for every visitor.
        if (
            PERMANENT in draft.fields
            and len(draft.fields) == 1
            and (lifecycle.stored is None or lifecycle.fresh is not None)
        ):
            draft.drop(PERMANENT)

    # Flask reads the whole list of its flashed messages and writes it back; others may flash at the same time.

    def __setitem__(self, key: str, value: Any) -> None:
        if key != FLASHES:
            super().__setitem__(key, value)
        elif value[: len(before := self.get(FLASHES, []))] == before:
            for category, message in value[len(before) :]:
                self.flash(message, category)
        else:
            super().__setitem__(key, [pack(*item) for item in value])

    def __getitem__(self, key: str) -> Any:
        draft = self.loaded()
        if key != FLASHES or key not in draft.fields:
            return draft[key]
        return [tuple(unpack(item)) for item in draft.list_at(key)]  # plain ones, as Flask's own sessions give

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key == FLASHES and key in self else super().get(key, default)

    def __delitem__(self, key: str) -> None:
        if key != FLASHES or not self.flashes():
            super().__delitem__(key)


def only_ours(session: Any) -> FlaskSession:
    """`flask.session` or `quart.session`, which raises `SessionError` where it is not one of ours."""
    look_up = session._get_current_object

    def current() -> FlaskSession:
        found = look_up()
        if not isinstance(found, FlaskSession):
            raise SessionError(NOT_OURS)
        return found

    return cast(FlaskSession, LocalProxy(current))


class TemplateSession(MutableMapping[str, Any]):
    """The session as templates see it: `session.id` is what the application keeps under that key, never the secret id.

    session: `flask.session` or `quart.session`.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Any) -> None:
        self._session = session

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's session."""
        return bool(self._session.permanent)

    @property
    def new(self) -> bool:
        """Whether the session is not in the store yet."""
        return bool(self._session.new)

    def __getitem__(self, key: str) -> Any:
        return self._session[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[key] = value

    def __delitem__(self, key: str) -> None:
        del self._session[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._session)

    def __len__(self) -> int:
        return len(self._session)

    def __contains__(self, key: object) -> bool:
        return key in self._session

    def __repr__(self) -> str:
        return repr(self._session)
