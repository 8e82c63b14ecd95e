"""Packages for Django: on its own sessions, then ours as an engine under its own middleware, then with our cookie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django_project as project
import pytest
from conftest import OWN, url_of
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from harness.servers import Valkey
from provider import CLIENT_ID, CLIENT_SECRET, Provider
from visitor import STORES, Form, Visit, Visitor

pytestmark = pytest.mark.filterwarnings("ignore")
ENGINE = "session_kit.integrations.django"
OURS = [f"{way}, {store}" for way in ("engine", "shared cookie") for store in STORES]
MakeApp = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _database() -> None:
    call_command("migrate", verbosity=0)
    for name in ("ada", "bob"):
        User.objects.create_superuser(name, f"{name}@shop.test", "pw")


@pytest.fixture(autouse=True)
def _two_users() -> None:
    """No others, such as packages make for visitors."""
    User.objects.exclude(username__in=["ada", "bob"]).delete()


@pytest.fixture(params=[OWN, *OURS])
def make_app(request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey, provider: Provider) -> Iterator[MakeApp]:
    """Makes the project's WSGI application on some sessions; takes middleware that a package wants besides."""
    way, _, store = request.param.partition(", ")
    middleware = [
        f"{'session_kit.integrations.django' if way == 'shared cookie' else 'django.contrib.sessions.middleware'}"
        ".SessionMiddleware",
        *settings.MIDDLEWARE,
    ]
    ours = {} if way == OWN else {"SESSION_ENGINE": ENGINE, "SESSION_KIT": {"store": url_of(store, tmp_path, valkey)}}
    if way == "shared cookie":
        ours["SESSION_COOKIE_NAME"] = "session"
    with override_settings(
        **ours,
        OIDC_OP_AUTHORIZATION_ENDPOINT=f"{provider.url}/authorize",
        OIDC_OP_TOKEN_ENDPOINT=f"{provider.url}/token",
        OIDC_OP_USER_ENDPOINT=f"{provider.url}/user",
        SOCIAL_AUTH_OIDC_OIDC_ENDPOINT=provider.url,
        CAS_SERVER_URL=f"{provider.url}/cas/",
        SOCIALACCOUNT_PROVIDERS={
            "openid_connect": {
                "APPS": [
                    {
                        "provider_id": "provider",
                        "name": "provider",
                        "client_id": CLIENT_ID,
                        "secret": CLIENT_SECRET,
                        "settings": {"server_url": provider.url},
                    }
                ]
            }
        },
    ):

        def make(*more: str, of: Callable[[], Any] = get_wsgi_application) -> Any:
            with override_settings(MIDDLEWARE=[*middleware, *more]):
                return of()

        yield make


@pytest.fixture
def ada(make_app: MakeApp, visit: Visit) -> Visitor:
    """A visitor who is nobody yet."""
    return visit(make_app())


def user_of(visitor: Visitor) -> str:
    return str(json.loads(visitor.text("/who"))["user"])


def post(visitor: Visitor, path: str, **fields: str) -> Any:
    """Send what a page's button sends."""
    return visitor.post(path, data=Form(visitor.text("/token")).hidden | fields)


def log_in(visitor: Visitor, name: str = "ada") -> None:
    assert visitor.submit("/admin/login/", username=name, password="pw", next="/who").status_code == 302
    assert user_of(visitor) == name


def log_out(visitor: Visitor) -> None:
    post(visitor, "/admin/logout/")
    assert user_of(visitor) == ""


@pytest.mark.package("Django", "Django")
@pytest.mark.parametrize("make_app", OURS, indirect=True)
def test_the_checks(make_app: MakeApp) -> None:
    with override_settings(MIDDLEWARE=make_app(of=lambda: settings.MIDDLEWARE)):
        call_command("check")


@pytest.mark.package("Django", "Django")
def test_the_admin(ada: Visitor) -> None:
    assert ada.get("/admin/").status_code == 302
    log_in(ada)
    assert ada.get("/admin/").status_code == 200
    added = ada.submit("/admin/auth/group/add/", name=f"readers {id(ada)}")
    assert "was added successfully" in ada.text(added.headers["location"])
    assert ada.post("/admin/auth/group/add/", data={"name": "stolen"}).status_code == 403  # CSRF_USE_SESSIONS
    log_out(ada)


@pytest.mark.package("django-allauth", "Django")
def test_allauth(ada: Visitor) -> None:
    assert ada.submit("/accounts/login/", login="ada", password="wrong").status_code == 200
    assert ada.submit("/accounts/login/", login="ada", password="pw").status_code == 302
    assert user_of(ada) == "ada"
    assert ada.submit("/accounts/logout/").status_code == 302
    assert user_of(ada) == ""


@pytest.mark.package("django-allauth", "Django")
def test_allauth_social(ada: Visitor) -> None:
    with override_settings(ACCOUNT_UNIQUE_EMAIL=False):
        back = ada.log_in_at_provider(ada.get("/accounts/oidc/provider/login/"))
        assert back.status_code == 302, back.text
        assert user_of(ada).startswith("ada")
    ada.submit("/accounts/logout/")
    assert user_of(ada) == ""


@pytest.mark.package("django-allauth", "Django")
def test_allauth_usersessions(make_app: MakeApp, visit: Visit) -> None:
    from allauth.usersessions.models import UserSession

    UserSession.objects.all().delete()
    app = make_app()
    here, there = visit(app), visit(app)
    for visitor in (here, there):
        visitor.submit("/accounts/login/", login="ada", password="pw")
        assert user_of(visitor) == "ada"
    keys = {json.loads(visitor.text("/who"))["key"] for visitor in (here, there)}
    assert {found.session_key for found in UserSession.objects.purge_and_list(User.objects.get(username="ada"))} == keys
    here.submit("/accounts/sessions/")
    assert (user_of(here), user_of(there)) == ("ada", "")


@pytest.mark.package("django-two-factor-auth", "Django")
def test_two_factor(ada: Visitor) -> None:
    login = {"login_view-current_step": "auth", "auth-username": "ada", "auth-password": "pw"}
    assert ada.submit("/account/login/", **login).status_code == 302
    assert user_of(ada) == "ada"
    assert "generator" in ada.submit("/account/two_factor/setup/").text
    log_out(ada)


@pytest.mark.package("django-hijack", "Django")
def test_hijack(ada: Visitor) -> None:
    log_in(ada)
    post(ada, "/hijack/acquire/", user_pk=str(User.objects.get(username="bob").pk), next="/who")
    assert user_of(ada) == "bob"
    post(ada, "/hijack/release/", next="/who")
    assert user_of(ada) == "ada"
    log_out(ada)


@pytest.mark.package("django-formtools", "Django")
def test_formtools_wizard(ada: Visitor) -> None:
    log_in(ada)
    first = ada.submit("/wizard", **{"0-name": "apple"})
    done = ada.post("/wizard", data=Form(first.text).hidden | {"1-size": "7"})
    assert done.json() == {"name": "apple", "size": 7}
    log_out(ada)


@pytest.mark.package("mozilla-django-oidc", "Django")
def test_mozilla_django_oidc(ada: Visitor) -> None:
    assert ada.log_in_at_provider(ada.get("/oidc/authenticate/")).headers["location"] == "/who"
    assert user_of(ada) == "ada"
    post(ada, "/oidc/logout/")
    assert user_of(ada) == ""


@pytest.mark.package("channels", "Django")
def test_channels(make_app: MakeApp, visit: Visit) -> None:
    from channels.testing import WebsocketCommunicator
    from websockets.sync.client import connect

    app = make_app(of=project.make_asgi_app)
    ada = visit(app)
    log_in(ada)
    cookie = f"{settings.SESSION_COOKIE_NAME}={ada.cookie_named(settings.SESSION_COOKIE_NAME)}"
    url = str(ada.client.base_url)

    async def talk() -> Any:
        headers = [(b"cookie", cookie.encode()), (b"host", b"testserver")]
        socket = WebsocketCommunicator(app, "/", headers=headers)
        assert (await socket.connect())[0]
        await socket.send_json_to("hello")
        answer = await socket.receive_json_from(timeout=5)
        await socket.disconnect()
        return answer

    if "testserver" in url:
        answer = asyncio.run(talk())
    else:
        with connect(url.replace("http", "ws"), additional_headers={"Cookie": cookie}) as socket:
            socket.send('"hello"')
            answer = json.loads(socket.recv(5))
    assert answer == {"user": "ada"}
    assert json.loads(ada.text("/who"))["said"] == "hello"
    log_out(ada)


@pytest.mark.package("django-loginas", "Django")
def test_loginas(ada: Visitor) -> None:
    log_in(ada)
    assert post(ada, f"/admin/login/user/{User.objects.get(username='bob').pk}/").status_code == 302
    assert user_of(ada) == "bob"
    post(ada, "/admin/logout/")
    assert user_of(ada) == "ada"
    log_out(ada)


@pytest.mark.package("django-impersonate", "Django")
def test_impersonate(ada: Visitor) -> None:
    carl = User.objects.create_user("carl", "carl@shop.test", "pw")
    log_in(ada)
    assert ada.get(f"/impersonate/{carl.pk}/").status_code == 302
    assert user_of(ada) == "carl"
    assert ada.get("/impersonate/stop/").status_code == 302
    assert user_of(ada) == "ada"
    log_out(ada)


@pytest.mark.package("django-su", "Django")
def test_su(ada: Visitor) -> None:
    log_in(ada)
    bob = User.objects.get(username="bob").pk
    assert post(ada, f"/su/{bob}/").status_code == 302
    assert user_of(ada) == "bob"
    assert post(ada, "/su/").status_code == 302
    assert user_of(ada) == "ada"
    log_out(ada)


@pytest.mark.package("django-lockdown", "Django")
def test_lockdown(ada: Visitor) -> None:
    locked = ada.get("/locked")
    assert "password" in locked.text
    assert "password" in ada.post("/locked", data=Form(locked.text).hidden | {"password": "wrong"}).text
    assert ada.post("/locked", data=Form(locked.text).hidden | {"password": "sesame"}).status_code == 302
    assert ada.get("/locked").json()["user"] == ""
    ada.client.cookies.clear()
    assert "password" in ada.get("/locked").text


@pytest.mark.package("django-session-security", "Django")
def test_session_security(make_app: MakeApp, visit: Visit) -> None:
    ada = visit(make_app("session_security.middleware.SessionSecurityMiddleware"))
    log_in(ada)
    assert ada.text("/security/ping/?idleFor=0") in ("0", "1")  # seconds
    log_out(ada)
    assert ada.text("/security/ping/?idleFor=0") == '"logout"'


@pytest.mark.package("django-guest-user", "Django")
def test_guest_user(ada: Visitor) -> None:
    assert user_of(ada) == ""
    ada.client.headers["User-Agent"] = "a browser"
    guest = ada.get("/guest").json()["user"]
    assert guest
    assert user_of(ada) == guest
    log_out(ada)


@pytest.mark.package("django-sesame", "Django")
def test_sesame(ada: Visitor) -> None:
    from sesame.utils import get_query_string

    link = get_query_string(User.objects.get(username="ada"))
    assert ada.get(f"/magic{link}").status_code == 302
    assert user_of(ada) == "ada"
    log_out(ada)


@pytest.mark.package("django-oauth-toolkit", "Django")
def test_oauth_toolkit(ada: Visitor) -> None:
    from oauth2_provider.models import Application

    Application.objects.all().delete()
    Application.objects.create(
        client_id="till",
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="http://127.0.0.1/back",
    )
    ask = "/o/authorize/?response_type=code&client_id=till&redirect_uri=http://127.0.0.1/back"
    assert "/admin/login/" in ada.get(ask).headers["location"]
    log_in(ada)
    allowed = ada.submit(ask, allow="Authorize")
    assert "code=" in allowed.headers["location"]
    log_out(ada)


@pytest.mark.package("social-auth-app-django", "Django")
def test_social_auth(ada: Visitor) -> None:
    back = ada.log_in_at_provider(post(ada, "/social/login/oidc/"))
    assert back.headers.get("location") == "/who", back.text[:500]
    assert user_of(ada).startswith("ada")
    log_out(ada)


@pytest.mark.package("django-cas-ng", "Django")
def test_cas(ada: Visitor) -> None:
    assert ada.log_in_at_provider(ada.get("/cas/login?next=/who")).status_code == 302
    assert user_of(ada) == "ada"
    assert ada.get("/cas/logout").status_code == 302
    assert user_of(ada) == ""


@pytest.mark.package("django-debug-toolbar", "Django")
def test_debug_toolbar(make_app: MakeApp, visit: Visit) -> None:
    with override_settings(DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True}):
        ada = visit(make_app("debug_toolbar.middleware.DebugToolbarMiddleware"))
        log_in(ada)
        for _ in range(2):
            shown = ada.text("/page")
            assert "djDebug" in shown
            assert "ada" in shown
        log_out(ada)
