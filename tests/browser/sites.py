"""Small web sites with sessions, served by uvicorn on 127.0.0.1 for the browser to visit."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from session_kit import use_session
from session_kit.asgi import SessionMiddleware
from tests.harness.servers import Stoppable, make_certificates
from tests.harness.sites import UnderUvicorn

NOBODY = "nobody"


class Certificate(NamedTuple):
    """Of a server, as uvicorn takes it; fingerprint: of its key, as Chromium's command line takes it."""

    file: Path
    key_file: Path
    fingerprint: str


def make_certificate(folder: Path) -> Certificate:
    make_certificates(folder)
    file = folder / "server.pem"
    key = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
    digest = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return Certificate(file, folder / "server-key.pem", b64encode(digest).decode())


class PageSite(Stoppable):
    """A site that knows its visitors by their session, and shows the pages that a test puts on it.

    /who says who the visitor is, /login?user=ada logs in with a new id, /rotate gives a new id, /logout destroys,
    /greet answers a WebSocket by name. All exist below /app/ as well. `visits` lists who came to /who, in order.
    """

    def __init__(self, certificate: Certificate | None = None, **options: Any) -> None:
        self.pages: dict[str, str] = {}
        self.visits: list[str] = []
        routes = [
            Route("/who", self._who, methods=["GET", "POST"]),
            Route("/login", self._login),
            Route("/rotate", self._rotate),
            Route("/logout", self._logout),
            WebSocketRoute("/greet", self._greet),
        ]
        inside = Middleware(SessionMiddleware, **options)
        app = Starlette(
            routes=[*routes, Mount("/app", routes=routes), Route("/{page:path}", self._page)], middleware=[inside]
        )
        self._server = serve(app, certificate)
        self._scheme = "http" if certificate is None else "https"

    def url(self, path: str = "/", host: str = "shop.test") -> str:
        return f"{self._scheme}://{host}:{self._server.port}{path}"

    def publish(self, html: str, *, host: str = "shop.test") -> str:
        """Put a page on the site and return its address."""
        path = f"/page{len(self.pages)}"
        self.pages[path] = html
        return self.url(path, host)

    def stop(self) -> None:
        self._server.stop()

    async def _page(self, request: Request) -> Response:
        html = self.pages.get(request.url.path)
        return HTMLResponse("", 404) if html is None else HTMLResponse(html)

    async def _who(self, request: Request) -> Response:
        return self._name(request.session.get("user", NOBODY))

    async def _login(self, request: Request) -> Response:
        session = await use_session(request)
        await session.aregenerate()
        session["user"] = request.query_params["user"]
        return HTMLResponse("welcome")

    async def _rotate(self, request: Request) -> Response:
        session = await use_session(request)
        await session.aregenerate()
        return self._name(session["user"])

    async def _logout(self, request: Request) -> Response:
        session = await use_session(request)
        await session.adestroy()
        return HTMLResponse("bye")

    async def _greet(self, socket: WebSocket) -> None:
        user = (await use_session(socket)).get("user", NOBODY)
        await socket.accept()
        await socket.send_text(user)
        await socket.close()

    def _name(self, user: str) -> Response:
        self.visits.append(user)
        return HTMLResponse(f'<p id="who">{user}</p>')


def serve(app: Any, certificate: Certificate | None = None) -> UnderUvicorn:
    """Start an ASGI application; over https if there is a certificate."""
    tls = {} if certificate is None else {"ssl_certfile": certificate.file, "ssl_keyfile": certificate.key_file}
    return UnderUvicorn(app, log_level="critical", ws="websockets-sansio", **tls)
