"""Django: its own tests pass on our engine, and its users keep all that they know."""

from __future__ import annotations

import asyncio
import importlib.util
import unittest
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings

from session_kit import ConfigError, CookieOptions, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Schedule, SteppedDriver
from tests.harness.django_site import client, driver
from tests.harness.django_source import unpack_django
from tests.harness.sessions import SECRET, take_down
from tests.harness.steps import at_every_step

__all__ = ["client", "driver"]  # fixtures

from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, override_settings

from session_kit.integrations.django import SessionMiddleware, SessionStore
from session_kit.integrations.django.settings import once

# --- Django's own tests ---


@pytest.fixture(scope="session")
def own_tests(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module `sessions_tests.tests` of the source package of the Django that is installed."""
    source = unpack_django(tmp_path_factory.mktemp("django")) / "sessions_tests" / "tests.py"
    # The mixin alone: what follows it tests Django's own backends. Nothing of it needs the test models.
    lines = source.read_text().split("class DatabaseSessionTests")[0].splitlines()
    text = "\n".join(line for line in lines if not line.startswith("from .models"))
    kept = source.with_name("own_session_tests.py")
    kept.write_text(text)
    spec = importlib.util.spec_from_file_location("own_session_tests", kept)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("url", ["memory://", "disk://", "valkey"])
def test_djangos_own_session_tests_pass(
    own_tests: Any, url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if url == "valkey":
        url = request.getfixturevalue("valkey").url
    elif url == "disk://":
        url = f"disk://{tmp_path}"

    class OurSessionTests(own_tests.SessionTestsMixin, django.test.SimpleTestCase):  # type: ignore[misc,name-defined]
        backend = SessionStore

    with override_settings(SESSION_KIT={"store": url}):
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(OurSessionTests)
        result = unittest.TestResult()
        suite.run(result)
    assert result.errors + result.failures == []
    assert result.testsRun == 65
    print(f"{result.testsRun} of Django's own session tests passed, {len(result.skipped)} skipped")


# --- what its users know ---


def test_each_kind_of_request_costs_what_the_budget_says(driver: CountingDriver) -> None:
    client = Client()
    for name, calls in (("read", 0), ("write", 1), ("untouched", 0), ("read", 1), ("write?value=eve", 2), ("flush", 2)):
        driver.reset()
        response = client.get(f"/{name}")
        assert response.status_code == 200
        assert len(driver.calls) == calls, name
        assert ("Vary" in response.headers) == (name != "untouched")


def test_what_is_written_is_read(client: Client) -> None:
    client.get("/write")
    assert client.get("/read").json() == {"value": "ada"}
    assert client.get("/count").json() == {"count": 1}
    assert client.get("/count").json() == {"count": 2}
    client.get("/nested")
    assert client.get("/nested").json() == {"cart": ["apple", "apple"]}


def test_a_rotation_keeps_the_data_and_changes_the_cookie(client: Client) -> None:
    client.get("/write")
    before = client.cookies.output()
    client.get("/rotate")
    assert client.cookies.output() != before
    assert client.get("/read").json() == {"value": "ada"}


def test_a_logout_ends_the_session(client: Client) -> None:
    client.get("/write")
    old = {name: morsel.value for name, morsel in client.cookies.items()}
    client.get("/flush")
    client.cookies.load(old)
    assert client.get("/read").json() == {"value": None}


def test_what_is_cleared_unread_is_gone(client: Client) -> None:
    client.get("/write")
    client.get("/clear")
    assert client.get("/read").json() == {"value": None}


def test_a_view_that_raises_has_changed_nothing(client: Client) -> None:
    client.get("/write")
    assert client.get("/fail").status_code == 500
    assert client.get("/read").json() == {"value": "ada"}


def test_messages_are_shown_once(client: Client) -> None:
    client.get("/flash")
    assert client.get("/flashed").json() == {"messages": ["hello"]}
    assert client.get("/flashed").json() == {"messages": []}


def test_async_views_read_and_write(client: Client, driver: CountingDriver) -> None:
    async def steps() -> None:
        visitor = AsyncClient()
        assert (await visitor.get("/async_write")).json() == {"value": "async"}
        assert (await visitor.get("/async_write")).status_code == 200
        assert (await visitor.get("/read")).json() == {"value": "async"}

    asyncio.run(steps())


@pytest.mark.parametrize(("path", "left"), [("/async_poll", None), ("/async_write", "async")])
def test_a_poll_by_an_async_view_is_no_use(path: str, left: str | None) -> None:
    clock = ManualClock()
    # As on a network, the session is loaded before the view.
    driver = SteppedDriver(MemoryDriver(clock=clock), Schedule())
    kit = {"store": UnstorageSessionStore(driver, ttl=100, clock=clock), "clock": clock}

    async def steps() -> None:
        visitor = AsyncClient()
        await visitor.get("/async_write")
        for _ in range(12):
            clock.advance(10)
            await visitor.get(path)
        assert (await visitor.get("/async_poll")).json() == {"value": left}

    with override_settings(SESSION_KIT=kit):
        asyncio.run(steps())


def test_a_poll_renews_no_cookie_where_every_request_is_saved() -> None:
    async def steps() -> list[bool]:
        visitor = AsyncClient()
        await visitor.get("/async_write")
        return [bool((await visitor.get(path)).cookies) for path in ("/read", "/async_poll")]

    kit = {"store": UnstorageSessionStore(SteppedDriver(MemoryDriver(), Schedule()))}
    with override_settings(SESSION_KIT=kit, SESSION_SAVE_EVERY_REQUEST=True):
        assert asyncio.run(steps()) == [True, False]


def test_a_change_in_a_stream_is_stored(driver: CountingDriver) -> None:
    client = Client()
    client.get("/write")
    response = client.get("/stream")
    assert b"".join(response.streaming_content) == b"onetwo"  # type: ignore[attr-defined]
    response.close()
    assert client.get("/read").json() == {"value": "late"}


def test_a_stream_that_raises_has_changed_nothing(driver: CountingDriver) -> None:
    client = Client()
    client.get("/write")
    response = client.get("/broken_stream")
    with pytest.raises(RuntimeError, match="broken"):
        list(response.streaming_content)  # type: ignore[attr-defined]
    response.close()
    assert client.get("/read").json() == {"value": "ada"}


def test_an_asynchronous_stream_that_raises_has_changed_nothing(driver: CountingDriver) -> None:
    async def visit() -> Any:
        client = AsyncClient()
        await client.get("/write")
        response: Any = await client.get("/async_broken_stream")
        with pytest.raises(RuntimeError, match="broken"):
            _ = [part async for part in response.streaming_content]
        await asyncio.to_thread(response.close)
        return (await client.get("/read")).json()

    assert asyncio.run(visit()) == {"value": "ada"}


def test_what_outlives_an_async_view_whose_client_has_left_is_told(client: Client) -> None:
    requests: list[Any] = []

    async def view(request: HttpRequest) -> HttpResponse:
        requests.append(request)
        request.session["key"] = "lost"
        raise asyncio.CancelledError  # as Django's handler cancels it

    async def visit() -> None:
        with override_settings(MIDDLEWARE=[]):
            middleware: Any = SessionMiddleware(view)
        with pytest.raises(asyncio.CancelledError):
            await middleware(AsyncRequestFactory().get("/"))
        with pytest.raises(SessionError, match="has ended"):
            requests[0].session["late"] = 1

    asyncio.run(visit())


def test_set_expiry_zero_ends_with_the_browser(client: Client) -> None:
    client.get("/browser")
    (morsel,) = client.cookies.values()
    assert morsel["max-age"] == ""


def test_login_and_logout_work(client: Client) -> None:
    from django.contrib.auth import SESSION_KEY, logout
    from django.contrib.auth.models import User
    from django.contrib.auth.signals import user_logged_in

    request = HttpRequest()
    request.META["HTTP_COOKIE"] = ""
    seen: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        from django.contrib.auth import login

        user = User(pk=7, password="x")
        receivers, user_logged_in.receivers = user_logged_in.receivers, []  # it would write to the database
        try:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        finally:
            user_logged_in.receivers = receivers
        seen.append(request.session[SESSION_KEY])
        logout(request)
        seen.append(SESSION_KEY in request.session)
        return HttpResponse("ok")

    from django.utils.module_loading import import_string

    middleware = import_string(settings.MIDDLEWARE[0])(view)
    assert middleware(request).status_code == 200
    assert seen == ["7", False]


def test_two_requests_keep_both_their_changes(driver: CountingDriver) -> None:
    first = SessionStore()
    first["x"] = 0
    first.save()
    slow, fast = SessionStore(first.session_key), SessionStore(first.session_key)
    slow["a"], fast["b"] = 1, 2
    slow.update(lambda data: {"x": data["x"] + 1})
    fast.update(lambda data: {"x": data["x"] + 1})
    fast.save()
    slow.save()
    assert dict(SessionStore(first.session_key).items()) == {"x": 2, "a": 1, "b": 2}


def test_what_djangos_serializer_would_convert_is_converted(driver: CountingDriver) -> None:
    session = SessionStore()
    session["pair"] = (1, 2)
    session.save()
    assert SessionStore(session.session_key)["pair"] == [1, 2]


def test_clearsessions_drops_what_has_expired(tmp_path: Path) -> None:
    with override_settings(SESSION_KIT={"store": f"file://{tmp_path}"}):
        session = SessionStore()
        session["x"] = 1
        session.save()
        assert any(entry.is_file() for entry in tmp_path.rglob("*"))
        call_command("clearsessions")
        assert SessionStore(session.session_key)["x"] == 1


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
def test_an_outage_with_the_shared_cookie(on_error: str) -> None:
    faulty = FaultyDriver(MemoryDriver())
    with override_settings(SESSION_KIT={"store": UnstorageSessionStore(faulty), "on_error": on_error}):
        client = Client()
        client.get("/write")
        take_down(faulty)
        assert client.get("/untouched").status_code == 200
        answers = [client.get("/read"), client.get("/write?value=eve"), Client().get("/write")]
        assert [r.status_code for r in answers] == ([503] * 3 if on_error == "raise" else [200] * 3)
        faulty.heal()
        assert client.get("/read").json() == {"value": "ada"}


@override_settings(SESSION_COOKIE_NAME="session")
def test_the_cookie_is_the_one_that_all_share(driver: CountingDriver) -> None:
    client = Client()
    client.get("/write")
    manager = SessionManager(settings.SESSION_KIT["store"], SECRET)
    assert manager.open(client.cookies.output(header="").strip().split(";")[0])["user"] == "ada"


def test_sessions_of_the_shared_cookie_end_by_the_clock_that_was_given() -> None:
    clock = ManualClock()
    kit = {"store": "memory://", "clock": clock}
    with override_settings(SESSION_KIT=kit, SESSION_COOKIE_AGE=100):
        client = Client()
        client.get("/write")
        clock.advance(90)
        assert client.get("/read").json() == {"value": "ada"}
        clock.advance(120)
        assert client.get("/read").json() == {"value": None}


def test_what_a_view_saved_by_name_before_it_failed_gets_its_cookie(driver: CountingDriver) -> None:
    client = Client(raise_request_exception=False)
    client.get("/save_and_fail")
    assert client.get("/read").json() == {"value": "saved"}


def test_impossible_settings_are_refused() -> None:
    for kit, message in (({}, "needs a store"), (None, "SESSION_KIT is missing"), ({"store": object()}, "not object")):
        with override_settings(SESSION_KIT=kit), pytest.raises(ConfigError, match=message):
            SessionStore("some-key-of-djangos").load()
    with (
        override_settings(SESSION_KIT={"store": "memory://", "touch_aftr": 3}),
        pytest.raises(ConfigError, match="unknown option 'touch_aftr'"),
    ):
        Client().get("/read")
    assert CookieOptions()


def test_threads_that_come_first_share_one_store() -> None:
    def scene() -> Any:
        make, others = once("NO_SUCH_SETTING")(object), list[object]()

        def come() -> None:
            ours = make()
            assert all(each is ours for each in others)

        return come, lambda: others.append(make())

    at_every_step(scene)
