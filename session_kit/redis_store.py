"""A session store on Redis or Valkey, for those who configure host and port rather than a URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from session_kit.errors import ConfigError
from session_kit.store import DAY, TTL, UnstorageSessionStore


class RedisSessionStore(UnstorageSessionStore):
    """`UnstorageSessionStore` on Redis (6.2 or later) or Valkey.

    url: a URL of the Redis driver with its options, in place of the parts below.
    host: default `"localhost"`. port: default 6379. username, password: default none.
    db: number of the database; default 0. tls: whether to speak TLS; default False.
    prefix, ttl, options: as for `UnstorageSessionStore`.
    Raises `ConfigError` for settings that cannot work; the server is asked at first use.

    >>> RedisSessionStore(host="redis.example.com", password="a/secret", tls=True)
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
        tls: bool | None = None,
        prefix: str = "sess",
        ttl: TTL = DAY,
        **options: Any,
    ) -> None:
        parts = {"host": host, "port": port, "username": username, "password": password, "db": db, "tls": tls}
        given = [name for name, value in parts.items() if value is not None]
        if url is not None and given:
            raise ConfigError(f"RedisSessionStore takes a url or its parts, not both: put {given[0]} into the url")
        if url is None:
            user = f"{quote(username or '', safe='')}:{quote(password or '', safe='')}@" if username or password else ""
            name = host or "localhost"
            address = f"[{name}]" if ":" in name else name
            url = f"redis{'s' if tls else ''}://{user}{address}:{port or 6379}/{db or 0}"
        super().__init__(url, prefix=prefix, ttl=ttl, **options)
