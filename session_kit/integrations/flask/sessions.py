"""The session that users of Flask and of Quart know, over ours."""

from __future__ import annotations

from typing import Any, ClassVar

from markupsafe import Markup

from session_kit.manager import SessionManager
from session_kit.session import Session

FLASHES = "_flashes"
PERMANENT = "_permanent"


class FlaskSession(Session[Any]):
    """A `Session` with what Flask's users know of theirs: `permanent`, `modified`, `new`, `accessed`, and `flash`."""

    __slots__ = ()

    _kept: ClassVar[bool] = True

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's session. Until it is set, what `CookieOptions.persistent` says."""
        return bool(self.get(PERMANENT, self._kept))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        # Many applications set it before every request; that alone shall not make a session for every visitor.
        if bool(value) != self.permanent:
            self[PERMANENT] = bool(value)
            self.lifecycle.client_id = None  # the cookie is sent again

    @property
    def persistent(self) -> bool | None:
        return self.permanent

    @property
    def modified(self) -> bool:
        """Whether something changed. Changes inside values are found without setting it."""
        draft = self.loaded()
        draft.settle()
        return draft.changed

    @modified.setter
    def modified(self, value: bool) -> None: ...

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

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, [_pack(*item) for item in value] if key == FLASHES else value)

    def __getitem__(self, key: str) -> Any:
        value = self.loaded()[key]
        return [_unpack(*item) for item in value] if key == FLASHES else value


class BriefSession(FlaskSession):
    """What is made with `CookieOptions(persistent=False)`: it ends with the browser's, unless it is made permanent."""

    __slots__ = ()

    _kept = False


def session_class(manager: SessionManager) -> type[FlaskSession]:
    """Return the class of session whose `permanent` agrees with the cookie's options."""
    return FlaskSession if manager.policy.cookie.options.persistent else BriefSession


# Flask keeps flashed messages as tuples of category and message, which may be safe HTML. JSON knows neither.


def _pack(category: str, message: Any) -> list[Any]:
    html = getattr(message, "__html__", None)
    return [category, message] if html is None else [category, str(html()), "html"]


def _unpack(category: str, message: Any, kind: str = "") -> tuple[str, Any]:
    return category, Markup(message) if kind == "html" else message  # noqa: S704  # it was, when it was stored
