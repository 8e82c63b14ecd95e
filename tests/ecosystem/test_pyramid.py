"""Pyramid's own session policies, and packages that keep logins and tokens in its sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness.sessions import SECRET
from pyramid.authentication import SessionAuthenticationHelper, SessionAuthenticationPolicy
from pyramid.authorization import ACLAuthorizationPolicy
from pyramid.config import Configurator
from pyramid.csrf import get_csrf_token
from pyramid.response import Response
from pyramid.security import forget, remember
from pyramid.session import SignedCookieSessionFactory
from visitor import Visit

from session_kit.integrations.pyramid import session_factory

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def config(store: str | None) -> Configurator:
    own = SignedCookieSessionFactory(SECRET, secure=True)
    return Configurator(session_factory=own if store is None else session_factory(store, SECRET))


def add(config: Configurator, path: str, view: Callable[[Any], str], **options: Any) -> None:
    name = f"{path}{options.get('request_method', '')}"
    config.add_route(name, path, request_method=options.pop("request_method", None))

    def answer(request: Any) -> Response:
        return Response(view(request))

    config.add_view(answer, route_name=name, **options)


def add_logins(config: Configurator) -> None:
    def login(request: Any) -> str:
        request.response.headerlist.extend(remember(request, "ada"))
        return "ok"

    def logout(request: Any) -> str:
        request.response.headerlist.extend(forget(request))
        return "ok"

    add(config, "/login", login)
    add(config, "/logout", logout)
    add(config, "/me", lambda request: request.authenticated_userid or "nobody")


def check_logins(config: Configurator, visit: Visit) -> None:
    ada = visit(config.make_wsgi_app())
    assert ada.text("/me") == "nobody"
    ada.text("/login")
    assert ada.text("/me") == "ada"
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("pyramid", "pyramid")
def test_session_authentication_helper(config: Configurator, visit: Visit) -> None:
    class Policy:
        def __init__(self) -> None:
            self._helper = SessionAuthenticationHelper()
            self.remember, self.forget = self._helper.remember, self._helper.forget

        def identity(self, request: Any) -> Any:
            return self._helper.authenticated_userid(request)

        authenticated_userid = identity

    config.set_security_policy(Policy())
    add_logins(config)
    check_logins(config, visit)


@pytest.mark.package("pyramid", "pyramid")
def test_csrf_and_flash(config: Configurator, visit: Visit) -> None:
    config.set_default_csrf_options(require_csrf=True)

    def form(request: Any) -> str:
        hidden = f'<input type="hidden" name="csrf_token" value="{get_csrf_token(request)}">'
        return f'<form method="post">{hidden}</form>{request.session.pop_flash()}'

    def send(request: Any) -> str:
        request.session.flash("sent")
        return "ok"

    add(config, "/form", form, request_method="GET")
    add(config, "/form", send, request_method="POST")
    ada = visit(config.make_wsgi_app())
    assert ada.post("/form").status_code == 400
    assert ada.submit("/form").text == "ok"
    assert "['sent']" in ada.text("/form")
    assert "[]" in ada.text("/form")


@pytest.mark.package("pyramid_multiauth", "pyramid")
def test_pyramid_multiauth(config: Configurator, visit: Visit) -> None:
    from pyramid.authentication import BasicAuthAuthenticationPolicy
    from pyramid_multiauth import MultiAuthenticationPolicy

    basic = BasicAuthAuthenticationPolicy(lambda name, password, request: [] if password == "pw" else None)
    config.set_authorization_policy(ACLAuthorizationPolicy())
    config.set_authentication_policy(MultiAuthenticationPolicy([SessionAuthenticationPolicy(), basic]))
    add_logins(config)
    check_logins(config, visit)


@pytest.mark.package("WTForms", "pyramid")
def test_wtforms_session_csrf(config: Configurator, visit: Visit) -> None:
    from datetime import timedelta

    from wtforms import Form, StringField
    from wtforms.csrf.session import SessionCSRF

    class Note(Form):
        text = StringField()

        class Meta:
            csrf = True
            csrf_class = SessionCSRF
            csrf_secret = SECRET.encode()
            csrf_time_limit = timedelta(minutes=20)

    def make(request: Any) -> Any:
        return Note(request.POST, meta={"csrf_context": request.session})

    add(config, "/form", lambda request: f'<form method="post">{make(request).csrf_token}</form>', request_method="GET")
    add(config, "/form", lambda request: str(make(request).validate()), request_method="POST")
    ada = visit(config.make_wsgi_app())
    assert ada.post("/form").text == "False"
    assert ada.submit("/form", text="x").text == "True"


@pytest.mark.package("pyramid_debugtoolbar", "pyramid")
def test_pyramid_debugtoolbar(config: Configurator, visit: Visit) -> None:
    config.add_settings({"debugtoolbar.hosts": ["127.0.0.1"], "debugtoolbar.active_panels": ["session"]})
    config.include("pyramid_debugtoolbar")

    def visits(request: Any) -> str:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return f"<html><body>{request.session['visits']}</body></html>"

    add(config, "/visits", visits)
    app = config.make_wsgi_app()

    def from_here(environ: Any, start_response: Any) -> Any:
        return app({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)

    ada = visit(from_here)
    for count in (1, 2, 3):
        shown = ada.text("/visits")
        assert f"<body>{count}" in shown
        assert "pDebug" in shown
