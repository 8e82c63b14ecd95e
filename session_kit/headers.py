"""What a response says to caches of its session, and how that joins what the application says."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[str, str]]

VARY = ("Vary", "Cookie")
"""The answer depends on the cookie even if no cookie is set (RFC 9111, section 4.1)."""
NO_SHARED_COOKIE = ("Cache-Control", 'no-cache="Set-Cookie"')
"""A shared cache may keep the answer, but not hand the cookie to others (RFC 9111, section 5.2.2.4)."""
NO_STORE = ("Cache-Control", "no-store")
"""No cache may keep an answer that holds a token (RFC 6749, section 5.1)."""
TEXT = ("Content-Type", "text/plain; charset=utf-8")
"""Of the 503 in an outage."""


def join_headers(theirs: Headers, ours: Headers) -> Headers:
    """The headers of a response and those of its session. There is one `Vary`: some caches read the last one alone.

    >>> join_headers([("Vary", "Accept"), ("ETag", '"1"')], [VARY])
    [('ETag', '"1"'), ('Vary', 'Accept, Cookie')]
    """
    if not ours:
        return theirs
    lines: list[str] = []
    for name, value in theirs:
        if len(name) == 4 and name.lower() == "vary":  # most are longer, and a length costs next to nothing
            lines.append(value)
    if not lines:
        return [*theirs, *ours]
    others = [header for header in theirs if header[0].lower() != "vary"]
    return [*others, *((name, join_vary(lines, value) if name == "Vary" else value) for name, value in ours)]


def join_vary(theirs: Iterable[str], ours: str) -> str:
    """One `Vary` in place of several.

    >>> join_vary(["Accept-Encoding, cookie", "Origin"], "Cookie, Authorization")
    'Accept-Encoding, cookie, Origin, Authorization'
    """
    found: dict[str, str] = {}
    for line in (*theirs, ours):
        for name in line.split(","):
            if name.strip():
                found.setdefault(name.strip().lower(), name.strip())
    return ", ".join(found.values())
