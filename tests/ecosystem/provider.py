"""A small OpenID provider (and CAS server) on 127.0.0.1, at which everybody who comes is ada."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from harness.servers import HOST

CLIENT_ID = "shop"
CLIENT_SECRET = "of-the-shop-at-the-provider-0123456789"
ACCESS_TOKEN = "of-ada"
HEADER = {"alg": "HS256", "typ": "JWT", "kid": "1"}
USER = {"sub": "1", "name": "ada", "preferred_username": "ada", "email": "ada@shop.test", "email_verified": True}


class Provider(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The server, and the codes that it has given out, with the nonce that each was asked for with."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self.nonces: dict[str, str] = {}

    def id_token(self, nonce: str) -> str:
        """Signed with the client's secret (HS256), so that no package needs a key."""
        now = int(time.time())
        claims = {**USER, "iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 600, "nonce": nonce}
        claims["at_hash"] = _base64(hashlib.sha256(ACCESS_TOKEN.encode()).digest()[:16])
        parts = ".".join(_base64(json.dumps(part).encode()) for part in (HEADER, claims))
        return f"{parts}.{_base64(hmac.digest(CLIENT_SECRET.encode(), parts.encode(), hashlib.sha256))}"


@contextmanager
def serve_provider() -> Iterator[Provider]:
    """A provider that is running."""
    with Provider() as provider:
        thread = threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield provider
        provider.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        url = self.server.url
        match parts.path:
            case "/.well-known/openid-configuration":
                self._say(
                    {
                        "issuer": url,
                        "authorization_endpoint": f"{url}/authorize",
                        "token_endpoint": f"{url}/token",
                        "userinfo_endpoint": f"{url}/user",
                        "jwks_uri": f"{url}/keys",
                        "response_types_supported": ["code"],
                        "subject_types_supported": ["public"],
                        "id_token_signing_alg_values_supported": ["HS256"],
                    }
                )
            case "/authorize":
                code = secrets.token_hex()
                self.server.nonces[code] = query.get("nonce", "")
                self._redirect(query["redirect_uri"], {"code": code, "state": query["state"]})
            case "/user":
                self._say(USER)
            case "/keys":
                key = {"kty": "oct", "kid": "1", "alg": "HS256", "k": _base64(CLIENT_SECRET.encode())}
                self._say({"keys": [key]})
            case "/cas/login":
                self._redirect(query["service"], {"ticket": "ST-1"})
            case "/cas/p3/serviceValidate" | "/cas/serviceValidate":
                user = "<cas:authenticationSuccess><cas:user>ada</cas:user></cas:authenticationSuccess>"
                space = "xmlns:cas='http://www.yale.edu/tp/cas'"
                self._answer(f"<cas:serviceResponse {space}>{user}</cas:serviceResponse>".encode(), "text/xml")
            case _:
                self.send_error(404)

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        nonce = self.server.nonces[form["code"]]
        self._say(
            {
                "access_token": ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": 600,
                "id_token": self.server.id_token(nonce),
            }
        )

    def _redirect(self, url: str, more: dict[str, str]) -> None:
        self.send_response(302)
        self.send_header("Location", f"{url}{'&' if '?' in url else '?'}{urlencode(more)}")
        self.end_headers()

    def _say(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), "application/json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
