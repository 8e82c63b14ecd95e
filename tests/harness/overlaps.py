"""A browser whose requests overlap: what its handlers do, what each request saw and was told, and what must hold after.

The judge knows what every handler does to the data as a plain function, so that "nothing is lost" is exact: what the
session holds in the end is what some order of the changes would have made of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from session_kit import Session, SessionManager, UnstorageSessionStore
from session_kit.drivers import Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.headers import Headers
from session_kit.testing import ManualClock, Schedule, SteppedDriver, WrappedDriver
from tests.harness.sessions import SECRET

TTL = 1000
RENEWAL_DUE = 150
AFTER_THE_GRACE = 11
MAX_LIFETIME = 500
START: dict[str, Any] = {"kept": "old", "n": 0, "items": [], "nested": {"a": {}}}

Data = dict[str, Any]
Effect = Callable[[Data], Data]

acting: ContextVar[str] = ContextVar("acting", default="")


class Failed(Exception):
    """What a handler raises that fails."""


class Done(NamedTuple):
    """What a request has made the store do."""

    who: str
    call: str
    key: str


class Log(WrappedDriver):
    """Notes what took effect, in its order, and for which request."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.done: list[Done] = []

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            result = await super().acall(name, *args, **kwargs)
        except Exception:
            self.done.append(Done(acting.get(), f"{name} failed", str(args[0])))
            raise
        self.done.append(Done(acting.get(), name, str(args[0])))
        return result


@dataclass(slots=True, eq=False)
class Request:
    """One request of the browser: what it was to do, what it saw, and what it was told."""

    who: str
    handler: Handler
    sent: str
    saw: Data = field(default_factory=dict)  # when it was loaded
    views: list[Data] = field(default_factory=list)  # whatever it saw, at any time
    blind: bool = False  # it came with an id that was no good any more, and saw an empty session
    pending: list[Effect] = field(default_factory=list)
    saved: list[tuple[list[Effect], bool]] = field(default_factory=list)  # together with whether it was blind
    cookie: str | None = None  # that it was given
    deleted: bool = False  # its cookie was taken away
    arrived: int = -1  # when its response arrived, among all responses
    error: BaseException | None = None

    def look(self, session: Session[Any]) -> Data:
        """Note what the handler sees."""
        self.views.append(data := dict(session))
        return data

    def acknowledge(self) -> None:
        """What was changed so far has been saved, so it was said."""
        if self.pending:
            self.saved.append((self.pending, self.blind))
            self.pending = []

    @property
    def own(self) -> Data:
        """What its saved changes make of an empty session."""
        return apply([effect for step, _ in self.saved for effect in step], {"items": [], "nested": {"a": {}}, "n": 0})

    @property
    def sets_user(self) -> bool:
        return "user" in self.own

    def __repr__(self) -> str:
        told = "its cookie deleted" if self.deleted else f"cookie {self.cookie and name_of(self.cookie)}"
        return f"<{self.who} {self.handler.name}: saw {self.saw}, saved {len(self.saved)}, {told}, {self.error!r}>"


class Handler(NamedTuple):
    """What a request does.

    run: changes the session; returns the status of the answer, or None for 200.
    ends: how it logs out: "destroy", "clear", or "" if it does not.
    rotates: it asks for a new id, or logs in.
    fresh: it clears the session and goes on with it.
    touch: it counts as use of the session.
    """

    name: str
    run: Callable[[Session[Any], Request], Awaitable[int | None]]
    ends: str = ""
    rotates: bool = False
    fresh: bool = False
    touch: bool = True


HANDLERS: dict[str, Handler] = {}


def handler(ends: str = "", *, rotates: bool = False, fresh: bool = False, touch: bool = True) -> Callable[[Any], Any]:
    """Make a function a handler under its own name."""

    def add(run: Any) -> Any:
        HANDLERS[run.__name__] = Handler(run.__name__, run, ends, rotates, fresh, touch)
        return run

    return add


def put(session: Session[Any], request: Request, **values: Any) -> None:
    """Set keys, and note that they are to stay."""
    session.update(values)
    request.pending.append(lambda data: data | values)


def apply(effects: Iterable[Effect], data: Data) -> Data:
    """What effects make of data."""
    for effect in effects:
        data = effect(data)
    return data


def raised(data: Any) -> Data:
    """The counter: what it returns is merged."""
    return {"n": data.get("n", 0) + 1}


# --- the handlers ---


@handler()
async def reads(session: Session[Any], request: Request) -> None:
    request.look(session)


@handler(touch=False)
async def polls(session: Session[Any], request: Request) -> None:
    request.look(session)


@handler()
async def writes(session: Session[Any], request: Request) -> None:
    put(session, request, **{f"key_{request.who}": 1})


@handler()
async def counts(session: Session[Any], request: Request) -> None:
    session.update(raised)
    request.pending.append(lambda data: data | raised(data))


@handler()
async def appends(session: Session[Any], request: Request) -> None:
    session.setdefault("items", []).append(request.who)
    request.pending.append(lambda data: data | {"items": [*data.get("items", []), request.who]})


@handler()
async def nests(session: Session[Any], request: Request) -> None:
    session.setdefault("nested", {"a": {}})["a"][request.who] = 1

    def effect(data: Data) -> Data:
        inner = data.get("nested", {"a": {}})["a"]
        return data | {"nested": {"a": inner | {request.who: 1}}}

    request.pending.append(effect)


@handler()
async def replaces(session: Session[Any], request: Request) -> None:
    session.set({f"only_{request.who}": 1})
    request.pending.append(lambda data: {f"only_{request.who}": 1})


@handler()
async def pops(session: Session[Any], request: Request) -> None:
    session.pop("kept", None)
    request.pending.append(lambda data: {key: value for key, value in data.items() if key != "kept"})


@handler()
async def saves_between(session: Session[Any], request: Request) -> None:
    put(session, request, **{f"mid_{request.who}": 1})
    await save(session, request)
    put(session, request, **{f"late_{request.who}": 1})


@handler()
async def saves_and_reloads(session: Session[Any], request: Request) -> None:
    put(session, request, **{f"mid_{request.who}": 1})
    await save(session, request)
    await reload(session, request)


@handler()
async def reloads(session: Session[Any], request: Request) -> None:
    session["dropped"] = 1
    await reload(session, request)
    put(session, request, **{f"late_{request.who}": 1})


@handler(rotates=True)
async def logs_in(session: Session[Any], request: Request) -> None:
    put(session, request, user=request.who, **{f"secret_{request.who}": 1})


@handler(rotates=True)
async def logs_in_and_saves(session: Session[Any], request: Request) -> None:
    put(session, request, user=request.who, **{f"secret_{request.who}": 1})
    await save(session, request)
    await reload(session, request)
    put(session, request, **{f"late_{request.who}": 1})


@handler(rotates=True)
async def regenerates_and_writes(session: Session[Any], request: Request) -> None:
    await session.aregenerate()
    put(session, request, account=request.who, **{f"secret_{request.who}": 1})


@handler(rotates=True)
async def regenerates(session: Session[Any], request: Request) -> None:
    await session.aregenerate()


@handler("destroy")
async def logs_out(session: Session[Any], request: Request) -> None:
    await session.adestroy()
    request.pending.clear()


@handler("destroy")
async def logs_out_with_a_farewell(session: Session[Any], request: Request) -> None:
    await session.adestroy()
    put(session, request, **{f"flash_{request.who}": 1})


@handler("clear")
async def clears(session: Session[Any], request: Request) -> None:
    session.clear()


@handler(rotates=True, fresh=True)
async def clears_and_writes(session: Session[Any], request: Request) -> None:
    session.clear()
    request.pending.append(lambda data: {})
    put(session, request, **{f"fresh_{request.who}": 1})


@handler()
async def raises(session: Session[Any], request: Request) -> None:
    put(session, request, lost=1)
    raise Failed


@handler()
async def writes_and_answers_500(session: Session[Any], request: Request) -> int:
    put(session, request, lost=1)
    return 500


@handler()
async def saves_and_answers_500(session: Session[Any], request: Request) -> int:
    put(session, request, **{f"mid_{request.who}": 1})
    await save(session, request)
    put(session, request, lost=1)
    return 500


@handler()
async def logs_in_and_answers_500(session: Session[Any], request: Request) -> int:
    put(session, request, user=request.who, **{f"secret_{request.who}": 1})
    return 500


@handler()
async def regenerates_and_answers_500(session: Session[Any], request: Request) -> int:
    await session.aregenerate()
    put(session, request, lost=1)
    return 500


@handler("destroy")
async def logs_out_and_answers_500(session: Session[Any], request: Request) -> int:
    await session.adestroy()
    return 500


@handler()
async def clears_and_answers_500(session: Session[Any], request: Request) -> int:
    session.clear()
    return 500


async def save(session: Session[Any], request: Request) -> None:
    """Save by name."""
    await session.asave()
    request.acknowledge()
    request.look(session)


async def reload(session: Session[Any], request: Request) -> None:
    """Read again."""
    await session.areload()
    request.blind = not request.look(session)


# --- the world ---


@dataclass(slots=True)
class ScheduledBrowser:
    """Keeps the cookie of one site, as the responses come in, and remembers each that it ever had."""

    cookie: str = ""
    held: list[str] = field(default_factory=list)
    responses: int = 0

    def receive(self, headers: Headers, request: Request) -> None:
        request.arrived, self.responses = self.responses, self.responses + 1
        for name, value in headers:
            if name == "Set-Cookie":
                pair, *attributes = value.split("; ")
                if "Max-Age=0" in attributes:
                    self.cookie, request.deleted = "", True
                else:
                    self.cookie = request.cookie = pair
                    if pair not in self.held:
                        self.held.append(pair)


class World:
    """A site with one browser, whose session holds `START`.

    user: who is logged in at first; "" for nobody.
    owner: in whose list the session is at first; "" for none.
    due: the cookie is to be renewed, and, with `rotate_every`, the id to be rotated by time.
    travels: requests and responses are under way for a while. The browser sends the cookie that it has when a request
        leaves, and takes those of the responses in whatever order they arrive.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        user: str = "",
        owner: str = "",
        due: bool = False,
        swaps: bool = True,
        network: bool = False,
        travels: bool = False,
        wrap: Callable[[Driver], Driver] = lambda driver: driver,
        **options: Any,
    ) -> None:
        self.clock = ManualClock(1_000_000.0)
        self.memory = MemoryDriver(clock=self.clock)
        self.log = Log(self.memory)
        self.schedule = schedule or Schedule()
        self.user, self.owner, self.due, self.swaps, self.network = user, owner, due, swaps, network
        self.travels = travels
        self.turns = "rotate_every" in options
        self.store = UnstorageSessionStore(
            wrap(SteppedDriver(self.log, self.schedule, swaps=swaps, network=network)), ttl=TTL
        )
        self.manager = SessionManager(self.store, SECRET, clock=self.clock, **options)
        self.browser = ScheduledBrowser()
        self.requests: list[Request] = []
        self.home = ""  # the name in the id of the session that was there at first
        self.home_key = ""
        self.over: int | None = None  # when it expired: so much had been done before
        self.later = False  # time went by, more than the grace

    async def begin(self) -> None:
        """Let the browser have a session."""
        request = Request("first", HANDLERS["reads"], "")
        session = self.manager.open("", asynchronous=True)
        await session.aload()
        session.update(START, **({"user": self.user} if self.user else {}))
        if self.owner:
            await session.abind(self.owner)
        self.browser.receive(await self.manager.acommit(session), request)
        await self.manager.afinish(session)
        self.home = name_of(self.browser.cookie)
        [self.home_key] = [key for key in self.memory.keys() if ":~" not in key]
        if self.due:
            self.clock.advance(RENEWAL_DUE)
        self.log.done.clear()

    @property
    def first(self) -> Data:
        """What the session holds at first."""
        return START | ({"user": self.user} if self.user else {})

    async def request(self, who: str, handler: Handler, cookie: str | None = None) -> Request:
        """One request, from its cookie to its response."""
        if self.travels:
            await self.schedule.point("leaves")
        acting.set(who)
        request = Request(who, handler, self.browser.cookie if cookie is None else cookie)
        self.requests.append(request)
        session = self.manager.open(request.sent, asynchronous=True)
        try:
            await session.aload(touch=handler.touch)
            request.saw = request.look(session)
            request.blind = not request.saw
            status = await handler.run(session, request) or 200
            headers = await commit(self.manager, session, status)
            if status < 500:
                request.acknowledge()
            if self.travels:
                await self.schedule.point("arrives")
            self.browser.receive(headers, request)
            await self.manager.afinish(session)
        except (Failed, asyncio.CancelledError):
            pass
        except Exception as error:
            request.error = error
        request.pending = []
        return request

    async def pass_time(self, seconds: float, *, expires: bool) -> None:
        """Let time go by, at a point of the schedule."""
        await self.schedule.point("time")
        self.clock.advance(seconds)
        self.later = True
        if expires:
            self.over = len(self.log.done)

    async def view(self, cookie: str) -> Data:
        """What a clean request with a cookie sees."""
        acting.set("viewer")
        session = self.manager.open(cookie, asynchronous=True)
        await session.aload()
        return dict(session)


async def commit(manager: SessionManager, session: Session[Any], status: int) -> Headers:
    """Commit with the status of the answer."""
    return await (manager.acommit(session) if status == 200 else manager.acommit(session, status))  # type: ignore[call-arg]


def name_of(cookie: str) -> str:
    """The name in the id in a cookie, the half that a rotation keeps."""
    return cookie.partition("=")[2].partition("~")[0]


# --- the judge ---


class Broken(AssertionError):
    """A promise that does not hold; its first argument says which."""


def orders(lists: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """All ways to merge lists, each of which keeps its own order."""
    if not any(lists):
        yield ()
        return
    for number, each in enumerate(lists):
        if each:
            rest = [*lists[:number], each[1:], *lists[number + 1 :]]
            for order in orders(rest):
                yield (each[0], *order)


class Judge:
    """Looks at a world after its requests, and raises `Broken` for the first promise that does not hold."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests = world.requests
        self.views: dict[str, Data] = {}
        self.at: dict[str, list[tuple[int, Done]]] = {request.who: [] for request in self.requests}
        for at, done in enumerate(world.log.done):
            if done.who in self.at:
                self.at[done.who].append((at, done))
        self.ended = [request for request in self.requests if self.ends(request)]

    async def judge(self) -> None:
        for cookie in self.world.browser.held:
            self.views[cookie] = await self.world.view(cookie)
        self.no_errors()
        self.nobody_sees_the_login_of_another()
        if self.world.swaps:
            self.the_session_is_gone_or_complete()
            self.other_sessions_are_their_owners()
            self.cookies_are_left_alone()
        else:
            self.what_was_logged_out_stays_gone()

    # --- what happened ---

    def last(self, request: Request, *calls: str) -> int:
        """When a request last had the store do something, or such a call; -1 if never."""
        return max((at for at, done in self.at[request.who] if not calls or done.call in calls), default=-1)

    def logs_in(self, request: Request) -> bool:
        """Whether a request logs in: by a key, or because it asks for a new id while it sees nobody logged in.

        One that sees nothing because its id is no good any more, and changes nothing, is no login: it has no session to
        offer, and the browser would lose its own.
        """
        if request.sets_user or not self.world.user:
            return request.sets_user or request.handler.rotates
        return request.handler.rotates and not request.saw and bool(request.saved)

    def ends(self, request: Request) -> bool:
        """Whether a request is a logout that has to win."""
        return bool(request.handler.ends) and (bool(request.saw) or not self.world.later)

    @property
    def dead(self) -> bool:
        """Whether the session of the beginning has to be gone."""
        return bool(self.ended) or self.world.over is not None

    @property
    def unclear(self) -> bool:
        """Whether it depends on the time at which they came: a logout by an old id, or a fresh start beside a login."""
        blind = any(request.handler.ends and not self.ends(request) for request in self.requests)
        fresh = any(request.handler.fresh for request in self.requests)
        return blind or (fresh and sum(request.handler.rotates for request in self.requests) > 1)

    def is_home(self, request: Request) -> bool:
        """Whether what a request changed belongs into the session of the beginning."""
        return request.cookie is None or name_of(request.cookie) == self.world.home

    def began_after(self, request: Request, moment: int) -> bool:
        """Whether all that a request wrote had been sent after a moment, not only arrived after it."""
        ats = [at for at, _ in self.at[request.who] if at >= moment]
        sets = [at for at, done in self.at[request.who] if done.call == "set"]
        return bool(sets) and min(sets) >= moment and min(sets) > ats[0]

    def fail(self, promise: str, *what: Any) -> None:
        raise Broken(promise, *what, self.requests, self.views, self.world.log.done)

    # --- what is promised ---

    def no_errors(self) -> None:
        for request in self.requests:
            if request.error is not None:
                raise Broken("no request fails", self.requests, self.world.log.done) from request.error

    def nobody_sees_the_login_of_another(self) -> None:
        for login in self.requests:
            if not (self.logs_in(login) or login.handler.name == "logs_in_and_answers_500"):
                continue
            for other in self.requests:
                if other is not login:
                    views = other.views + ([self.views[other.cookie]] if other.cookie else [])
                    if any(f"secret_{login.who}" in view or view.get("user") == login.who for view in views):
                        self.fail("nobody sees the login of another", other)

    def the_session_is_gone_or_complete(self) -> None:
        world = self.world
        home = {cookie: view for cookie, view in self.views.items() if name_of(cookie) == world.home}
        live = [cookie for cookie, view in home.items() if view]
        if self.dead:
            if live or world.home_key in world.memory.keys():
                self.fail("what has ended stays gone", live)
            return
        if self.unclear:
            return
        # The id before a rotation by time opens it too, until the client has come back with the new one.
        several = world.turns and not any(request.handler.rotates for request in self.requests)
        if not live or (len(live) > 1 and not several) or any(home[cookie] != home[live[0]] for cookie in live):
            self.fail("one cookie opens the session" if live else "the session is not lost", live)
        steps = [
            [step for step, blind in request.saved if not blind] for request in self.requests if self.is_home(request)
        ]
        made = [apply(itertools.chain(*order), world.first) for order in orders(steps)]
        # In what order two appended is all that may differ from the order in which they saved.
        if normal(home[live[0]]) not in [normal(each) for each in made]:
            self.fail("no acknowledged change is lost, and no other is made", home[live[0]], made[0])
        simple = not world.network and not world.later and not any(self.logs_in(request) for request in self.requests)
        if simple and world.browser.cookie not in live:
            self.fail("the browser holds the cookie of its session")

    def other_sessions_are_their_owners(self) -> None:
        world = self.world
        for request in self.requests:
            if request.cookie is None or self.is_home(request):
                continue
            new = (
                self.logs_in(request)
                or (not request.saw and (self.dead or world.later or self.unclear))
                or (request.handler.ends == "destroy" and request.saved)
                or request.handler.fresh
                # Then nobody is logged in any more, and who asks for a new id logs in.
                or (request.handler.rotates and any(each.handler.name == "replaces" for each in self.requests))
            )
            if not new:
                self.fail("no new id without need", request)
            view, own = self.views[request.cookie], request.own
            allowed = {key for step, _ in request.saved for effect in step for key in effect({})} | {"n"}
            if not (request.saved and any("n" in effect({}) for step, _ in request.saved for effect in step)):
                allowed.discard("n")
            if self.logs_in(request) and self.keeps_the_cart(request):
                # What it had loaded, and what others had changed in that before they lost it to a third.
                allowed |= set(request.saw).union(*(each.own for each in self.requests if not self.logs_in(each)))
            if set(view) - allowed:
                self.fail("a session of its own holds nothing of another", request, set(view) - allowed)
            over = world.over is not None and not self.began_after(request, world.over)
            if not over and {key for key in own if key not in ("items", "nested", "n")} - set(view):
                self.fail("a session of its own is not lost", request)

    def keeps_the_cart(self, request: Request) -> bool:
        """Whether a login that got a session of its own may take along what it had loaded: nobody was logged in."""
        replaced = any(each.handler.name == "replaces" for each in self.requests)
        if "user" in request.saw and not replaced:
            return False
        reads = [
            at
            for at, done in self.at[request.who]
            if done.call in ("read", "renew") and done.key == self.world.home_key
        ]
        looked = max(reads, default=-1)
        return all(looked < self.last(logout, "delete") for logout in self.ended) and (
            self.world.over is None or looked < self.world.over
        )

    def cookies_are_left_alone(self) -> None:
        world = self.world
        logins = [request for request in self.requests if self.logs_in(request) and request.saved]
        for request in self.requests:
            told = request.deleted or request.cookie is not None
            # Whose session is over may be told so, unless somebody has logged in meanwhile.
            live = [login for login in logins if login is not request and login.cookie and self.views[login.cookie]]
            since = [login for login in live if self.last(login, "set") < self.last(request)]
            expired = world.over is not None and not since
            if request.deleted and not request.handler.ends and not expired:
                self.fail("only a logout deletes the cookie", request)
            if not told or request.handler.ends or self.logs_in(request) or request.handler.fresh:
                continue
            expected = not request.saw and (self.dead or world.later or self.unclear)
            if not request.handler.rotates and not expected and not world.due and world.over is None:
                self.fail("who neither rotates nor renews sends no cookie", request)
            for login in logins:
                if not expected and self.last(request) > self.last(login, "set") >= 0:
                    self.fail("the cookie of a login is not replaced", request, login)
        for login in logins:
            if login.cookie is None and not self.dead and not self.unclear and not login.blind:
                self.fail("a login has a cookie", login)
        rivals = any(request.handler.ends or request.handler.fresh for request in self.requests)
        simple = not world.network and not world.due and not world.later and not rivals
        if any(login.cookie for login in logins) and simple:
            theirs = [request.cookie for request in self.requests if self.logs_in(request)]
            if world.browser.cookie not in theirs:
                self.fail("the browser holds the cookie of a login")

    def what_was_logged_out_stays_gone(self) -> None:
        """Without swaps.

        Not promised there: that a change survives one made at the same time; that a session stays gone, or an old id
        dead, when a write overlaps the logout or the rotation. So only logouts that nothing overlaps are looked at.
        """
        for logout in self.ended:
            if not logout.saw:  # an old id finds nothing there, and so ends nothing
                continue
            begun, done = self.at[logout.who][0][0], self.last(logout)
            for other in self.requests:
                ats = [at for at, _ in self.at[other.who]]
                if other is not logout and self.last(other, "set") >= 0 and ats[0] < done and ats[-1] > begun:
                    return
            for cookie, view in self.views.items():
                if any(view.get(key) == value for key, value in START.items() if value):
                    self.fail("what was logged out stays gone", cookie)


def normal(data: Data) -> Data:
    """Data in which the order of what was appended does not count."""
    return data | {"items": sorted(data["items"])} if "items" in data else data
