"""The same network with TLS, where answers come in records and failures are of other classes: nothing else changes.

That certificates are checked is in `test_redis.py` and `test_postgres.py`.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_kit.drivers import DriverUnavailable, open_driver
from session_kit.testing.caller import Caller
from tests.harness.drivers import both, call, numbered
from tests.harness.network import Network
from tests.harness.servers import Listener, TlsServer, Valkey, start_tls, wait_until

RECORD = 16_384  # bytes; what comes next is in another


@pytest.fixture
def tls(valkey: Valkey, tmp_path: Path) -> Iterator[TlsServer]:
    with start_tls(valkey.port, tmp_path) as server:
        yield server


def url_of(server: TlsServer, port: int | None = None) -> str:
    return f"rediss://127.0.0.1:{port or server.port}/0?ssl_ca_certs={server.ca_file}"


@both
def test_an_answer_that_is_longer_than_a_record_of_tls_comes_whole(tls: TlsServer, mode: str) -> None:
    driver = open_driver(url_of(tls))
    with asyncio.Runner() as runner:
        caller = Caller(driver, runner if mode == "async" else None)
        for length in (RECORD - 100, RECORD + 100, 3 * RECORD, 10 * RECORD):
            for value in (b"a" * length, b"b" * length):
                caller.set("key", value)
                assert caller.get("key") == value
        caller.delete("key")
        runner.run(driver.aclose())
    driver.close()


def test_answers_that_come_together_over_tls_go_to_those_who_asked(tls: TlsServer) -> None:
    driver = open_driver(url_of(tls))
    driver.set_many(numbered(50))

    async def get(key: str, turns: int) -> bytes | None:
        for _ in range(turns):  # so that the calls leave one after the other, before the first answer is there
            await asyncio.sleep(0)
        return await driver.aget(key)

    async def main() -> None:
        for _ in range(20):
            values = await asyncio.gather(*[get(key, turns) for turns, key in enumerate(numbered(50))])
            assert values == list(numbered(50).values())
        await driver.aclose()

    asyncio.run(main())
    driver.delete_many(list(numbered(50)))
    driver.close()


def test_a_login_over_tls_that_nobody_answers_leaves_no_connection_behind(tls: TlsServer, valkey: Valkey) -> None:
    async def main() -> None:
        driver = open_driver(f"{url_of(tls, network.port)}&timeout=2")
        call = asyncio.create_task(driver.aget("key"))
        await asyncio.to_thread(wait_until, lambda: network.sent["reply"] > 1000, "the handshake")
        await asyncio.sleep(0.1)
        network.forget()
        with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
            await call
        await asyncio.to_thread(wait_until, lambda: not network.wires, "the end of the connection", 3)

    with Network(tls.port) as network:
        valkey.pause()
        try:
            asyncio.run(main())
        finally:
            valkey.resume()


def test_the_files_of_authorities_are_not_read_while_the_loop_stands(
    tls: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, readers = ssl.create_default_context, []

    def noted() -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return make()

    async def main() -> None:
        driver = open_driver(url_of(tls))
        assert await driver.aget("key") is None
        await driver.aclose()

    monkeypatch.setattr(ssl, "create_default_context", noted)
    asyncio.run(main())
    assert readers
    assert threading.main_thread() not in readers


@both
def test_a_handshake_that_is_cut_off_is_told_in_words(mode: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)

    with Listener(hang_up) as server:
        driver = open_driver(f"rediss://127.0.0.1:{server.port}/0?timeout=2s")
        with pytest.raises(
            DriverUnavailable, match=r"/0: (the server has closed the connection|Connection reset by peer)$"
        ):
            call(driver, mode, "get", "key")
        driver.close()


def test_what_is_wrong_with_the_certificate_of_an_s3_server_is_told(
    tls: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    def tell(host: str, port: int) -> str:
        driver = open_driver(f"s3://bucket/?endpoint_url=https://{host}:{port}&timeout=2")
        with pytest.raises(DriverUnavailable) as caught:
            driver.set("key", b"value")
        driver.close()
        return str(caught.value)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    assert re.fullmatch("s3://bucket/: .*certificate is refused: .*; AWS_CA_BUNDLE .*", tell("127.0.0.1", tls.port))
    monkeypatch.setenv("AWS_CA_BUNDLE", tls.ca_file)
    assert re.fullmatch("s3://bucket/: .*certificate is not for this host", tell("127.1", tls.port))
    with Listener(refuse) as plain:
        assert tell("127.0.0.1", plain.port) == "s3://bucket/: what answers there does not speak TLS"
