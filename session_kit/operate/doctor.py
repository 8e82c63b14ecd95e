"""Whether a store, a secret and a cookie do what sessions need of them."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterator

from session_kit.cookie import Cookie, check_secrets
from session_kit.drivers import ABSENT
from session_kit.drivers.support.findings import Finding
from session_kit.errors import ConfigError, Conflict, DriverError, DriverUnavailable
from session_kit.store import UnstorageSessionStore

TRIPS = 5
SHORT_TTL = 0.5
"""Seconds."""
LEFT_OVER = 60.0
"""Seconds after which a probe is gone that could not be deleted."""
NOBODY_THERE = "is the address right, does it run, does a firewall let us through?"


def examine(store: UnstorageSessionStore, *, wait: Callable[[float], object] = time.sleep) -> Iterator[Finding]:
    """Try out what sessions need of a store, with keys of no session that are deleted again.

    wait: lets so many seconds pass, for the test of the expiry.
    """
    driver, probe = store.driver, f"{store.prefix}:~probe:{secrets.token_hex(8)}"
    try:
        driver.prepare()
        yield _reach(store, probe)
        yield from _write(store, probe)
        yield from _conditions(store, probe)
        yield _expiry(store, probe, wait)
        if not driver.capabilities.shared:
            text = "other processes do not see these sessions, and a restart ends them"
            yield Finding("sharing", "warning", text, "for several workers, take a store that they share")
        yield from driver.examine()
    except (DriverUnavailable, OSError) as error:  # OSError: of a folder that is gone, or may not be written into
        unanswered = isinstance(error, DriverUnavailable) and error.unanswered
        yield Finding("reach", "failed", str(error), NOBODY_THERE if unanswered else "")
    except DriverError as error:
        yield Finding(
            "contract", "failed", f"{driver!r}: {error}", "the driver does not keep what its capabilities say"
        )


def examine_secret(secret: str | None, name: str) -> Finding:
    """Whether a secret may sign cookies.

    secret: None if there is none. name: of the environment variable that it comes from.
    """
    if not secret:
        return Finding("secret", "failed", f"{name} is not set", f'export {name}="$(session-kit secret)"')
    try:
        check_secrets(secret)
    except ConfigError as error:
        text, _, advice = str(error).partition("; ")
        return Finding("secret", "failed", f"{name}: {text}", advice)
    return Finding("secret", "ok", f"{name}: long enough, and no placeholder")


def examine_cookie(cookie: Cookie) -> Iterator[Finding]:
    """Whether a cookie is as safe as it can be."""
    options = cookie.options
    for wrong, text, advice in (
        (not options.secure, "it is sent over plain http too", "secure=True, but for development"),
        (not options.httponly, "scripts on the page can read it", "httponly=True"),
        (options.samesite == "none", "other sites may send it along", 'samesite="lax", and guard against CSRF'),
        (options.domain is not None, f"all subdomains of {options.domain} see it", "no domain, if one host is enough"),
    ):
        if wrong:
            yield Finding("cookie", "warning", f"{cookie.name}: {text}", advice)
    if options.secure and options.httponly and options.samesite != "none" and options.domain is None:
        yield Finding("cookie", "ok", f"{cookie.name}: over https alone, to this host alone, and no script reads it")


def _reach(store: UnstorageSessionStore, probe: str) -> Finding:
    times = []
    for _ in range(TRIPS):
        begun = time.perf_counter()
        store.driver.has(probe)
        times.append(time.perf_counter() - begun)
    return Finding("reach", "ok", f"a question takes {statistics.median(times) * 1000:.2f} ms")


def _write(store: UnstorageSessionStore, probe: str) -> Iterator[Finding]:
    driver = store.driver
    driver.set(probe, b"probe", ttl=LEFT_OVER)
    read = driver.get(probe)
    gone = driver.delete(probe) and not driver.has(probe)
    if read == b"probe" and gone:
        yield Finding("writing", "ok", "what is written can be read and deleted")
    else:
        text = "what was written was not read back" if read != b"probe" else "what was deleted is still there"
        yield Finding("writing", "failed", text, "is it a replica, or a cache that answers late?")


def _conditions(store: UnstorageSessionStore, probe: str) -> Iterator[Finding]:
    driver = store.driver
    if not (driver.capabilities.create and driver.capabilities.swap):
        text = "this store has none: of two requests that write one session at the same moment, the last wins"
        yield Finding("conditions", "warning", text, "see docs/limits.md; sqlite, disk, Redis and S3 have them")
        return

    def refused(value: bytes, expect: object) -> bool:
        try:
            driver.set(probe, value, ttl=LEFT_OVER, expect=expect)
        except Conflict:
            return True
        return False

    try:
        old = driver.set(probe, b"first", ttl=LEFT_OVER, expect=ABSENT)
        kept = refused(b"other", ABSENT)
        driver.set(probe, b"second", ttl=LEFT_OVER, expect=old)
        kept = kept and refused(b"third", old) and driver.get(probe) == b"second"
    finally:
        driver.delete(probe)
    if kept:
        yield Finding("conditions", "ok", "two creations, and a write of what has changed, are refused")
    else:
        yield Finding("conditions", "failed", "the server takes conditional writes and ignores the condition")


def _expiry(store: UnstorageSessionStore, probe: str, wait: Callable[[float], object]) -> Finding:
    store.driver.set(probe, b"short", ttl=SHORT_TTL)
    wait(SHORT_TTL * 1.2)
    if store.driver.has(probe):
        store.driver.delete(probe)
        return Finding("expiry", "failed", "an entry outlived its time", "look at the clocks, here and there")
    if store.ttl is None:
        return Finding("expiry", "warning", "it works, but sessions have no ttl and never end", "?ttl=7d")
    return Finding("expiry", "ok", f"an entry of {SHORT_TTL:g} s was gone in time")
