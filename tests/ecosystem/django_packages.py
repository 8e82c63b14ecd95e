"""One Django project with packages that people run on their sessions; each is logged into, used and logged out of.

    python tests/ecosystem/django_packages.py theirs|engine|shared STORE

Prints a line for each package, `ok` or what went wrong.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings

WAY, STORE = sys.argv[1:]
SESSIONS = "session_kit.integrations.django" if WAY == "shared" else "django.contrib.sessions.middleware"
FOLDER = Path(tempfile.mkdtemp())
OURS: dict[str, Any] = {"SESSION_ENGINE": "session_kit.integrations.django", "SESSION_KIT": {"store": STORE}}

settings.configure(
    SECRET_KEY="django-insecure-of-a-project-that-was-just-started-0123456789",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions" if WAY == "theirs" else "session_kit.integrations.django",
        "allauth",
        "allauth.account",
        "allauth.usersessions",
        "django_otp",
        "django_otp.plugins.otp_static",
        "django_otp.plugins.otp_totp",
        "two_factor",
        "formtools",
        "hijack",
        "mozilla_django_oidc",
        "channels",
    ],
    MIDDLEWARE=[
        f"{SESSIONS}.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_otp.middleware.OTPMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "allauth.account.middleware.AccountMiddleware",
        "allauth.usersessions.middleware.UserSessionsMiddleware",
        "hijack.middleware.HijackUserMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {
                            "_base.html": "{% block content %}{% endblock %}",
                            "two_factor/_base.html": "{% block content %}{% endblock %}",
                            "wizard.html": "{{ wizard.management_form }}{{ wizard.form }}",
                        },
                    ),
                    "django.template.loaders.app_directories.Loader",
                ],
            },
        }
    ],
    AUTHENTICATION_BACKENDS=[
        "django.contrib.auth.backends.ModelBackend",
        "allauth.account.auth_backends.AuthenticationBackend",
        f"{__name__}.Provider",
    ],
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    CSRF_USE_SESSIONS=True,
    LOGIN_URL="two_factor:login",
    LOGIN_REDIRECT_URL="/who",
    LOGOUT_REDIRECT_URL="/who",
    ACCOUNT_EMAIL_VERIFICATION="none",
    ACCOUNT_RATE_LIMITS=False,
    USERSESSIONS_TRACK_ACTIVITY=True,
    TWO_FACTOR_PATCH_ADMIN=False,
    OIDC_RP_CLIENT_ID="shop",
    OIDC_RP_CLIENT_SECRET="of the provider",
    OIDC_RP_SIGN_ALGO="HS256",
    OIDC_OP_AUTHORIZATION_ENDPOINT="https://id.test/auth",
    OIDC_OP_TOKEN_ENDPOINT="https://id.test/token",
    OIDC_OP_USER_ENDPOINT="https://id.test/user",
    OIDC_OP_JWKS_ENDPOINT="https://id.test/keys",
    EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
    CHANNEL_LAYERS={},
    USE_TZ=True,
    **({} if WAY == "theirs" else OURS),
)
APP = sys.modules[__name__]
sys.modules.setdefault("django_packages", APP)


class Provider:
    """What asks the OpenID provider who it is; here it is always ada."""

    def authenticate(self, request: Any, nonce: str | None = None, code_verifier: str | None = None) -> Any:
        return None if nonce is None else User.objects.get(username="ada")

    def get_user(self, pk: int) -> Any:
        return User.objects.filter(pk=pk).first()


django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.generic.websocket import JsonWebsocketConsumer  # noqa: E402
from channels.testing import WebsocketCommunicator  # noqa: E402
from django import forms  # noqa: E402
from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402
from django.urls import include, path  # noqa: E402
from formtools.wizard.views import SessionWizardView  # noqa: E402
from two_factor.urls import urlpatterns as two_factor_urls  # noqa: E402


class Name(forms.Form):
    name = forms.CharField()


class Size(forms.Form):
    size = forms.IntegerField()


class Wizard(SessionWizardView):  # type: ignore[misc]
    form_list = (Name, Size)
    template_name = "wizard.html"

    def done(self, form_list: Any, **_: Any) -> JsonResponse:
        return JsonResponse(self.get_all_cleaned_data())


def who(request: Any) -> JsonResponse:
    return JsonResponse({"user": request.user.username, "key": request.session.session_key})


urlpatterns = [
    path("who", who),
    path("wizard", Wizard.as_view()),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("hijack/", include("hijack.urls")),
    path("oidc/", include("mozilla_django_oidc.urls")),
    path("", include(two_factor_urls)),
]

CREDENTIALS = {"username": "ada", "password": "pw"}


def user_of(client: Client) -> str:
    return str(client.get("/who").json()["user"])


def checks() -> None:
    call_command("check")


def admin_pages() -> None:
    client = Client()
    client.post("/admin/login/", {**CREDENTIALS, "next": "/who"})
    assert user_of(client) == "ada"
    assert client.get("/admin/").status_code == 200
    added = client.post("/admin/auth/group/add/", {"name": f"readers {WAY}"}, follow=True)
    assert b"was added successfully" in added.content
    client.post("/admin/logout/")
    assert user_of(client) == ""


def allauth() -> None:
    client = Client()
    client.get("/accounts/login/")
    assert client.post("/accounts/login/", {"login": "ada", "password": "pw"}).status_code == 302
    assert user_of(client) == "ada"
    client.post("/accounts/logout/")
    assert user_of(client) == ""


def allauth_usersessions() -> None:
    from allauth.usersessions.models import UserSession

    UserSession.objects.all().delete()
    here, there = Client(), Client()
    for client in (here, there):
        client.post("/accounts/login/", {"login": "ada", "password": "pw"})
        assert user_of(client) == "ada"
    sessions = UserSession.objects.purge_and_list(User.objects.get(username="ada"))
    assert len(sessions) == 2, sessions
    assert {found.session_key for found in sessions} == {client.get("/who").json()["key"] for client in (here, there)}
    here.post("/accounts/sessions/", {})
    assert (user_of(here), user_of(there)) == ("ada", "")


def two_factor() -> None:
    client = Client()
    client.get("/account/login/")
    steps = {"login_view-current_step": "auth", "auth-username": "ada", "auth-password": "pw"}
    assert client.post("/account/login/", steps).status_code == 302
    assert user_of(client) == "ada"
    client.get("/account/two_factor/setup/")
    assert client.post("/account/two_factor/setup/", {"setup_view-current_step": "welcome"}).status_code == 200
    client.post("/accounts/logout/")
    assert user_of(client) == ""


def hijack() -> None:
    client = Client()
    client.force_login(User.objects.get(username="ada"))
    client.post("/hijack/acquire/", {"user_pk": User.objects.get(username="bob").pk, "next": "/who"})
    assert user_of(client) == "bob"
    client.post("/hijack/release/", {"next": "/who"})
    assert user_of(client) == "ada"


def wizard() -> None:
    client = Client()
    client.get("/wizard")
    client.post("/wizard", {"wizard-current_step": "0", "0-name": "ada"})
    done = client.post("/wizard", {"wizard-current_step": "1", "1-size": "7"})
    assert done.json() == {"name": "ada", "size": 7}


def openid() -> None:
    client = Client()
    client.get("/oidc/authenticate/")
    (state,) = client.session["oidc_states"]
    assert client.get("/oidc/callback/", {"code": "x", "state": state}).status_code == 302
    assert user_of(client) == "ada"
    client.post("/oidc/logout/")
    assert user_of(client) == ""


class Echo(JsonWebsocketConsumer):  # type: ignore[misc]
    def receive_json(self, content: Any) -> None:
        self.scope["session"]["said"] = content
        self.scope["session"].save()
        self.send_json({"user": self.scope["user"].username})


def channels_stack() -> None:
    client = Client()
    client.post("/accounts/login/", {"login": "ada", "password": "pw"})
    cookie = f"sessionid={client.cookies['sessionid'].value}"

    async def talk() -> Any:
        socket = WebsocketCommunicator(
            AuthMiddlewareStack(Echo.as_asgi()), "/", headers=[(b"cookie", cookie.encode()), (b"host", b"testserver")]
        )
        connected, _ = await socket.connect()
        assert connected
        await socket.send_json_to("hello")
        answer = await socket.receive_json_from(timeout=5)
        await socket.disconnect()
        return answer

    assert asyncio.run(talk()) == {"user": "ada"}
    assert client.session["said"] == "hello"


PACKAGES: dict[str, Callable[[], None]] = {
    "manage.py check": checks,
    "django.contrib.admin": admin_pages,
    "django-allauth": allauth,
    "django-allauth usersessions": allauth_usersessions,
    "django-two-factor-auth": two_factor,
    "django-hijack": hijack,
    "django-formtools": wizard,
    "mozilla-django-oidc": openid,
    "channels": channels_stack,
}


def main() -> None:
    setup_test_environment(debug=False)
    call_command("migrate", verbosity=0)
    for name in ("ada", "bob"):
        User.objects.create_superuser(name, f"{name}@shop.test", "pw")
    for name, use in PACKAGES.items():
        try:
            use()
        except Exception:
            traceback.print_exc()
            print(f"{name}: {traceback.format_exc(limit=-1).splitlines()[-1]}")
        else:
            print(f"{name}: ok")


if __name__ == "__main__":
    main()
