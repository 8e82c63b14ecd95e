"""The header that carries a session's token for clients without cookies: mobile apps and clients of an API."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any, Literal

from session_kit.cookie import CookieHeaders
from session_kit.errors import ConfigError

log = logging.getLogger("session_kit")

Transport = Literal["cookie", "header", "both"]

AUTHORIZATION = "Authorization"
SCHEME = b"session"
"""The authentication scheme; schemes are compared without regard to case (RFC 9110, section 11.1)."""
ANSWER = "Session"
"""The header of a response that gives a token to a client that sends `Authorization`."""
UNUSABLE = b"."
"""In place of what is no token: no secret verifies it."""

# An underscore would be taken for a hyphen by WSGI, and is dropped by some proxies.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_TAKEN = frozenset({"cookie", "set-cookie", "vary", "cache-control", "host", "content-type", "content-length"})
# The letters of a cookie's value. The longest token of ours: a name of 256, a "~" and 22, a dot and 43.
_TOKEN = re.compile(rb"[!#-+\--:<-\[\]-~]{1,512}")


class TokenHeader:
    """The header in which a request has its token.

    name: `Authorization`, whose value is `Session <token>` and which other schemes may share, or a name of one's own,
        whose value is the token; the response has it under that name too.
    alone: nobody has a cookie.
    Raises `ConfigError` for a name that cannot be used.

    >>> TokenHeader("Authorization", alone=False).find([(b"authorization", b"Session some-token")])
    b'some-token'
    """

    def __init__(self, name: str, *, alone: bool) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _TAKEN:
            raise ConfigError(f"header {name!r}: a name of letters, digits and '-' that nothing else needs is wanted")
        self.name = name
        self.alone = alone
        self.field = name.lower().encode()
        self._has_scheme = self.field == b"authorization"
        self.answer = ANSWER if self._has_scheme else name
        self.wsgi_key = "HTTP_" + name.upper().replace("-", "_")
        self._warned = False

    def pairs(self, values: Iterable[str]) -> list[tuple[bytes, bytes]]:
        """The header as ASGI has it. values: of all headers of that name; a token is plain ASCII."""
        return [(self.field, value.encode("ascii", "replace")) for value in values]

    def value(self, token: str) -> str:
        """What a client sends that has this token."""
        return f"Session {token}" if self._has_scheme else token

    @property
    def description(self) -> str:
        """For the documentation of an API: what the header holds."""
        return f"`{self.value('<token>')}`, with the token of the last response that had the header `{self.answer}`."

    def find(self, headers: CookieHeaders) -> bytes | None:
        """Return the token that a request carries: None without the header, b"" if the header has none.

        What cannot be one token of ours, such as two, is `UNUSABLE`: none of them is chosen. Linear in the headers.
        """
        values = [value for name, value in headers if name == self.field]
        tokens = [token for value in values if (token := self._token(value)) is not None]
        if not tokens:
            return None
        if len(values) > 1 or not (tokens[0] == b"" or _TOKEN.fullmatch(tokens[0])):
            self._warn(several=len(values) > 1 or b"," in tokens[0])
            return UNUSABLE
        return tokens[0]

    def _token(self, value: bytes) -> bytes | None:
        """What stands in one header; None if it is of another scheme."""
        if not self._has_scheme:
            return value.strip(b" \t")
        scheme, _, rest = value.strip(b" \t").partition(b" ")
        return rest.strip(b" ") if scheme.lower() == SCHEME else None

    def _warn(self, *, several: bool) -> None:
        if not self._warned:
            self._warned = True
            what = "more than one token" if several else "what is no token"
            log.warning(
                "a request had %s in its header %s and is treated as one without a session: clients must send one "
                "token, as the last response that had one gave it",
                what,
                self.name,
            )


def token_header(transport: Any, name: Any) -> TokenHeader | None:
    """Return the header of that transport, or None for cookies alone. `ConfigError` for what cannot work."""
    if transport not in ("cookie", "header", "both"):
        raise ConfigError(f"transport must be 'cookie', 'header' or 'both', not {transport!r}")
    if transport == "cookie":
        if name != AUTHORIZATION:
            raise ConfigError(f"header={name!r} needs transport='header' or 'both'")
        return None
    return TokenHeader(name, alone=transport == "header")
