"""How little a session in memory can cost in Python: the bare steps by hand, beside session_kit, in the same run.

    python -m session_kit.benchmarks.floor

By hand: find the cookie, verify its signature, hash the id, look into a dict, decode one value, and put a record back.
Left out is all that makes it a session library: conflicts, rotation, expiry that slides, limits, old secrets, outages,
changes inside values, checks of keys and values, events, other stores, and streams.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from binascii import b2a_base64
from hmac import compare_digest
from typing import Any

import msgspec

from session_kit.asgi import SessionMiddleware
from session_kit.benchmarks import harness
from session_kit.benchmarks.harness import HANDLERS, SECRET, asgi_app, asgi_case, ask
from session_kit.benchmarks.measure import Noise, compare, conditions, microseconds

URL_SAFE = bytes.maketrans(b"+/", b"-_")


class ByHand:
    """Sessions of one process, without anything that can be left out."""

    def __init__(self, app: Any, records: dict[str, tuple[bytes, float]]) -> None:
        self.app, self.records = app, records
        key = hashlib.sha256(SECRET.encode()).digest().ljust(64, b"\0")
        self.inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self.outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))
        self.decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        self.load, self.encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    def sign(self, sid: bytes) -> bytes:
        inner, outer = self.inner.copy(), self.outer.copy()
        inner.update(sid)
        outer.update(inner.digest())
        return b2a_base64(outer.digest(), newline=False).translate(URL_SAFE)[:43]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"] = Values(self, scope["headers"])

        async def send_with_session(message: Any) -> None:
            if message["type"] == "http.response.start" and session.fields is not None:
                headers = [*message["headers"], (b"vary", b"Cookie")]
                if session.changed:
                    if not session.sid:
                        session.sid = secrets.token_urlsafe(32).encode()
                        cookie = b"session=%b.%b; Max-Age=86400; Path=/; HttpOnly; Secure; SameSite=Lax"
                        headers.append((b"set-cookie", cookie % (session.sid, self.sign(session.sid))))
                    name = hashlib.sha256(session.sid).hexdigest()
                    self.records[name] = self.encode(session.fields), time.time() + 86_400
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_session)


class Values:
    """What a handler sees of it."""

    def __init__(self, owner: ByHand, headers: Any) -> None:
        self.owner, self.headers = owner, headers
        self.sid, self.changed = b"", False
        self.fields: dict[str, msgspec.Raw] | None = None

    def loaded(self) -> dict[str, msgspec.Raw]:
        if self.fields is None:
            self.fields = self.find()
        return self.fields

    def find(self) -> dict[str, msgspec.Raw]:
        for name, value in self.headers:
            if name == b"cookie" and (at := value.find(b"session=")) >= 0:
                sid, _, signature = value[at + 8 :].partition(b";")[0].partition(b".")
                if compare_digest(self.owner.sign(sid), signature):
                    record = self.owner.records.get(hashlib.sha256(sid).hexdigest())
                    if record is not None and record[1] > time.time():
                        self.sid = sid
                        return self.owner.decode(record[0])
        return {}

    def get(self, key: str, default: Any = None) -> Any:
        raw = self.loaded().get(key)
        return default if raw is None else self.owner.load(raw)

    def __setitem__(self, key: str, value: Any) -> None:
        self.loaded()[key] = msgspec.Raw(self.owner.encode(value))
        self.changed = True

    def update(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self[key] = value


def main() -> None:
    noise = Noise()
    records: dict[str, tuple[bytes, float]] = {}
    ours = SessionMiddleware(asgi_app(harness.login), store="memory://", secret=SECRET)
    print("| ASGI, memory | by hand, µs | session_kit, µs |\n| --- | ---: | ---: |")
    with asyncio.Runner() as runner:
        cookies = {
            name: runner.run(ask(app, b"")).cookie()
            for name, app in {"hand": ByHand(asgi_app(harness.login), records), "ours": ours}.items()
        }
        for kind, handler in HANDLERS.items():
            app = asgi_app(handler)
            apps = {"bare": app, "hand": ByHand(app, records), "ours": SessionMiddleware(app, manager=ours.manager)}
            first = kind == "first visit"
            cases = {
                name: asgi_case(runner, wrapped, b"" if first else cookies.get(name, b""))
                for name, wrapped in apps.items()
            }
            best = compare(cases, 1000, rounds=15, noise=noise)
            figures = [microseconds(best[name] - best["bare"]) for name in ("hand", "ours")]
            print(f"| {kind} | {' | '.join(figures)} |", flush=True)
    print(f"\n{conditions(('session-kit', 'msgspec'))}. {str(noise).capitalize()}.")


if __name__ == "__main__":
    main()
