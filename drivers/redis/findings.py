"""What a Redis or Valkey server says of itself that decides how long sessions live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from session_kit.drivers.support.findings import Finding, clock_finding, network_finding

OLDEST: Final = (6, 2)


def server_findings(
    run: Callable[[list[tuple[str, ...]]], list[Any]], hosts: Iterable[str], encrypted: bool, alone: bool = False
) -> Iterator[Finding]:
    """Ask a server, or one node of a cluster.

    run: sends commands and returns their answers, errors of the server among them.
    hosts: that we connect to; none for a Unix socket. encrypted: whether by TLS.
    alone: whether we take it for a server with all keys. Default False.
    """
    for host in hosts:
        yield network_finding(host, encrypted, "use rediss:// or valkeys://")
        break
    before = time.time()
    (answer,) = run([("INFO", "all")])
    now = (before + time.time()) / 2
    if not isinstance(answer, (bytes, str)):
        advice = "let it: ACL SETUSER ... +info +config|get, or look by hand"
        text = "the user may not ask (ACL): version, memory policy and persistence are unknown"
        yield Finding("server", "warning", text, advice)
        return
    info = _parse(answer)
    yield _version(info)
    if info.get("cluster_enabled") == "1" and alone:
        yield Finding("cluster", "failed", "this is one node, which keeps a part of the keys", "use redis+cluster://")
    if "server_time_usec" in info:
        yield clock_finding(int(info["server_time_usec"]) / 1e6 - now, "the server's")
    yield _memory(info)
    (saving,) = run([("CONFIG", "GET", "save")])
    yield _persistence(info, saving)


def _parse(answer: bytes | str) -> dict[str, str]:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _version(info: dict[str, str]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST:
        return Finding("version", "failed", f"{name} {version}", "session_kit needs Redis 6.2 or Valkey")
    return Finding("version", "ok", f"{name} {version}")


def _memory(info: dict[str, str]) -> Finding:
    policy, evicted = info.get("maxmemory_policy", "unknown"), int(info.get("evicted_keys", 0))
    if policy == "noeviction":
        return Finding("memory policy", "ok", "noeviction: a full server refuses writes, and forgets nobody")
    text = f"{policy} drops sessions when the memory is full, which logs people out"
    if evicted:
        text += f"; {evicted:,} keys were dropped since the server started"
    return Finding("memory policy", "warning", text, "CONFIG SET maxmemory-policy noeviction")


def _persistence(info: dict[str, str], saving: Any) -> Finding:
    if info.get("aof_enabled") == "1":
        return Finding("persistence", "ok", "append-only file: a restart keeps the sessions")
    if isinstance(saving, Exception):
        return Finding("persistence", "warning", "no append-only file; snapshots: the user may not ask (ACL)")
    # A list by RESP2, a dict by RESP3 or redis-py.
    values = list(saving.values()) if isinstance(saving, dict) else list(saving)[1::2]
    if any(values):
        return Finding("persistence", "ok", "snapshots: a crash takes the sessions that are newer than the last one")
    return Finding("persistence", "warning", "none: a restart logs everybody out", "CONFIG SET appendonly yes")
