"""How a URL becomes a driver. Modules are imported only when a URL asks for them."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import PurePath
from urllib.parse import SplitResult, parse_qsl, urlsplit

from session_kit.drivers.base import Driver
from session_kit.drivers.errors import ConfigError, how_to_install
from session_kit.drivers.support.folder import url_of
from session_kit.drivers.support.options import convert, guess

Query = list[tuple[str, str]]

ESCAPE = "in a user or password write % / ? # [ ] and @ as %25 %2F %3F %23 %5B %5D and %40"
ENTRY_POINT_GROUP = "session_kit.drivers"

REDIS_KINDS = ("", "+cluster", "+sentinel")

_builtin: dict[str, tuple[str, str | None]] = {
    "memory": ("session_kit.drivers.memory:MemoryDriver", None),
    "sqlite": ("session_kit.drivers.sqlite:SQLiteDriver", None),
    "disk": ("session_kit.drivers.disk:DiskDriver", "disk"),
    "s3": ("session_kit.drivers.s3:S3Driver", "s3"),
    "file": ("session_kit.drivers.file:FileDriver", None),
    **dict.fromkeys(["postgresql", "postgres"], ("session_kit.drivers.postgres:PostgresDriver", "postgres")),
    **dict.fromkeys(
        [
            "unix",
            *(f"{server}{tls}{kind}" for server in ("redis", "valkey") for tls in ("", "s") for kind in REDIS_KINDS),
        ],
        ("session_kit.drivers.redis:RedisDriver", "redis"),
    ),
}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LINE_END = re.compile(r"[\t\r\n]")
_OPTION = re.compile(r"[&;]\w+=")
_PORTS = re.compile(r":([0-9]+)(?:,|$)")
_HOME = re.compile(r"/~(?:/|$)")
_registered: dict[str, type[Driver] | str] = {}


def register_driver(scheme: str, driver: type[Driver] | str) -> None:
    """Let URLs with `scheme` open `driver`: a class, or `"package.module:Class"` to be imported on first use.

    A package can do the same without a call, by an entry point in the group `session_kit.drivers` whose name is the
    scheme. What is registered by a call comes first, then what is built in, then entry points.

    Raises `ConfigError` for a scheme that no URL can have.

    >>> register_driver("scratch", "session_kit.drivers.memory:MemoryDriver")
    >>> open_driver("scratch://").set("key", b"value") is not None
    True
    """
    if not scheme or urlsplit(f"{scheme}://").scheme != scheme.lower():
        raise ConfigError(
            f"{scheme!r} cannot begin a URL: a scheme is a letter, then letters, digits, '+', '-' and '.'"
        )
    _registered[scheme.lower()] = driver


def open_driver(url: str, *, clock: Callable[[], float] = time.time) -> Driver:
    """Open the driver that `url` names; its query parameters are the driver's options.

    url: for example `memory://`, `disk:///var/lib/app?size_limit=2GiB`. docs/reference.md lists them all.
    clock: Unix time in seconds, for tests.
    Raises `ConfigError` for an unknown scheme or option, a bad value, or a package that is not installed.

    >>> open_driver("memory://?max_entrys=5")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    session_kit.drivers.errors.ConfigError: memory://: unknown option 'max_entrys'; did you mean 'max_entries'? Valid...
    """
    parts, query = split_url(url)
    return open_parts(parts, query, clock=clock)


def open_parts(
    parts: SplitResult, query: Query, *, clock: Callable[[], float] = time.time, also: Iterable[str] = ()
) -> Driver:
    """Open a driver from a split URL. `also` names options that the caller has taken out, for error messages."""
    cls = _driver_class(parts.scheme)
    options = convert(query, cls.url_options(parts), where=redact(parts), also=also)
    try:
        return cls.from_url(parts, clock=clock, **options)
    except ConfigError:
        raise
    except ValueError:  # as of `url.port`, whose message shows a piece of the password
        raise ConfigError(f"{redact(parts)}: {cls.__name__} does not understand this URL; {ESCAPE}") from None


def split_url(url: str) -> tuple[SplitResult, Query]:
    """Split `url` into its parts and its query parameters, or raise `ConfigError`.

    What would silently name another store than the one that is meant is refused. Blanks around it, such as the line end
    of a file that it was read from, are not a part of it.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a store URL must be a str, not {type(url).__name__}")
    url = url.strip()
    if url[:1] in ("'", '"') or url[-1:] in ("'", '"'):
        raise ConfigError("the store URL has a quote at its end; leave it out, or write it as %22 or %27")
    if _LINE_END.search(url):  # urlsplit would leave it out
        raise ConfigError("the store URL has a line end or a tab in it")
    if not _SCHEME.match(url):
        raise ConfigError("a store URL needs a scheme, like memory:// or disk:///var/lib/app")
    try:
        parts = urlsplit(url)
    except ValueError:  # whose message shows user and password
        raise ConfigError(f"the store URL cannot be parsed; {ESCAPE}") from None
    user, _, host = parts.netloc.rpartition("@")
    where = redact(parts)
    if parts.fragment:
        raise ConfigError(f"{where}: '#' starts a fragment, which means nothing here; write it as %23")
    if any(int(port) > 65535 for port in _PORTS.findall(host)):
        raise ConfigError(f"{where}: that is not a host with a port: a port is a number up to 65535")
    if not parts.netloc and _HOME.match(parts.path):
        raise ConfigError(f"{where}: '~' means nothing in a URL; write the path in full, as {_at_home(parts)}")
    if _OPTION.search(host + parts.path):
        raise ConfigError(
            f"{where}: options begin with '?', and '&' stands between them; elsewhere write & ; as %26 %3B"
        )
    if "?" in parts.query:
        raise ConfigError(f"{where}: '?' begins the options once; write '&' in front of the next, and %3F in a value")
    # Only in what a form of a browser sends is a "+" a blank.
    query = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
    if any("@" in name for name, _ in query):
        raise ConfigError(f"{where}: no option has an '@' in its name; {ESCAPE}")
    if host and not user and "@" in parts.query:  # then name and value may be pieces of a password
        raise ConfigError(f"{where}: an '@' in an option is written %40; {ESCAPE}")
    return parts, query


def redact(parts: SplitResult) -> str:
    """Return the URL without what may be secret: user, password and options."""
    # A password with an unescaped / ? or # ends the netloc early, and the rest of it looks like a path or an option.
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return f"{parts.scheme}://..."
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _at_home(parts: SplitResult) -> str:
    return url_of(parts.scheme, PurePath(os.path.expanduser("~"))) + parts.path[2:]


def _fsspec_knows(scheme: str) -> bool:
    """Whether to leave `scheme` to fsspec; it is not asked unless nobody else answers."""
    if scheme.startswith("fsspec+"):
        return True
    try:
        registry = importlib.import_module("fsspec.registry")
    except ModuleNotFoundError:
        return False
    return scheme in registry.available_protocols()


def _driver_class(scheme: str) -> type[Driver]:
    target: type[Driver] | str | None = _registered.get(scheme)
    extra: str | None = None
    if target is None and scheme in _builtin:
        target, extra = _builtin[scheme]
    if target is None:
        found = entry_points(group=ENTRY_POINT_GROUP)
        for entry_point in found:
            if entry_point.name.lower() == scheme:
                target = entry_point.value.partition("[")[0].strip()  # "[extra]" may stand behind it
        if target is None and _fsspec_knows(scheme):
            target, extra = "session_kit.drivers.fsspec:FsspecDriver", "fsspec"
        if target is None:
            known = sorted({*_builtin, *_registered, *(entry_point.name.lower() for entry_point in found)})
            names = ", ".join(f"{name}://" for name in known)
            missing = "" if find_spec("fsspec") else f": {how_to_install('fsspec')}"
            raise ConfigError(
                f"no driver for {scheme}://{guess(scheme, known, '{}://')} Known: {names}, and with the extra"
                f" 'fsspec' what fsspec knows (gs://, az://, sftp:// ...){missing}"
            )
    cls: object = target
    if isinstance(target, str):
        module, _, name = target.partition(":")
        try:
            cls = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            hint = how_to_install(extra) if extra else f"install the package that provides {error.name}"
            raise ConfigError(f"{scheme}:// needs the package {error.name}, which is not installed: {hint}") from None
    if not (isinstance(cls, type) and issubclass(cls, Driver)):
        raise ConfigError(f"{scheme}:// is registered for {target}, which is not a Driver class")
    return cls
