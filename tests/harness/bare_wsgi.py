"""Bare WSGI: requests to an application without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class BareServer:
    """What a WSGI server does with one request, in the order in which it happens."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.sent: list[str] = []

    def get(self, cookie: str = "", **environ: Any) -> tuple[str, dict[str, str], bytes]:
        answer: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., object]:
            self.sent.append("start")
            answer[:] = [status, dict(headers)]
            return lambda data: self.sent.append("write")

        body = self.app({"HTTP_COOKIE": cookie, "PATH_INFO": "/", "REQUEST_METHOD": "GET", **environ}, start_response)
        parts = []
        try:
            for part in body:
                assert answer, "a part of the body came before the headers"
                self.sent.append("part")
                parts.append(part)
        finally:
            if hasattr(body, "close"):
                body.close()
        return answer[0], answer[1], b"".join(parts)


def cookie_of(headers: dict[str, str]) -> str:
    return headers["Set-Cookie"].split(";")[0]
