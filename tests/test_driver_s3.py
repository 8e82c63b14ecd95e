"""S3 keeps the contract on real servers, and a server that ignores conditions is found out."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from session_kit import open_driver
from session_kit.drivers import Driver
from session_kit.testing import DriverConformance, ManualClock
from tests.servers import S3Server

BUCKET = "sessions"


class S3Conformance(DriverConformance):
    kind: str
    """The fixture that starts the server."""
    many = 200

    @pytest.fixture(autouse=True)
    def bucket(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("session_kit.drivers.s3.PAGE", 60)
        self.server: S3Server = request.getfixturevalue(self.kind)
        log_in(self.server, monkeypatch)
        self.folder = secrets.token_hex(8)

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return open_driver(self.url(tmp_path), clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"s3://{BUCKET}/{self.folder}?endpoint_url={self.server.endpoint_url}"


class TestSeaweed(S3Conformance):
    title = "`s3://` (SeaweedFS 4.48)"
    kind = "seaweed"
    racers = 4


class TestMoto(S3Conformance):
    title = "`s3://` (moto 5)"
    kind = "moto"


def log_in(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the server's credentials where boto3's chain looks, and make the bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    client = server.client()
    try:
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
    finally:
        client.close()
