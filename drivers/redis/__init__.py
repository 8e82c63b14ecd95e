"""Redis and Valkey: one server, a cluster, or what Sentinels watch.

`driver` is the driver, `commands` what it asks a server. A transport brings the commands there: `server` over
connections of redis-py that are kept open (`pool` for blocking code, `pipeline` for an event loop), `cluster` to many
servers, `given` through a client that the application made. `settings` reads the URL, `connect` lets redis-py connect,
`protocol` packs commands and parses answers.
"""

from session_kit.drivers.redis.driver import RedisDriver

__all__ = ["RedisDriver"]
