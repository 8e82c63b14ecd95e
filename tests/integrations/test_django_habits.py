"""Django's users and packages find what they know from Django's own sessions, under its middleware and under ours."""

from __future__ import annotations

import asyncio
import copy
import http.cookies
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings

from session_kit import CookieOptions, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock
from tests.harness.django_site import ENGINE, OURS, client, driver, tests_set_up
from tests.harness.sessions import SlowDriver, take_down

__all__ = ["client", "driver", "tests_set_up"]  # fixtures

from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.http import QueryDict
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils.translation import gettext_lazy

from session_kit.integrations.django import SessionMiddleware, SessionStore
from session_kit.integrations.django.checks import check_secret, check_settings
from session_kit.integrations.django.settings import store

AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"


def put_forward(seconds: float) -> None:
    settings.SESSION_KIT["clock"].advance(seconds)


@pytest.fixture(params=["engine", "shared cookie"])
def timed(request: pytest.FixtureRequest) -> Iterator[Client]:
    kit = {"store": "memory://", "clock": ManualClock()}
    middleware = ENGINE if request.param == "engine" else settings.MIDDLEWARE
    with override_settings(SESSION_KIT=kit, SESSION_COOKIE_AGE=1000, MIDDLEWARE=middleware):
        yield Client()


@pytest.fixture
def ada() -> Iterator[User]:
    call_command("migrate", verbosity=0)
    user, _ = User.objects.get_or_create(username="ada")
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, AUTH]):
        yield user


def cookie_id(client: Client) -> str:
    """The id of a client's session."""
    key = SessionStore(client.cookies[settings.SESSION_COOKIE_NAME].value).session_key
    assert key is not None
    return key


def cookie_of(response: Any) -> Any:
    return response.cookies[settings.SESSION_COOKIE_NAME]


# --- the key ---


@pytest.mark.parametrize("view", ["visit", "first_save"])
def test_each_first_visit_has_a_key_of_its_own_that_fits_into_40_letters(client: Client, view: str) -> None:
    answers = [Client().get(f"/{view}") for _ in range(3)]
    keys = {answer.content.decode() for answer in answers}
    assert len(keys) == 3
    assert {len(key) for key in keys} == {39}
    assert {SessionStore(cookie_of(answer).value).session_key for answer in answers} == keys
    assert all(SessionStore().exists(key) for key in keys)


def test_the_key_of_a_login_is_known_before_it_is_saved(driver: CountingDriver) -> None:
    session = SessionStore()
    session.cycle_key()
    session["user"] = "ada"
    key = session.session_key
    assert key is not None
    session.save()
    assert session.session_key == key
    assert SessionStore(key)["user"] == "ada"


def test_the_class_of_a_session_opens_it_again_by_its_key(client: Client) -> None:
    client.get("/write")
    request = client.get("/read").wsgi_request
    again = request.session.__class__(request.session.session_key)
    assert again["user"] == "ada"
    again["user"] = "eve"
    again.save()
    assert client.get("/read").json() == {"value": "eve"}


@pytest.mark.parametrize("then", ["", "?change=1"])
def test_a_session_that_is_saved_and_opened_again_by_its_key_gets_its_cookie(driver: CountingDriver, then: str) -> None:
    client = Client()
    for _ in range(2):
        client.get(f"/reopened{then}")
        session = SessionStore(client.cookies[settings.SESSION_COOKIE_NAME].value)
        assert dict(session.items()) == ({"a": 1, "user": "ada"} if then else {"a": 1})


def test_an_unknown_key_is_never_adopted(driver: CountingDriver) -> None:
    for key in ("made-up-key-of-somebody", "name~token", "ä" * 20, "x" * 5000, "a.b", "~~~~~~~~"):
        session = SessionStore(key)
        session["user"] = "eve"
        session.save()
        assert session.session_key != key
        assert not session.exists(key)


def test_a_cycled_key_does_not_revive_a_flushed_session(driver: CountingDriver) -> None:
    session = SessionStore()
    session["secret"] = "of ada"
    session.save()
    late = SessionStore(session.session_key)
    assert late["secret"] == "of ada"
    SessionStore(session.session_key).flush()
    late.cycle_key()
    late["theme"] = "dark"
    late.save()
    assert late.session_key is not None
    assert dict(SessionStore(late.session_key).items()) == {"theme": "dark"}
    assert not late.exists(session.session_key)


def test_clear_drops_the_data_and_keeps_the_key(client: Client) -> None:
    client.get("/write")
    before = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.get("/clear")
    assert client.get("/read").json() == {"value": None}
    assert client.cookies[settings.SESSION_COOKIE_NAME].value == before
    assert SessionStore().exists(before)


# --- how long it lives ---


def test_set_expiry_is_kept_to_the_second(timed: Client) -> None:
    timed.get("/write")
    assert cookie_of(timed.get("/expire?after=100"))["max-age"] in (100, "100")
    put_forward(99)
    assert timed.get("/read").json() == {"value": "ada"}
    timed.get("/expire?after=50")
    put_forward(51)
    assert timed.get("/read").json() == {"value": None}


def test_set_expiry_zero_on_a_stored_session_ends_with_the_browser(timed: Client) -> None:
    timed.get("/write")
    assert cookie_of(timed.get("/expire?after=0"))["max-age"] == ""
    put_forward(900)
    assert timed.get("/read").json() == {"value": "ada"}


def test_set_expiry_in_the_past_ends_the_session_at_once(timed: Client) -> None:
    timed.get("/write")
    key = cookie_of(timed).value
    assert cookie_of(timed.get("/expire?after=-1"))["max-age"] in (-1, "0")
    timed.cookies[settings.SESSION_COOKIE_NAME] = key
    assert timed.get("/read").json() == {"value": None}


def test_a_date_and_a_timedelta_end_a_session(driver: CountingDriver) -> None:
    session = SessionStore()
    session.set_expiry(timedelta(seconds=300))
    session.save()
    assert 298 <= SessionStore(session.session_key).get_expiry_age() <= 300
    assert 298 <= session.session.expires_in <= 300


@pytest.mark.parametrize("by", ["sync", "async"])
def test_the_last_word_counts_of_remember_and_set_expiry(by: str) -> None:
    async def both() -> None:
        session = SessionStore()
        await session.aset("user", "ada")
        for first, then in ((600, 2), (0, None)):
            await (session.aset_expiry(first) if by == "async" else sync_to_async(session.set_expiry)(first))
            await session.session.aremember(days=1)
            await session.asave()
            assert session.session.persistent
            assert 86_400 <= session.session.expires_in <= 86_700
            await (session.aset_expiry(then) if by == "async" else sync_to_async(session.set_expiry)(then))
            await session.asave()
            assert not session.session.persistent or then
            assert session.session.expires_in <= (2 if then else 1100)

    with override_settings(SESSION_KIT={"store": "memory://", "remember": "30d"}, SESSION_COOKIE_AGE=1000):
        asyncio.run(both())


def test_save_every_request_slides_the_session_and_its_cookie(timed: Client) -> None:
    timed.get("/write")
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        assert not Client().get("/untouched").cookies
        for _ in range(3):
            put_forward(990)
            assert cookie_of(timed.get("/untouched")).value
    assert timed.get("/read").json() == {"value": "ada"}


def test_modified_true_renews_and_modified_false_drops(timed: Client) -> None:
    timed.get("/write")
    timed.get("/unsaved")
    assert timed.get("/read").json() == {"value": "ada"}
    for _ in range(3):
        put_forward(990)
        assert cookie_of(timed.get("/renewed")).value


@pytest.mark.parametrize("secure", [True, False])
def test_the_cookie_is_secure_as_the_setting_says(client: Client, secure: bool) -> None:
    with override_settings(SESSION_COOKIE_SECURE=secure):
        assert bool(cookie_of(client.get("/write"))["secure"]) is secure


def test_a_cookie_that_nobody_set_up_is_secure_unless_in_development(driver: CountingDriver) -> None:
    assert cookie_of(Client(headers={"host": "shop.example.com"}).get("/write", secure=True))["secure"]
    with override_settings(DEBUG=True):
        assert not cookie_of(Client(headers={"host": "localhost"}).get("/write"))["secure"]


def test_attributes_that_python_does_not_know_are_sent_without_changing_pythons_cookies(driver: CountingDriver) -> None:
    names = set(http.cookies.Morsel._reserved)  # type: ignore[attr-defined]
    kit = {**settings.SESSION_KIT, "cookie": CookieOptions(partitioned=True, priority="high")}
    with override_settings(SESSION_KIT=kit):
        sent = Client().get("/write", secure=True).cookies.output()
    assert "Partitioned" in sent
    assert "Priority=High" in sent
    assert set(http.cookies.Morsel._reserved) == names  # type: ignore[attr-defined]
    assert "priority" not in names


@pytest.mark.parametrize("debug", [True, False])
def test_a_cookie_with_a_priority_keeps_what_djangos_settings_say(driver: CountingDriver, debug: bool) -> None:
    kit = {**settings.SESSION_KIT, "cookie": CookieOptions(partitioned=True, priority="high")}
    with override_settings(
        SESSION_KIT=kit, SESSION_COOKIE_SAMESITE="Strict", SESSION_COOKIE_DOMAIN="testserver", DEBUG=debug
    ):
        sent = Client().get("/write", secure=True).cookies.output()
    for part in ("Domain=testserver", "Partitioned", "Priority=High", "SameSite=Strict", "Secure"):
        assert part in sent


# --- the rest of Django's API ---


def test_load_encode_decode_and_deepcopy(driver: CountingDriver) -> None:
    assert SessionStore().load() == {}
    session = SessionStore()
    assert session.decode(session.encode({"a": 1})) == {"a": 1}
    assert session.decode("garbage") == {}
    session["cart"] = ["apple"]
    session.save()
    session["cart"].append("pear")
    twin = copy.deepcopy(session)
    twin["cart"].append("plum")
    assert session["cart"] == ["apple", "pear"]
    assert twin.session_key == session.session_key
    assert session.load() == {"cart": ["apple"]}
    twin.save()
    assert SessionStore(session.session_key)["cart"] == ["apple", "pear", "plum"]


def test_in_async_code_it_is_known_that_a_session_was_looked_at() -> None:
    async def steps() -> None:
        session = SessionStore()
        assert not session.accessed
        await session.aset("a", 1)
        await session.asave()
        again = SessionStore(session.session_key)
        assert await again.aget("a") == 1
        assert again.accessed
        assert again["a"] == 1  # loaded by now
        unloaded = SessionStore(session.session_key)
        for call in (lambda: unloaded["a"], unloaded.save, unloaded.flush):
            with pytest.raises(SynchronousOnlyOperation, match="aget"):
                call()
        unloaded.clear()
        await unloaded.asave()
        assert await SessionStore(session.session_key).aload() == {}
        await session.aclear_expired()

    with override_settings(SESSION_KIT={"store": UnstorageSessionStore(SlowDriver(MemoryDriver()))}):
        asyncio.run(steps())


def test_tuples_lazy_strings_and_safe_ones_are_kept_as_django_keeps_them(client: Client) -> None:
    assert client.get("/lazy").status_code == 200
    assert client.get("/read").json() == {"value": "Yes"}
    session = SessionStore(client.cookies[settings.SESSION_COOKIE_NAME].value)
    assert session["pair"] == {"at": [1, "<b>"], "7": "number"}
    session["late"] = [gettext_lazy("No")]
    assert session.modified
    session.save()
    assert not SessionStore(session.session_key).modified


@pytest.mark.parametrize("wrap", [lambda form: form, lambda form: [{"in": form}]])
def test_a_form_that_is_kept_comes_back_as_from_djangos_own_sessions(wrap: Any) -> None:
    session = SessionStore()
    session["filter"] = wrap(QueryDict("size=s&size=m&color=red"))
    session.save()
    assert SessionStore(session.session_key)["filter"] == wrap({"size": "m", "color": "red"})


def test_the_token_against_forgery_may_be_in_the_session(client: Client) -> None:
    with override_settings(
        CSRF_USE_SESSIONS=True, MIDDLEWARE=[*settings.MIDDLEWARE, "django.middleware.csrf.CsrfViewMiddleware"]
    ):
        strict = Client(enforce_csrf_checks=True)
        token = strict.get("/csrf").content.decode()
        assert strict.post("/write").status_code == 403
        assert strict.post("/write", {"csrfmiddlewaretoken": token}).status_code == 200


def test_a_user_can_be_logged_out_everywhere(client: Client) -> None:
    others = [Client(), Client()]
    for each in (client, *others):
        assert each.get("/bind").status_code == 200
    assert [info.label for info in store().sessions_of("ada")] == ["here"] * 3
    assert store().revoke("ada", keep=cookie_id(client)) == 2
    assert client.get("/read").json() == {"value": "ada"}
    for each in others:
        assert each.get("/read").json() == {"value": None}


# --- requests that overlap ---


def test_a_logout_elsewhere_goes_quietly_with_the_shared_cookie(driver: CountingDriver) -> None:
    client = Client()
    client.get("/write")
    response = client.get("/overlapped")
    assert response.status_code == 200
    assert not response.cookies
    assert client.get("/read").json() == {"value": None}


def test_a_logout_elsewhere_is_djangos_own_error_under_its_middleware(driver: CountingDriver) -> None:
    with override_settings(MIDDLEWARE=ENGINE):
        client = Client(raise_request_exception=False)
        client.get("/write")
        assert client.get("/overlapped").status_code == 400
        assert client.get("/read").json() == {"value": None}


def test_a_late_reader_with_the_old_key_leaves_the_new_cookie_alone(client: Client) -> None:
    client.get("/write")
    old = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.get("/rotate")
    late = Client()
    late.cookies[settings.SESSION_COOKIE_NAME] = old
    response = late.get("/read")
    assert response.json() == {"value": None}
    assert not response.cookies


def test_a_writer_whose_key_was_changed_elsewhere_never_gets_the_new_one(driver: CountingDriver) -> None:
    session = SessionStore()
    session["a"] = 1
    session.save()
    slow, login = SessionStore(session.session_key), SessionStore(session.session_key)
    slow["b"] = 2
    login.cycle_key()
    login.save()
    with pytest.raises(UpdateError):
        slow.save()
    assert slow.session_key != login.session_key
    assert dict(SessionStore(login.session_key).items()) == {"a": 1, "b": 2}


def test_an_anonymous_outage_deletes_nobodys_cookie(client: Client) -> None:
    faulty = FaultyDriver(MemoryDriver())
    with override_settings(SESSION_KIT={"store": UnstorageSessionStore(faulty), "on_error": "anonymous"}):
        client = Client()
        client.get("/write")
        take_down(faulty)
        for view in ("read", "write?value=eve"):
            response = client.get(f"/{view}")
            assert (response.status_code, len(response.cookies)) == (200, 0)
        faulty.heal()
        assert client.get("/read").json() == {"value": "ada"}


# --- the test client ---


@pytest.mark.usefixtures("tests_set_up")
def test_force_login_and_the_session_of_the_test_client(client: Client, ada: User) -> None:
    client.force_login(ada)
    assert client.get("/who").json() == {"user": ada.pk}
    session = client.session
    session["user"] = "ada"
    session.save()
    assert client.get("/read").json() == {"value": "ada"}
    assert client.get("/write?value=eve").status_code == 200
    assert client.session["user"] == "eve"
    client.logout()
    assert client.get("/who").json() == {"user": None}

    fresh = Client()
    assert fresh.session.session_key is not None
    fresh.get("/write")
    assert fresh.session["user"] == "ada"


@pytest.mark.usefixtures("tests_set_up", "driver")
@pytest.mark.parametrize("middleware", ["engine", "shared cookie"])
def test_alogin_and_the_async_test_client(ada: User, middleware: str) -> None:
    async def steps() -> None:
        client = AsyncClient()
        await client.aforce_login(ada)
        assert (await client.get("/who")).json() == {"user": ada.pk}
        assert await (await client.asession()).aget("_auth_user_id") == str(ada.pk)
        await client.alogout()
        assert (await client.get("/who")).json() == {"user": None}

    used = settings.MIDDLEWARE if middleware == "shared cookie" else [*ENGINE, AUTH]
    with override_settings(MIDDLEWARE=used):
        asyncio.run(steps())


@pytest.mark.usefixtures("tests_set_up")
def test_the_test_client_may_put_a_user_into_a_session_without_changing_its_key(client: Client) -> None:
    session = client.session
    session["user"] = "ada"
    session.save()
    assert client.get("/read").json() == {"value": "ada"}


def test_a_login_by_hand_gets_a_new_key_with_the_shared_cookie(driver: CountingDriver) -> None:
    client = Client()
    client.get("/nested")
    before = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.get("/write")
    assert not SessionStore().exists(before)
    assert client.get("/read").json() == {"value": "ada"}


def test_outside_of_tests_a_bare_id_opens_nothing(driver: CountingDriver) -> None:
    client = Client()
    client.get("/write")
    signed = client.cookies[settings.SESSION_COOKIE_NAME].value
    bare = SessionStore(signed).session_key
    assert bare
    client.cookies[settings.SESSION_COOKIE_NAME] = bare
    assert client.get("/read").json() == {"value": None}
    client.cookies[settings.SESSION_COOKIE_NAME] = signed
    assert client.get("/read").json() == {"value": "ada"}


def test_the_middleware_works_by_its_two_halves_as_tests_call_them(driver: CountingDriver) -> None:
    request = RequestFactory().get("/")
    SessionMiddleware(lambda request: None).process_request(request)
    request.session["user"] = "ada"
    request.session.save()
    assert SessionStore(request.session.session_key)["user"] == "ada"


def test_a_login_costs_two_calls_and_the_old_key_is_dead(driver: CountingDriver, ada: User) -> None:
    from django.contrib.auth import login

    session = SessionStore()
    session["cart"] = ["apple"]
    session.save()
    request = RequestFactory().get("/")
    request.session = SessionStore(session.session_key)
    driver.reset()
    login(request, ada, backend="django.contrib.auth.backends.ModelBackend")
    request.session.save()
    assert len(driver.calls) == 2
    assert not SessionStore().exists(session.session_key)
    assert SessionStore(request.session.session_key)["cart"] == ["apple"]


# --- the settings ---


def test_a_new_projects_secret_key_is_a_warning_of_the_checks_and_no_error() -> None:
    with override_settings(SECRET_KEY="django-insecure-" + "x9-" * 17, SESSION_KIT={"store": "memory://"}):
        client = Client()
        client.get("/write")
        assert client.get("/read").json() == {"value": "ada"}
        assert check_settings() == []
        assert [found.id for found in check_secret()] == ["session_kit.W004"]
    assert check_secret() == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"SESSION_KIT": {"store": "memry://"}}, ["session_kit.E001"]),
        ({"SESSION_KIT": None}, ["session_kit.E001"]),
        ({"MIDDLEWARE": [*settings.MIDDLEWARE, *ENGINE]}, ["session_kit.E002"]),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}, ["session_kit.W001"]),
        ({"SESSION_KIT": {"store": "memory://", "name": "shop"}}, ["session_kit.W002"]),
        ({"SESSION_KIT": {"store": "memory://", "generate_id": lambda: "i" * 20}}, ["session_kit.W003"]),
        ({}, []),
    ],
)
def test_the_checks_say_what_does_not_fit_together(changes: dict[str, Any], found: list[str]) -> None:
    with override_settings(**changes):
        assert [message.id for message in check_settings()] == found


def test_two_session_middlewares_are_refused_at_start() -> None:
    with override_settings(MIDDLEWARE=[*ENGINE, *settings.MIDDLEWARE]), pytest.raises(Exception, match="two session"):
        Client().get("/read")


def test_the_shared_cookie_is_named_as_the_setting_says(driver: CountingDriver) -> None:
    with override_settings(SESSION_COOKIE_NAME="shop"):
        client = Client()
        client.get("/write")
        manager = SessionManager(settings.SESSION_KIT["store"], settings.SECRET_KEY, name="shop")
        assert manager.open(f"shop={client.cookies['shop'].value}")["user"] == "ada"


def test_the_middleware_is_a_subclass_of_djangos_as_the_admin_asks(driver: CountingDriver) -> None:
    from django.contrib.sessions.middleware import SessionMiddleware as Theirs

    assert issubclass(SessionMiddleware, Theirs)
    assert settings.MIDDLEWARE[0] == f"{OURS}.SessionMiddleware"
