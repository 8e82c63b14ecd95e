"""Packages for Flask: each is logged into, used and logged out of."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask_login
import pytest
from flask import Flask, flash, get_flashed_messages, redirect, render_template_string, request, session
from harness.sessions import SECRET
from provider import CLIENT_ID, CLIENT_SECRET, Provider
from visitor import Form, Visit

from session_kit.integrations.flask import SessionKit

pytestmark = pytest.mark.filterwarnings("ignore")
FORM = '<form method="post">{}</form>'


@pytest.fixture
def app(store: str | None) -> Flask:
    app = Flask("shop")
    app.secret_key = SECRET
    if store is not None:
        SessionKit(app, store)
    return app


@pytest.fixture
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients of OAuth talk to a provider without TLS."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


class Person(flask_login.UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


def add_login(app: Flask, protection: str) -> None:
    manager = flask_login.LoginManager(app)
    manager.session_protection = protection
    manager.user_loader(Person)
    app.add_url_rule(
        "/login", "login", lambda: str(flask_login.login_user(Person("ada"), remember="keep" in request.args))
    )
    app.add_url_rule("/logout", "logout", lambda: str(flask_login.logout_user()))
    app.add_url_rule("/me", "me", lambda: flask_login.current_user.get_id() or "nobody")
    app.add_url_rule("/fresh", "fresh", flask_login.fresh_login_required(lambda: "secret"))


@pytest.mark.package("Flask-Login", "flask")
@pytest.mark.parametrize("protection", ["basic", "strong"])
def test_flask_login(app: Flask, visit: Visit, protection: str) -> None:
    add_login(app, protection)
    ada = visit(app)
    assert ada.text("/me") == "nobody"
    ada.text("/login")
    assert (ada.text("/me"), ada.text("/fresh")) == ("ada", "secret")
    ada.text("/logout")
    assert ada.text("/me") == "nobody"
    assert ada.get("/fresh").status_code == 401


@pytest.mark.package("Flask-Login", "flask")
def test_flask_logins_strong_protection_ends_a_session_that_changes_hands(app: Flask, visit: Visit) -> None:
    add_login(app, "strong")
    ada = visit(app)
    ada.client.headers["User-Agent"] = "hers"
    ada.text("/login")
    assert ada.text("/me") == "ada"
    ada.client.headers["User-Agent"] = "another's"
    assert ada.text("/me") == "nobody"
    ada.client.headers["User-Agent"] = "hers"
    assert ada.text("/me") == "nobody"


@pytest.mark.package("Flask-Login", "flask")
def test_flask_login_remembers(app: Flask, visit: Visit) -> None:
    add_login(app, "basic")
    ada = visit(app)
    ada.text("/login?keep")
    ada.client.cookies.delete("session")
    assert ada.text("/me") == "ada"
    assert ada.get("/fresh").status_code == 401
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("Flask-WTF", "flask")
def test_flask_wtf(app: Flask, visit: Visit) -> None:
    import flask_wtf

    flask_wtf.CSRFProtect(app)
    shown = FORM.format('<input type="hidden" name="csrf_token" value="{{ csrf_token() }}">')
    app.add_url_rule("/form", "form", lambda: render_template_string(shown))
    app.add_url_rule("/form", "send", lambda: "sent", methods=["POST"])
    ada, eve = visit(app), visit(app)
    assert ada.post("/form").status_code == 400
    assert ada.submit("/form").text == "sent"
    eve.text("/form")
    assert eve.post("/form", data=Form(ada.text("/form")).hidden).status_code == 400


@pytest.mark.package("Flask-SeaSurf", "flask")
def test_flask_seasurf(app: Flask, visit: Visit) -> None:
    from flask_seasurf import SeaSurf

    SeaSurf(app)
    shown = FORM.format('<input type="hidden" name="_csrf_token" value="{{ csrf_token() }}">')
    app.add_url_rule("/form", "form", lambda: render_template_string(shown))
    app.add_url_rule("/form", "send", lambda: "sent", methods=["POST"])
    ada = visit(app)
    assert ada.post("/form").status_code == 403
    assert ada.submit("/form").text == "sent"


@pytest.mark.package("Flask-Principal", "flask")
def test_flask_principal(app: Flask, visit: Visit) -> None:
    import flask_principal as principal

    principal.Principal(app)

    def change(name: str | None) -> str:
        identity = principal.Identity(name) if name else principal.AnonymousIdentity()
        principal.identity_changed.send(app, identity=identity)
        return "ok"

    app.add_url_rule("/login", "login", lambda: change("ada"))
    app.add_url_rule("/logout", "logout", lambda: change(None))
    app.add_url_rule("/me", "me", lambda: str(getattr(principal.g, "identity", None) and principal.g.identity.id))
    ada = visit(app)
    ada.text("/login")
    assert ada.text("/me") == "ada"
    ada.text("/logout")
    assert ada.text("/me") == "None"


@pytest.mark.package("Flask-DebugToolbar", "flask")
def test_flask_debugtoolbar(app: Flask, visit: Visit) -> None:
    from flask_debugtoolbar import DebugToolbarExtension

    app.debug = True
    app.config.update(DEBUG_TB_INTERCEPT_REDIRECTS=True)
    DebugToolbarExtension(app)

    def page() -> str:
        session["user"] = "ada"
        return render_template_string("<html><body>{{ session.user }}</body></html>")

    def logout() -> Any:
        session.clear()
        return redirect("/page")

    app.add_url_rule("/page", "page", page)
    app.add_url_rule("/logout", "logout", logout)
    ada = visit(app)
    for _ in range(2):
        shown = ada.text("/page")
        assert "ada" in shown
        assert "flDebug" in shown
    assert "Location" in ada.text("/logout")  # the toolbar stops there
    assert ada.cookie is None


@pytest.mark.package("Flask-Babel", "flask")
def test_flask_babel(app: Flask, visit: Visit) -> None:
    from flask_babel import Babel, format_decimal, get_locale

    Babel(app, locale_selector=lambda: session.get("language", "en"))

    def choose(language: str) -> str:
        session["language"] = language
        return "ok"

    def forget() -> str:
        session.clear()
        return "ok"

    app.add_url_rule("/choose/<language>", "choose", choose)
    app.add_url_rule("/forget", "forget", forget)
    app.add_url_rule("/price", "price", lambda: f"{get_locale()} {format_decimal(1.5)}")
    ada = visit(app)
    assert ada.text("/price") == "en 1.5"
    ada.text("/choose/de")
    assert ada.text("/price") == "de 1,5"
    ada.text("/forget")
    assert ada.text("/price") == "en 1.5"


@pytest.mark.package("flask-session-captcha", "flask")
def test_flask_session_captcha(app: Flask, visit: Visit) -> None:
    from flask_session_captcha import FlaskSessionCaptcha

    app.config.update(CAPTCHA_ENABLE=True, CAPTCHA_LENGTH=5, CAPTCHA_WIDTH=160, CAPTCHA_HEIGHT=60)
    captcha = FlaskSessionCaptcha(app)
    app.add_url_rule("/image", "image", lambda: str(captcha.generate()))
    app.add_url_rule("/answer", "answer", lambda: captcha.get_answer() or "none")
    app.add_url_rule("/check", "check", lambda: str(captcha.validate()), methods=["POST"])
    ada = visit(app)
    ada.text("/image")
    answer = ada.text("/answer")
    assert ada.post("/check", data={"captcha": answer}).text == "True"
    assert ada.post("/check", data={"captcha": answer}).text == "False"  # it is good once


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    """A scoped session of SQLAlchemy on a database of its own, and a base class for its tables."""
    import sqlalchemy
    from sqlalchemy.orm import DeclarativeBase, scoped_session, sessionmaker

    class Base(DeclarativeBase):
        pass

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database")
    database = scoped_session(sessionmaker(engine))
    database.Base, database.engine = Base, engine
    yield database
    database.remove()
    engine.dispose()


@pytest.mark.package("Flask-Security-Too", "flask")
def test_flask_security(app: Flask, visit: Visit, database: Any) -> None:
    from flask_security import Security, SQLAlchemySessionUserDatastore, auth_required, hash_password
    from flask_security.models import sqla

    class Role(database.Base, sqla.FsRoleMixin):  # type: ignore[misc,name-defined]
        __tablename__ = "role"

    class User(database.Base, sqla.FsUserMixin):  # type: ignore[misc,name-defined]
        __tablename__ = "user"

    sqla.FsModels.set_db_info(base_model=database.Base, user_table_name="user", role_table_name="role")
    app.config.update(
        SECURITY_PASSWORD_SALT="146585145368132386173505678016728509634",
        SECURITY_FRESHNESS_GRACE_PERIOD=datetime.timedelta(minutes=1),
        SECURITY_TRACKABLE=False,
        WTF_CSRF_ENABLED=True,
    )
    app.teardown_appcontext(lambda _: database.remove())
    accounts = SQLAlchemySessionUserDatastore(database, User, Role)
    Security(app, accounts)
    app.add_url_rule("/", "home", lambda: "home")
    app.add_url_rule("/secret", "secret", auth_required("session", within=5)(lambda: "secret"))
    database.Base.metadata.create_all(database.engine)
    with app.test_request_context():
        accounts.create_user(email="ada@shop.example.com", password=hash_password("password"))
        database.commit()
    ada = visit(app)
    assert ada.get("/secret").status_code == 302
    wrong = ada.submit("/login", email="ada@shop.example.com", password="wrong")
    assert wrong.status_code == 200
    assert ada.submit("/login", email="ada@shop.example.com", password="password").status_code == 302
    assert ada.text("/secret") == "secret"
    assert ada.post("/logout").status_code == 302
    assert ada.get("/secret").status_code == 302


@pytest.mark.package("Flask-Admin", "flask")
def test_flask_admin(app: Flask, visit: Visit, database: Any) -> None:
    import flask_admin
    import sqlalchemy
    from flask_admin.contrib.sqla import ModelView
    from flask_admin.form import SecureForm
    from flask_babel import Babel

    class Apple(database.Base):  # type: ignore[misc,name-defined]
        __tablename__ = "apple"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        kind = sqlalchemy.Column(sqlalchemy.String(20))

    class Apples(ModelView):  # type: ignore[misc]
        form_base_class = SecureForm

        def is_accessible(self) -> bool:
            return bool(flask_login.current_user.is_authenticated)

    add_login(app, "strong")
    Babel(app)  # which it asks for where it is installed
    app.teardown_appcontext(lambda _: database.remove())
    flask_admin.Admin(app).add_view(Apples(Apple, database))
    database.Base.metadata.create_all(database.engine)
    ada = visit(app)
    assert ada.get("/admin/apple/").status_code == 403
    ada.text("/login")
    assert ada.submit("/admin/apple/new/", kind="boskoop").status_code == 302
    shown = ada.text("/admin/apple/")
    assert "boskoop" in shown
    assert "successfully created" in shown  # a flashed message
    without_token = ada.post("/admin/apple/new/", data={"kind": "stolen"})
    assert without_token.status_code == 200
    assert "stolen" not in ada.text("/admin/apple/")
    ada.text("/logout")
    assert ada.get("/admin/apple/").status_code == 403


@pytest.mark.package("Authlib", "flask")
def test_authlib(app: Flask, visit: Visit, provider: Provider, insecure: None) -> None:
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.flask_client import OAuth

    client = OAuth(app).register(
        "provider",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        server_metadata_url=f"{provider.url}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid", "code_challenge_method": "S256"},
    )

    def callback() -> str:
        session["user"] = client.authorize_access_token()["userinfo"]["name"]
        return "ok"

    app.register_error_handler(OAuthError, lambda error: (str(error), 400))
    app.add_url_rule("/login", "login", lambda: client.authorize_redirect(f"{request.url_root}callback"))
    app.add_url_rule("/callback", "callback", callback)
    app.add_url_rule("/logout", "logout", lambda: session.clear() or "ok")
    app.add_url_rule("/me", "me", lambda: session.get("user", "nobody"))
    ada, eve = visit(app), visit(app)
    back = ada.log_in_at_provider(ada.get("/login"))
    assert back.text == "ok", back.text
    assert ada.text("/me") == "ada"
    stolen = eve.get(f"/callback?{urlsplit(str(back.url)).query}")
    assert stolen.status_code == 400
    assert "mismatching_state" in stolen.text
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("Flask-Dance", "flask")
def test_flask_dance(app: Flask, visit: Visit, provider: Provider, insecure: None) -> None:
    from flask_dance.consumer import OAuth2ConsumerBlueprint

    blueprint = OAuth2ConsumerBlueprint(
        "provider",
        "dance",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        base_url=provider.url,
        authorization_url=f"{provider.url}/authorize",
        token_url=f"{provider.url}/token",
        redirect_url="/me",
        use_pkce=True,
        code_challenge_method="S256",
    )
    app.register_blueprint(blueprint, url_prefix="/login")

    def me() -> str:
        return str(blueprint.session.get("/user").json()["name"]) if blueprint.session.authorized else "nobody"

    def logout() -> str:
        del blueprint.token
        return "ok"

    app.add_url_rule("/me", "me", me)
    app.add_url_rule("/logout", "logout", logout)
    ada = visit(app)
    assert ada.text("/me") == "nobody"
    assert ada.log_in_at_provider(ada.get("/login/provider")).headers["location"] == "/me"
    assert ada.text("/me") == "ada"
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("flask-oidc", "flask")
def test_flask_oidc(app: Flask, visit: Visit, provider: Provider, insecure: None) -> None:
    from flask_oidc import OpenIDConnect

    app.config.update(
        OIDC_CLIENT_ID=CLIENT_ID,
        OIDC_CLIENT_SECRET=CLIENT_SECRET,
        OIDC_SERVER_METADATA_URL=f"{provider.url}/.well-known/openid-configuration",
        OIDC_SCOPES="openid email",
        OIDC_CLIENT_SECRETS={"web": {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "issuer": provider.url}},
    )
    oidc = OpenIDConnect(app)

    def me() -> str:
        return str(oidc.user_getfield("name")) if oidc.user_loggedin else "nobody"

    app.add_url_rule("/me", "me", me)
    app.add_url_rule("/secret", "secret", oidc.require_login(lambda: "secret"))
    ada = visit(app)
    assert ada.text("/me") == "nobody"
    login = ada.get("/secret").headers["location"]
    assert ada.log_in_at_provider(ada.get(login)).status_code == 302
    assert (ada.text("/me"), ada.text("/secret")) == ("ada", "secret")
    assert ada.get("/logout").status_code == 302
    assert ada.text("/me") == "nobody"


@pytest.mark.package("Flask", "flask")
def test_flasks_own_flash(app: Flask, visit: Visit) -> None:
    app.add_url_rule("/flash", "flash", lambda: flash("hello", "note") or "ok")
    app.add_url_rule("/flashed", "flashed", lambda: str(get_flashed_messages(with_categories=True)))
    ada = visit(app)
    ada.text("/flash")
    assert ada.text("/flashed") == "[('note', 'hello')]"
    assert ada.text("/flashed") == "[]"
