"""What `session-kit demo` does around the application: folder, secret, port, and what it prints."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import uvicorn
from rich.console import Console

from session_kit.cookie import CookieOptions, check_secrets
from session_kit.demo.app import make_app
from session_kit.drivers.support.folder import make_folders, url_of
from session_kit.errors import ConfigError
from session_kit.policy import Event

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def serve(console: Console, store_url: str | None, *, host: str, port: int, grace: float, secure: bool) -> None:
    """Run the demo until a signal stops it."""
    folder = demo_folder()
    store_url = store_url or url_of("disk", folder / "sessions")

    def tell(event: Event) -> None:
        if event.name != "loaded":
            name = "" if event.session is None else f"{event.session[:6]}..."
            console.print(f"[dim]{time.strftime('%H:%M:%S')}[/]  {event.name:16} [dim]{name}[/]")

    app = make_app(store_url, load_secret(folder), CookieOptions(secure=secure), rotation_grace=grace, on_event=tell)
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        console.print(f"Demo at [bold]http://{shown}:{listener.getsockname()[1]}[/]  (Ctrl-C stops it)")
        console.print("Sessions in", repr(app.state.store.driver), markup=False)
        if secure and host not in LOOPBACK:
            console.print("From another machine, browsers keep the cookie over http only if you add --insecure.")
        console.print("[dim]What happens to sessions (their ids are shown hashed):[/]")
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    console.print("Stopped.")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or raise `ConfigError` that says why there is none."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is in use; choose another with --port") from None
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def demo_folder() -> Path:
    """Return the demo's folder in the user's cache, private to this user."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    # The XDG specification says to ignore a path that is relative.
    folder = (Path(given) if os.path.isabs(given) else usual) / "session-kit" / "demo"
    try:
        make_folders(folder)
    except OSError as error:
        raise ConfigError(f"the demo's folder {folder} cannot be made: {error.strerror}") from None
    return folder


def load_secret(folder: Path) -> str:
    """Return the secret that signs the cookies: made at the first start and kept, so that a restart logs nobody out."""
    path = folder / "secret"
    try:
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
        secret = path.read_text(encoding="ascii").strip()
        check_secrets(secret)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; or delete this file, and the demo makes a new one") from None
    return secret
