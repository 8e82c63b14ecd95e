"""PostgreSQL: one table, one statement and one round trip a call.

`driver` is the driver, `statements` what it asks the server. `pool` keeps the connections of blocking code and of each
event loop, `exchange` is one statement and its answer on one of them. `settings` reads the URL, `errors` says what went
wrong.
"""

from session_kit.drivers.postgres.driver import PostgresDriver

__all__ = ["PostgresDriver"]
