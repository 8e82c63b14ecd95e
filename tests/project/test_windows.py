"""What Windows lacks is not needed. (There is no Windows here: it is taken away from this system's Python.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LIKE_WINDOWS = """
import os, sys
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for name in ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "fchmod", "fork", "killpg"):
    delattr(os, name)
del os.register_at_fork
"""

IMPORT_ALL = """
import importlib, pkgutil
import session_kit.benchmarks, session_kit.drivers
names = set()
for package in (session_kit, session_kit.benchmarks, session_kit.drivers):
    names |= {name for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")}
names = {name for name in names if "__main__" not in name and "maintainers" not in name}
for name in sorted(names):
    importlib.import_module(name)
print(*names)
"""

USE = """
import asyncio
from session_kit.drivers import ABSENT, Unsupported, open_driver
for url in sys.argv[1:]:
    driver = open_driver(url)
    driver.set("kept", b"1")
    driver.set("kept", b"2", ttl=60)
    driver.set("gone", b"3")
    assert driver.delete("gone") and driver.touch("kept", 50)
    assert asyncio.run(driver.aget("kept")) == b"2"
    if driver.capabilities.swap:
        driver.set("kept", b"4", expect=driver.read("kept").version)
    else:
        for expect in (ABSENT, driver.read("kept").version):
            try:
                driver.set("kept", b"4", expect=expect)
            except Unsupported:
                continue
            raise AssertionError("it was not refused")
    assert list(driver.keys()) == ["kept"]
    driver.close()
    print(driver.capabilities.swap)
"""


REFUSED = """
import socket
del socket.AF_UNIX  # here asyncio needs it
from session_kit import ConfigError, open_driver
try:
    open_driver("unix:///run/valkey.sock")
except ConfigError as error:
    print(error)
"""


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_can_be_imported() -> None:
    imported = python(LIKE_WINDOWS + IMPORT_ALL).split()
    assert {"session_kit.drivers.file", "session_kit.demo.server", "session_kit.integrations.quart"} <= set(imported)


def test_every_driver_of_the_machine_works_and_files_without_locks_refuse_conditions(tmp_path: Path) -> None:
    schemes = {"memory": "True", "sqlite": "True", "disk": "True", "file": "False"}
    urls = [f"{scheme}://{'' if scheme == 'memory' else tmp_path / scheme}" for scheme in schemes]
    assert python(LIKE_WINDOWS + USE, *urls).split() == list(schemes.values())


def test_a_unix_socket_is_refused_in_one_line() -> None:
    assert python(LIKE_WINDOWS + REFUSED).startswith("unix:///run/valkey.sock: Python knows no Unix sockets")
