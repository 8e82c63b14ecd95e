"""A project of Django with the packages that are tested; what its sessions run on is set by the tests."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from provider import CLIENT_ID, CLIENT_SECRET

FOLDER = Path(tempfile.mkdtemp())
TEMPLATES = {
    "_base.html": "{% block content %}{% endblock %}",
    "two_factor/_base.html": "{% block content %}{% endblock %}",
    "wizard.html": '<form method="post">{% csrf_token %}{{ wizard.management_form }}{{ wizard.form }}</form>',
    "form.html": '<form method="post">{% csrf_token %}{{ form }}</form>',
    "registration/login.html": '<form method="post">{% csrf_token %}{{ form }}</form>',
    "lockdown/form.html": '<form method="post">{% csrf_token %}{{ form }}</form>',
}

settings.configure(
    SECRET_KEY="django-insecure-of-a-project-that-was-just-started-0123456789",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="django_project",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.humanize",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "session_kit.integrations.django",
        "allauth",
        "allauth.account",
        "allauth.socialaccount",
        "allauth.socialaccount.providers.openid_connect",
        "allauth.usersessions",
        "channels",
        "debug_toolbar",
        "django_cas_ng",
        "django_otp",
        "django_otp.plugins.otp_static",
        "django_otp.plugins.otp_totp",
        "django_su",
        "formtools",
        "guest_user",
        "hijack",
        "impersonate",
        "lockdown",
        "loginas",
        "mozilla_django_oidc",
        "oauth2_provider",
        "sesame",
        "session_security",
        "social_django",
        "two_factor",
    ],
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_otp.middleware.OTPMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "allauth.account.middleware.AccountMiddleware",
        "allauth.usersessions.middleware.UserSessionsMiddleware",
        "hijack.middleware.HijackUserMiddleware",
        "impersonate.middleware.ImpersonateMiddleware",
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
                    ("django.template.loaders.locmem.Loader", TEMPLATES),
                    "django.template.loaders.app_directories.Loader",
                ],
            },
        }
    ],
    AUTHENTICATION_BACKENDS=[
        "django.contrib.auth.backends.ModelBackend",
        "allauth.account.auth_backends.AuthenticationBackend",
        "social_core.backends.open_id_connect.OpenIdConnectAuth",
        "mozilla_django_oidc.auth.OIDCAuthenticationBackend",  # fails at what is another's, so it comes later
        "django_cas_ng.backends.CASBackend",
        "sesame.backends.ModelBackend",
        "guest_user.backends.GuestBackend",
        "django_su.backends.SuBackend",
    ],
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    CSRF_USE_SESSIONS=True,
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGIN_URL="/admin/login/",
    LOGIN_REDIRECT_URL="/who",
    LOGOUT_REDIRECT_URL="/who",
    STATIC_URL="/static/",
    ACCOUNT_EMAIL_VERIFICATION="none",
    ACCOUNT_RATE_LIMITS=False,
    USERSESSIONS_TRACK_ACTIVITY=True,
    SOCIALACCOUNT_LOGIN_ON_GET=True,
    SOCIALACCOUNT_AUTO_SIGNUP=True,
    TWO_FACTOR_PATCH_ADMIN=False,
    OIDC_RP_CLIENT_ID=CLIENT_ID,
    OIDC_RP_CLIENT_SECRET=CLIENT_SECRET,
    OIDC_RP_SIGN_ALGO="HS256",
    SOCIAL_AUTH_OIDC_KEY=CLIENT_ID,
    SOCIAL_AUTH_OIDC_SECRET=CLIENT_SECRET,
    SOCIAL_AUTH_OIDC_JWT_ALGORITHMS=["HS256"],
    CAS_CREATE_USER=True,
    OAUTH2_PROVIDER={"PKCE_REQUIRED": False},
    SILENCED_SYSTEM_CHECKS=["debug_toolbar.W001"],
    EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
    CHANNEL_LAYERS={},
    SESSION_SECURITY_INSECURE=True,  # its middleware wants sessions that end with the browser
    USE_TZ=True,
)
django.setup()

import django_cas_ng.views  # noqa: E402
import sesame.views  # noqa: E402
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.generic.websocket import JsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402
from django import forms  # noqa: E402
from django.contrib import admin  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.urls import include, path  # noqa: E402
from formtools.wizard.views import SessionWizardView  # noqa: E402
from guest_user.decorators import allow_guest_user  # noqa: E402
from lockdown.decorators import lockdown  # noqa: E402
from two_factor.urls import urlpatterns as two_factor_urls  # noqa: E402


class Name(forms.Form):  # type: ignore[misc]
    name = forms.CharField()


class Size(forms.Form):  # type: ignore[misc]
    size = forms.IntegerField()


class Wizard(SessionWizardView):  # type: ignore[misc]
    form_list = (Name, Size)
    template_name = "wizard.html"

    def done(self, form_list: Any, **_: Any) -> JsonResponse:
        return JsonResponse(self.get_all_cleaned_data())


class Echo(JsonWebsocketConsumer):  # type: ignore[misc]
    """Keeps in its session what it is told, and says who told it."""

    def receive_json(self, content: Any) -> None:
        self.scope["session"]["said"] = content
        self.scope["session"].save()
        self.send_json({"user": self.scope["user"].username})


def make_asgi_app() -> Any:
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": AuthMiddlewareStack(Echo.as_asgi())})


def who(request: Any) -> JsonResponse:
    said = request.session.get("said")
    return JsonResponse({"user": request.user.username, "key": request.session.session_key, "said": said})


urlpatterns = [
    path("who", who),
    path("page", lambda request: HttpResponse(f"<html><body>{request.user.username}</body></html>")),
    path("token", lambda request: render(request, "form.html")),
    path("wizard", Wizard.as_view()),
    path("guest", allow_guest_user(who)),
    path("locked", lockdown(passwords=("sesame",))(who)),
    path("admin/", include("loginas.urls")),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("cas/login", django_cas_ng.views.LoginView.as_view(), name="cas_ng_login"),
    path("cas/logout", django_cas_ng.views.LogoutView.as_view(), name="cas_ng_logout"),
    path("convert/", include("guest_user.urls")),
    path("hijack/", include("hijack.urls")),
    path("impersonate/", include("impersonate.urls")),
    path("magic", sesame.views.LoginView.as_view()),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("oidc/", include("mozilla_django_oidc.urls")),
    path("security/", include("session_security.urls")),
    path("social/", include("social_django.urls", namespace="social")),
    path("su/", include("django_su.urls")),
    path("", include(two_factor_urls)),
    path("__debug__/", include("debug_toolbar.urls")),
]
sys.modules.setdefault("django_project", sys.modules[__name__])
