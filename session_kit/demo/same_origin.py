"""Refuses forms that another site's page has sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class SameOriginOnly:
    """Refuses requests that change something and that another site's page has sent (CSRF).

    The cookie's `SameSite=Lax` keeps it from going along with other sites' forms, but to a browser everything on
    localhost is one site, whatever its port. So the browser's own word on where a request comes from is asked too:
    `Sec-Fetch-Site`, or `Origin` from older ones. A page can forge neither. A client that sends neither is no browser,
    and nobody can make it send a visitor's cookie. All this needs no token in the forms, nor a session to keep it in.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
        if changes and not is_same_origin(Headers(scope=scope)):
            refusal = PlainTextResponse("Refused: this form was sent by a page of another origin.", 403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)


def is_same_origin(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")  # none: typed in or bookmarked, sent by no page
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")
