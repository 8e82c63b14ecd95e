"""Starts the three shops on this machine, with one store and one secret: `python run.py`. Ctrl-C stops them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

FOLDER = Path(__file__).parent
COMMANDS = {
    "FastAPI": "-m uvicorn fastapi_shop:app --port",
    "Flask": "-m flask --app flask_shop run --port",
    "Django": "django_shop.py runserver --noreload",
}


def main() -> None:
    first = int(os.environ.setdefault("FIRST_PORT", "8001"))
    with tempfile.TemporaryDirectory(prefix="shops-") as folder, ExitStack() as stack:
        shared = {"SESSION_STORE": f"sqlite://{folder}/sessions.db?ttl=7d", "SESSION_SECRET": secrets.token_urlsafe(32)}
        shops = []
        for port, (name, command) in enumerate(COMMANDS.items(), first):
            words = [sys.executable, *command.split(), str(port)]
            shop = subprocess.Popen(words, cwd=FOLDER, env={**os.environ, **shared})  # noqa: S603  # no shell
            stack.callback(shop.wait)
            stack.callback(shop.terminate)
            shops.append(shop)
            print(f"{name} shop: http://localhost:{port}", flush=True)
        while all(shop.poll() is None for shop in shops):
            time.sleep(0.2)
    sys.exit("One of the shops has ended: see above.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped.")
