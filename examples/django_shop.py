"""A shop in Django, with Django's own API of sessions, and a checkout: `python django_shop.py runserver 8003`."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_POST

from shared import COOKIE, FOLDER, PRODUCTS, SECRET, STORE, device, one_more, page

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    SECRET_KEY=SECRET,
    INSTALLED_APPS=["django.contrib.messages", "session_kit.integrations.django"],
    MIDDLEWARE=[
        # In the place of Django's: its cookie is the one that the other shops read.
        "session_kit.integrations.django.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    SESSION_ENGINE="session_kit.integrations.django",
    SESSION_KIT={"store": STORE, "cookie": COOKIE},
    SESSION_COOKIE_NAME="session",
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    TEMPLATES=[{"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [FOLDER]}],
)


def show(request: HttpRequest) -> HttpResponse:
    host = request.get_host().partition(":")[0]
    user, cart = request.session.get("user"), request.session.get("cart", {})
    return render(request, "shop.html", page("Django", host, user, cart, messages.get_messages(request)))


def login(request: HttpRequest) -> HttpResponse:
    name = request.POST.get("name", "").strip()[:40]
    if name:  # a real shop asks for a password
        request.session["user"] = name
        request.session.bind(name, label=device(request.headers.get("User-Agent"), "Django"))
        messages.success(request, f"Welcome, {name}.")
    return HttpResponseRedirect("/")


def logout(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    messages.info(request, "You are logged out of all three shops.")
    return HttpResponseRedirect("/")


def add(request: HttpRequest) -> HttpResponse:
    item = request.POST.get("item", "")
    if item not in PRODUCTS:
        raise Http404
    request.session.update(one_more(item))
    messages.success(request, f"{item} added.")
    return HttpResponseRedirect("/")


def check_out(request: HttpRequest) -> HttpResponse:
    if "user" not in request.session:
        messages.error(request, "Log in first, at any of the shops.")
    elif cart := request.session.pop("cart", {}):
        messages.success(request, f"Thank you, {request.session['user']}: {sum(cart.values())} on the way.")
    return HttpResponseRedirect("/")


urlpatterns = [
    path("", show),
    path("login", require_POST(login)),
    path("logout", require_POST(logout)),
    path("cart", require_POST(add)),
    path("checkout", require_POST(check_out)),
]
app = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line()
