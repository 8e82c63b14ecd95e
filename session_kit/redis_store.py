"""A session store on Redis or Valkey, for those who configure host and port rather than a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from session_kit.drivers.support.options import guess
from session_kit.errors import ConfigError
from session_kit.store import DAY, TTL, UnstorageSessionStore

TLS_SETTINGS: Final = ("ca_certs", "certfile", "keyfile", "cert_reqs", "check_hostname")
SCHEMES: Final = ("redis", "valkey", "unix:")
OF_THE_STORE: Final = frozenset({"hash_ids", "codec", "clock"})


class RedisSessionStore(UnstorageSessionStore):
    """`UnstorageSessionStore` on Redis (6.2 or later) or Valkey.

    url: a URL of the Redis driver with its options, in place of the parts below.
    host: default `"localhost"`. port: default 6379. username, password: default none. db: default 0.
    tls: True speaks TLS and checks the server's certificate; a mapping does so with these settings: `ca_certs`,
        `certfile`, `keyfile` (paths of PEM files: the authority to trust, our certificate and its key), `cert_reqs`
        (`"required"`, `"optional"` or `"none"`; default required) and `check_hostname` (default True). Default False.
    prefix, ttl: as for `UnstorageSessionStore`.
    options: `hash_ids`, `codec` and `clock` as there; the others are the driver's, such as `timeout` and
        `max_connections`, by the names that they have in a URL.
    Raises `ConfigError` for settings that cannot work; the server is asked at first use.

    >>> RedisSessionStore(host="redis.example.com", password="a/secret", tls=True, timeout="2s")
    RedisSessionStore(RedisDriver(rediss://redis.example.com:6379/0), prefix='sess')
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        db: int | None = None,
        tls: bool | Mapping[str, Any] | None = None,
        prefix: str = "sess",
        ttl: TTL = DAY,
        **options: Any,
    ) -> None:
        of_the_store = {name: options.pop(name) for name in OF_THE_STORE & options.keys()}
        settings = _driver_options(tls) | options
        parts = {"host": host, "port": port, "username": username, "password": password, "db": db, "tls": tls}
        given = [name for name, value in (parts | options).items() if value is not None]
        if url is not None and given:
            raise ConfigError(f"RedisSessionStore takes a url or its parts, not both: put {given[0]} into the url")
        if url is None:
            user = f"{quote(username or '', safe='')}:{quote(password or '', safe='')}@" if username or password else ""
            name = "localhost" if host is None else host
            address = f"[{name}]" if ":" in name else name
            secure = tls is not None and tls is not False
            url = f"redis{'s' if secure else ''}://{user}{address}:{6379 if port is None else port}/{db or 0}"
            if settings:
                url += f"?{urlencode({name: _text(value) for name, value in settings.items()})}"
        if not url.lower().startswith(SCHEMES):
            raise ConfigError("RedisSessionStore takes a URL of Redis or Valkey, like redis://localhost:6379/0")
        super().__init__(url, prefix=prefix, ttl=ttl, **of_the_store)


def _driver_options(tls: bool | Mapping[str, Any] | None) -> dict[str, Any]:
    """TLS settings by the names that the driver has for them."""
    if tls is None or isinstance(tls, bool):
        return {}
    if not isinstance(tls, Mapping):
        raise ConfigError(f"tls must be True, False or a mapping of settings, not {type(tls).__name__}")
    for name in tls:
        if name not in TLS_SETTINGS:
            meant = guess(str(name), TLS_SETTINGS)
            raise ConfigError(f"unknown TLS setting {name!r}{meant} Valid settings: {', '.join(TLS_SETTINGS)}.")
    return {f"ssl_{name}": value for name, value in tls.items() if value is not None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
