"""The application that every framework has, in Tornado. Neither WSGI nor ASGI: `SessionManager` does by itself."""

from __future__ import annotations

from typing import Any

from tornado.web import Application, RequestHandler

from session_kit import Session, SessionManager
from session_kit.errors import DriverUnavailable
from tests.harness.gate import Gate


class SessionHandler(RequestHandler):
    """A handler with a session: opened before, committed with the answer, finished after a stream."""

    def initialize(self, manager: SessionManager) -> None:
        self.manager = manager
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.request.headers.get_all()]
        self.session: Session[Any] = manager.open(headers, asynchronous=True)

    async def commit(self) -> None:
        for name, value in await self.manager.acommit(self.session, self.get_status()):
            self.add_header(name, value)

    async def get(self) -> None:
        try:
            answer = await self.view(self.get_query_argument)
            if answer is not None:
                await self.commit()
                self.write(answer)
        except DriverUnavailable:
            self.send_error(503)
            return
        await self.finish()
        await self.manager.afinish(self.session)

    async def post(self) -> None:
        await self.get()

    async def view(self, query: Any) -> Any:
        """The answer, or None if it was written."""
        raise NotImplementedError


class Untouched(SessionHandler):
    async def view(self, query: Any) -> Any:
        return {"ok": True}


class Read(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        return {"value": session.get(query("key"))}


class Write(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session[query("key")] = query("value")
        return {"ok": True}


class Count(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session.update(lambda data: {"count": data.get("count", 0) + 1})
        return {"count": session["count"]}


class Cart(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session.setdefault("cart", []).append(query("item"))
        return {"cart": session["cart"]}


class Rotate(SessionHandler):
    async def view(self, query: Any) -> Any:
        await self.session.aregenerate()
        return {"ok": True}


class Logout(SessionHandler):
    async def view(self, query: Any) -> Any:
        await self.session.adestroy()
        return {"ok": True}


class Flash(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session.flash(query("message"))
        return {"ok": True}


class Flashed(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        return {"messages": [each.message for each in session.flashes()]}


class Slow(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session.get(query("key"))
        await Gate(query("gate")).ahold()
        session[query("key")] = query("value")
        return {"ok": True}


class Clear(SessionHandler):
    async def view(self, query: Any) -> Any:
        (await self.session.aload()).clear()
        return {"ok": True}


class Sorry(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session[query("key")] = query("value")
        self.set_status(503)
        return {"ok": False}


class Fail(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        session[query("key")] = query("value")
        raise RuntimeError("this handler fails")


class Stream(SessionHandler):
    async def view(self, query: Any) -> None:
        session = await self.session.aload()
        session.get(query("key"))
        await self.commit()
        self.write(b"one")
        await self.flush()
        session[query("key")] = query("value")
        self.write(b"two")


class Unavailable(SessionHandler):
    async def view(self, query: Any) -> Any:
        session = await self.session.aload()
        return {"unavailable": session.unavailable}


VIEWS = (
    *(Untouched, Read, Flashed, Stream, Unavailable),
    *(Write, Count, Cart, Rotate, Logout, Clear, Flash, Slow, Fail, Sorry),
)


def make_app(*, manager: SessionManager | None = None, **options: Any) -> Application:
    shared = {"manager": manager or SessionManager(**options)}
    return Application([(f"/{view.__name__.lower()}", view, shared) for view in VIEWS])
