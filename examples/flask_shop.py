"""A shop in Flask, with flashed messages and a list of your devices: `flask --app flask_shop run --port 8002`."""

from __future__ import annotations

from flask import Flask, abort, flash, get_flashed_messages, redirect, render_template, request
from werkzeug.wrappers import Response

from session_kit.integrations.flask import SessionKit, session  # flask.session, typed
from shared import COOKIE, FOLDER, PRODUCTS, SECRET, STORE, device, one_more, page

app = Flask(__name__, template_folder=str(FOLDER))
app.secret_key = SECRET
SessionKit(app, store=STORE, cookie=COOKIE)
store = app.extensions["session_kit"].store


@app.get("/")
def show() -> str:
    user = session.get("user")
    devices = store.sessions_of(user, current=session) if user else []
    host = request.host.partition(":")[0]
    return render_template(
        "shop.html", **page("Flask", host, user, session.get("cart", {}), get_flashed_messages(), devices)
    )


@app.post("/login")
def login() -> Response:
    name = request.form.get("name", "").strip()[:40]
    if name:  # a real shop asks for a password
        session["user"] = name
        # From now on it is in the list of this user's sessions. The session gets a new id, and keeps what it holds.
        session.bind(name, label=device(request.user_agent.string, "Flask"))
        flash(f"Welcome, {name}.")
    return redirect("/", 303)


@app.post("/logout")
def logout() -> Response:
    session.destroy()
    flash("You are logged out of all three shops.")  # kept in a new session, until it is shown
    return redirect("/", 303)


@app.post("/cart")
def add() -> Response:
    item = request.form.get("item", "")
    if item not in PRODUCTS:
        abort(404)
    session.update(one_more(item))
    flash(f"{item} added.")
    return redirect("/", 303)


@app.post("/devices/end")
def end_device() -> Response:
    # The handle comes from a browser: with the owner it ends nobody else's session.
    if session.owner and store.revoke_one(request.form.get("handle", ""), owner=session.owner):
        flash("It is logged out of all three shops.")
    return redirect("/", 303)


@app.post("/devices/end-others")
def end_other_devices() -> Response:
    if session.owner:
        ended = store.revoke(session.owner, keep=session)
        flash(f"Other sessions that were ended: {ended}.")
    return redirect("/", 303)
