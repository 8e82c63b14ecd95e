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


def unpack(item: object) -> Flash:
    """The message that was packed. Safe HTML is `Markup` where markupsafe is installed, else text.

    `SessionError` for what is no message.
    """
    match item:
        case [str(category), message]:
            return Flash(category, message)
        case [str(category), message, "html"]:
            return Flash(category, read_markup(message))
    raise SessionError(f"flash messages are kept under the session key {FLASHES!r}, and something else is there")
