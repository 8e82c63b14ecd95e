"""Flash messages: what one request leaves in the session for the visitor to see on a later page, once."""

from __future__ import annotations

from typing import Any, NamedTuple

from session_kit.codec.json import read_markup
from session_kit.errors import SessionError

FLASHES = "_flashes"
"""Where they are kept in the data: a list of `[category, message]`, where Flask and Quart keep theirs."""


class Flash(NamedTuple):
    """A message for the visitor.

    category: what kind of message it is, such as `"info"` or `"error"`.
    message: the text, or what else was flashed.
    """

    category: str
    message: Any


def pack(category: str, message: Any) -> list[Any]:
    """A message as it is kept. One that is safe HTML is marked as such: JSON has no form for that."""
    if not isinstance(category, str):
        raise SessionError(f"the category of a flash message must be text, not {type(category).__name__}")
    html = getattr(message, "__html__", None)
    return [category, message] if html is None else [category, str(html()), "html"]


def unpack(category: str, message: Any, kind: str = "") -> Flash:
    """The message that was packed. Safe HTML is `Markup` where markupsafe is installed, else text."""
    return Flash(category, read_markup(message) if kind == "html" else message)
