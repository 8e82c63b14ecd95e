"""The servers of the tests: they start, keep what they should over a crash, and leave nothing behind."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.servers import S3Server, Server, Valkey, start_seaweed, start_valkey


def is_gone(server: Server) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex((server.host, server.port)) != 0


def test_a_valkey_keeps_no_data_unless_asked_and_is_gone_after_stop(tmp_path: Path) -> None:
    with start_valkey(tmp_path) as server:
        server.ask("SET", "key", "value")
        server.restart()
        assert server.ask("GET", "key") is None
    assert is_gone(server)


def test_a_persistent_valkey_has_its_data_after_a_crash(tmp_path: Path) -> None:
    with start_valkey(tmp_path, config=["--appendonly", "yes", "--appendfsync", "always"]) as server:
        server.ask("SET", "key", "value")
        server.kill()
        assert is_gone(server)
        server.start()
        assert server.ask("GET", "key") == "value"


def test_fixtures_give_servers_that_answer(valkey: Valkey, seaweed: S3Server) -> None:
    assert valkey.ask("PING") is True
    client = seaweed.client()
    assert client.list_buckets()["Buckets"] == []
    client.close()


def test_seaweed_has_its_data_after_a_crash(tmp_path: Path) -> None:
    with start_seaweed(tmp_path) as server:
        client = server.client()
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="key", Body=b"value")
        server.kill()
        server.start()
        assert client.get_object(Bucket="bucket", Key="key")["Body"].read() == b"value"
        client.close()
    assert is_gone(server)
