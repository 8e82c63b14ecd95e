"""Flask: `flask.session` as a server-side session, with Flask's own settings, `flash` and test client.

`session` of this module is `flask.session`; a type checker knows more of it by this name, and without `SessionKit` it
raises, where `flask.session` would keep what it is given in Flask's own cookie.

>>> from flask import Flask
>>> app = Flask("shop")
>>> app.secret_key = "N3w-secret-of-at-least-32-characters!"
>>> kit = SessionKit(app, store="memory://")
>>> @app.get("/")
... def visits():
...     session.update(lambda data: {"visits": data.get("visits", 0) + 1})
...     return {"visits": session["visits"]}
>>> client = app.test_client()
>>> [client.get("/").json["visits"] for _ in range(2)]
[1, 2]
"""

import flask

from session_kit.integrations.flask.extension import FlaskSessions, SessionKit
from session_kit.integrations.flask.sessions import FlaskSession, only_ours

__all__ = ["FlaskSession", "FlaskSessions", "SessionKit", "session"]

session = only_ours(flask.session)
