"""S3 keeps the contract on real servers, and a server that ignores conditions is found out."""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest

from session_kit import ConfigError, SessionManager, UnstorageSessionStore, open_driver
from session_kit.drivers import ABSENT, Conflict, CorruptEntry, Driver, DriverUnavailable, Unsupported
from session_kit.drivers.s3 import S3Driver
from session_kit.testing import DriverConformance, ManualClock
from tests.harness.network import Fault, Network
from tests.harness.servers import S3Server, silent_server, wrong_server
from tests.harness.sessions import SECRET, cookie_of

BUCKET = "sessions"


class S3Conformance(DriverConformance):
    kind: str
    """The fixture that starts the server."""
    many = 100

    @pytest.fixture(autouse=True)
    def bucket(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("session_kit.drivers.s3.PAGE", 30)
        self.server: S3Server = request.getfixturevalue(self.kind)
        give_credentials(self.server, monkeypatch)
        self.folder = secrets.token_hex(8)

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return open_driver(self.url(tmp_path), clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"s3://{BUCKET}/{self.folder}?endpoint_url={self.server.endpoint_url}"


class TestSeaweed(S3Conformance):
    title = "`s3://` (SeaweedFS 4.48)"
    kind = "seaweed"
    racers = 4


@pytest.mark.slow  # the others here that use moto find what is different
class TestMoto(S3Conformance):
    """moto answers as Amazon does, and lets 16 race. (The parts that no answer of a server decides are left out.)"""

    kind = "moto"
    test_any_keys_and_values_come_back_unchanged = None
    test_hostile_keys_come_back_unchanged_and_stay_apart = None
    test_many_threads_share_one_driver = None
    test_several_processes_share_the_store = None
    test_a_wrong_key_is_refused_by_every_method = None
    test_a_wrong_ttl_is_refused_before_anything_is_written = None
    test_a_value_that_is_not_bytes_is_refused = None


def give_credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the server's credentials where boto3's chain looks, and make the bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    make_bucket(server)


@functools.cache
def make_bucket(server: S3Server) -> None:
    with contextlib.closing(server.client()) as client:
        client.create_bucket(Bucket=BUCKET)


class Proxy:
    """A real HTTP server in front of moto that counts requests, and loses answers or conditions when it is told to."""

    def __init__(self, target: S3Server) -> None:
        proxy = self
        self.requests: Counter[str] = Counter()
        self.lose_answers_of: set[str] = set()
        self.meanwhile: Callable[[], object] = lambda: None  # before the client learns that an answer is lost
        self.strip_conditions = False
        self.hides_what_is_missing = False
        self.status_of_next: dict[str, list[int]] = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                method = self.command
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = dict(self.headers)
                name = "COPY" if "x-amz-copy-source" in {key.lower() for key in headers} else method
                proxy.requests[name] += 1
                if proxy.status_of_next.get(method):
                    self.reply(proxy.status_of_next[method].pop(0), {}, b"")
                    return
                if proxy.strip_conditions:
                    headers = {key: value for key, value in headers.items() if not key.lower().startswith("if-")}
                connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
                connection.request(method, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                if proxy.hides_what_is_missing and answer.status == 404 and method in ("GET", "HEAD"):
                    # So does Amazon's S3, where the right to list the bucket is missing.
                    refusal = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                    self.reply(403, {"Content-Type": "application/xml"}, refusal)
                    connection.close()
                    return
                if method in proxy.lose_answers_of:
                    proxy.lose_answers_of.discard(method)
                    proxy.meanwhile()
                    self.close_connection = True
                else:
                    self.reply(answer.status, dict(answer.getheaders()), content)
                connection.close()

            def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                dropped = {"connection", "transfer-encoding", "content-length", "server", "date"}
                for key, value in headers.items():
                    if key.lower() not in dropped:
                        self.send_header(key, value)
                length = (
                    headers.get("Content-Length", str(len(content))) if self.command == "HEAD" else str(len(content))
                )
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def proxy(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    give_credentials(moto, monkeypatch)
    proxy = Proxy(moto)
    yield proxy
    proxy.stop()


@pytest.fixture
def driver(proxy: Proxy) -> Iterator[S3Driver]:
    """A driver that has found out what its server honours, with a count that begins at zero."""
    driver = S3Driver(BUCKET, secrets.token_hex(8), endpoint_url=proxy.url)
    driver.prepare()
    proxy.requests.clear()
    yield driver
    driver.close()


# --- requests ---


def test_each_call_makes_no_more_requests_than_it_needs(driver: S3Driver, proxy: Proxy) -> None:
    version: object = None
    calls: list[tuple[Callable[[], object], dict[str, int]]] = [
        (lambda: driver.read("key"), {"GET": 1}),
        (lambda: driver.set("key", b"1", ttl=100), {"PUT": 1}),
        (lambda: driver.set("new", b"1", expect=ABSENT), {"PUT": 1}),
        (lambda: driver.has("key"), {"HEAD": 1}),
        (lambda: driver.touch("key", 50), {"HEAD": 1, "COPY": 1}),
        (lambda: driver.delete("new"), {"HEAD": 1, "DELETE": 1}),
        (lambda: driver.delete("none"), {"HEAD": 1}),
    ]
    for call, requests in calls:
        proxy.requests.clear()
        call()
        assert dict(proxy.requests) == requests
    version = driver.set("key", b"2")
    proxy.requests.clear()
    driver.set("key", b"3", expect=version)
    assert dict(proxy.requests) == {"PUT": 1}


def test_many_are_deleted_by_pages_of_requests(driver: S3Driver, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_kit.drivers.s3.PAGE", 20)
    keys = [f"key-{number}" for number in range(30)]
    driver.set_many(dict.fromkeys(keys, b"x"))
    proxy.requests.clear()
    assert driver.delete_many(keys) == 30
    assert dict(proxy.requests) == {"HEAD": 30, "POST": 2}


# --- what a server honours ---


def test_a_server_that_ignores_conditions_is_found_out_before_anything_is_written(proxy: Proxy) -> None:
    proxy.strip_conditions = True
    driver = S3Driver(BUCKET, secrets.token_hex(8), endpoint_url=proxy.url)
    with pytest.raises(Unsupported, match="ignores If-None-Match"):
        driver.set("key", b"value", expect=ABSENT)
    assert not driver.capabilities.create
    assert not driver.capabilities.swap
    version = driver.set("key", b"old")
    with pytest.raises(Unsupported, match="ignores If-Match"):
        driver.set("key", b"new", expect=version)
    assert driver.get("key") == b"old"
    assert list(driver.keys()) == ["key"]
    driver.close()


def test_sessions_fall_back_to_the_last_write_there(proxy: Proxy) -> None:
    proxy.strip_conditions = True
    driver = S3Driver(BUCKET, secrets.token_hex(8), endpoint_url=proxy.url)
    manager = SessionManager(UnstorageSessionStore(driver), secret=SECRET)
    session = manager.open()
    session["user"] = "ada"
    cookie = cookie_of(manager.commit(session))
    session = manager.open(cookie)
    session["visits"] = 1
    manager.commit(session)
    assert dict(manager.open(cookie)) == {"user": "ada", "visits": 1}
    driver.close()


def test_without_the_right_to_list_the_bucket_the_probe_says_so_before_anybody_is_locked_out(
    proxy: Proxy, moto: S3Server
) -> None:
    proxy.hides_what_is_missing = True
    driver = S3Driver(BUCKET, secrets.token_hex(8), endpoint_url=proxy.url)
    manager = SessionManager(UnstorageSessionStore(driver), secret=SECRET)
    session = manager.open()
    session["user"] = "ada"
    for call in (driver.prepare, lambda: driver.set("key", b"x", expect=ABSENT), lambda: manager.commit(session)):
        with pytest.raises(DriverUnavailable, match="the permission s3:ListBucket is missing") as caught:
            call()
        assert "\n" not in str(caught.value)
    for call in (lambda: driver.get("gone"), lambda: driver.has("gone"), lambda: driver.delete("gone")):
        with pytest.raises(DriverUnavailable, match="s3:ListBucket on the bucket, without which"):
            call()
    with contextlib.closing(moto.client()) as client:
        assert client.list_objects_v2(Bucket=BUCKET, Prefix=driver._folder)["KeyCount"] == 0
    proxy.hides_what_is_missing = False  # it is granted, and nothing has to be restarted
    manager.commit(session)
    assert driver.get("gone") is None
    assert driver.delete("gone") is False
    driver.close()


def test_the_probe_leaves_nothing_behind(driver: S3Driver, moto: S3Server) -> None:
    client = moto.client()
    assert client.list_objects_v2(Bucket=BUCKET, Prefix=driver._folder)["KeyCount"] == 0
    client.close()


# --- answers that are lost ---


@pytest.mark.parametrize("condition", ["none", "absent", "version"])
def test_a_write_whose_answer_was_lost_is_not_a_conflict_with_itself(
    driver: S3Driver, proxy: Proxy, condition: str
) -> None:
    expect: dict[str, Any] = {}
    if condition == "absent":
        expect = {"expect": ABSENT}
    elif condition == "version":
        expect = {"expect": driver.set("key", b"old")}
    proxy.lose_answers_of = {"PUT"}
    version = driver.set("key", b"new", ttl=100, **expect)
    entry = driver.read("key")
    assert entry is not None
    assert entry.value == b"new"
    assert entry.version == version


def test_a_write_that_others_overtook_is_a_conflict_though_its_answer_was_lost(driver: S3Driver, proxy: Proxy) -> None:
    old = driver.set("key", b"old")
    driver.set("key", b"theirs")
    proxy.lose_answers_of = {"PUT"}
    with pytest.raises(Conflict):
        driver.set("key", b"ours", expect=old)
    assert driver.get("key") == b"theirs"


@pytest.mark.parametrize("writes", [1, 31, 32])
def test_a_write_whose_answer_was_lost_and_that_others_have_built_on_is_not_made_twice(
    driver: S3Driver, proxy: Proxy, moto: S3Server, writes: int
) -> None:
    other = S3Driver(BUCKET, driver._folder, endpoint_url=moto.endpoint_url)

    def build_on_it() -> None:
        for _ in range(writes):
            entry = other.read("key")
            assert entry is not None
            other.set("key", entry.value + b".", expect=entry.version)

    old = driver.set("key", b"old")
    proxy.lose_answers_of, proxy.meanwhile = {"PUT"}, build_on_it
    if writes < 32:
        version = driver.set("key", b"ours", expect=old)
        with pytest.raises(Conflict):
            driver.set("key", b"without theirs", expect=version)
    else:  # nobody remembers: an error that says so, not a conflict, after which a session would make it again
        with pytest.raises(DriverUnavailable, match="cannot be told any more"):
            driver.set("key", b"ours", expect=old)
    assert driver.get("key") == b"ours" + b"." * writes
    other.close()


@contextlib.contextmanager
def behind_network(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Iterator[tuple[S3Driver, Network]]:
    """A driver whose calls go through a network."""
    give_credentials(server, monkeypatch)
    with Network(server.port) as network:
        endpoint_url = f"http://127.0.0.1:{network.port}"
        driver = S3Driver(BUCKET, secrets.token_hex(8), endpoint_url=endpoint_url, **options)
        yield driver, network
        driver.close()


@pytest.fixture
def cut(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Driver, Network]]:
    """A driver behind a network, with one entry."""
    with behind_network(moto, monkeypatch, timeout=1) as (driver, network):
        driver.set("key", b"value")
        yield driver, network


@pytest.mark.parametrize(
    ("method", "arguments"), [("get", ["key"]), ("has", ["key"]), ("set", ["key", b"value"]), ("keys", [])]
)
@pytest.mark.filterwarnings("ignore:tzname")  # half of it
def test_an_answer_that_is_cut_off_within_its_headers_is_none(
    cut: tuple[S3Driver, Network], method: str, arguments: list[Any]
) -> None:
    driver, network = cut

    def act() -> object:
        answer = getattr(driver, method)(*arguments)
        return list(answer) if method == "keys" else answer

    network.set()
    whole = act()
    size = network.sent["reply"]
    outcomes = set()
    for after in range(len("HTTP/1.1 200 OK\r\n"), size, size // 25):
        network.set(Fault("fin", "reply", after))
        try:
            outcomes.add(repr(act()))
        except DriverUnavailable as error:
            outcomes.add(str(error).rpartition(": ")[2])
    assert outcomes - {"the connection was lost", "what answers there does not speak S3", "IncompleteReadError"} <= {
        repr(whole),
        "the answer was cut off, or the server does not speak S3",
    }


@pytest.mark.parametrize("kind", ["rst", "stall"])
def test_a_refusal_that_does_not_come_to_its_end_is_an_outage(
    cut: tuple[S3Driver, Network], kind: Literal["rst", "stall"]
) -> None:
    driver, network = cut
    network.set()
    assert driver.get("missing") is None
    network.set(Fault(kind, "reply", network.sent["reply"] - 10))
    with pytest.raises(DriverUnavailable, match=r"the connection was lost|no answer within the timeout"):
        driver.get("missing")
    assert driver.get("key") == b"value"


def test_a_deletion_whose_answer_was_lost_is_not_a_conflict_with_itself(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with behind_network(seaweed, monkeypatch) as (driver, network):
        version = driver.set("key", b"value", expect=ABSENT)
        network.set()
        assert driver.has("key")  # as a deletion looks first
        network.set(Fault("rst", "reply", network.sent["reply"] + 1))
        assert driver.delete("key", expect=version)
        assert not driver.has("key")


def test_a_write_that_is_cut_off_before_its_value_does_not_empty_the_entry(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with behind_network(seaweed, monkeypatch) as (driver, network):
        driver.prepare()
        version = driver.set("key", b"old")
        network.set()
        driver.set("key", b"value", expect=version)
        headers = network.sent["request"] - len(b"value")
        version = driver.set("key", b"old")
        network.set(Fault("fin", "request", headers))
        driver.set("key", b"value", expect=version)
        assert network.fault is not None
        assert network.fault.fired
        assert driver.get("key") == b"value"


def test_a_write_that_meets_another_under_way_is_tried_again(driver: S3Driver, proxy: Proxy) -> None:
    proxy.status_of_next = {"PUT": [409, 409]}
    driver.set("key", b"value", expect=ABSENT)
    assert proxy.requests["PUT"] == 3
    assert driver.get("key") == b"value"


# --- what is stored ---


def test_values_are_bare_and_the_expiry_lies_with_the_object(proxy: Proxy, moto: S3Server) -> None:
    clock = ManualClock(1000.0)
    driver = S3Driver(BUCKET, "bare", endpoint_url=proxy.url, clock=clock)
    driver.set("key", b'{"user":"ada"}', ttl=2.5)
    client = moto.client()
    answer = client.get_object(Bucket=BUCKET, Key="bare/key")
    assert answer["Body"].read() == b'{"user":"ada"}'
    assert answer["Metadata"]["expires-at"] == "1002.5"
    client.put_object(Bucket=BUCKET, Key="bare/by-hand", Body=b"plain")
    client.put_object(Bucket=BUCKET, Key="bare/broken", Body=b"x", Metadata={"expires-at": "soon"})
    client.close()
    assert driver.get("by-hand") == b"plain"
    with pytest.raises(CorruptEntry):
        driver.get("broken")
    driver.close()


def test_a_touch_downloads_nothing(driver: S3Driver, proxy: Proxy) -> None:
    driver.set("key", b"x" * 100_000, ttl=10)
    proxy.requests.clear()
    assert driver.touch("key", 1000)
    assert "GET" not in proxy.requests
    entry = driver.read("key")
    assert entry is not None
    assert entry.expires_at == pytest.approx(time.time() + 1000, abs=10)


# --- bad input ---


def test_a_missing_bucket_is_an_outage_not_a_missing_key(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(moto, monkeypatch)
    driver = S3Driver("no-such-bucket", endpoint_url=moto.endpoint_url)
    for call in (
        lambda: driver.get("key"),
        lambda: driver.has("key"),
        lambda: driver.delete("key"),
        lambda: driver.set("key", b"x"),
        lambda: driver.set("key", b"x", expect=ABSENT),
        lambda: list(driver.keys()),
    ):
        with pytest.raises(DriverUnavailable, match="the bucket does not exist"):
            call()
    driver.close()


def test_wrong_credentials_are_named_without_showing_them(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(seaweed, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cr3t")
    driver = S3Driver(BUCKET, endpoint_url=seaweed.endpoint_url)
    for call in (lambda: driver.get("key"), lambda: driver.has("key"), lambda: driver.set("key", b"x")):
        with pytest.raises(DriverUnavailable, match="check credentials and permissions") as caught:
            call()
        assert "wr0ng" not in str(caught.value)
    driver.close()


def test_no_credentials_are_an_outage_that_says_where_to_put_them(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    driver = S3Driver(BUCKET, endpoint_url=moto.endpoint_url)
    with pytest.raises(DriverUnavailable, match="no credentials found; set AWS_ACCESS_KEY_ID"):
        driver.get("key")
    driver.close()


def test_a_silent_server_is_an_outage_within_the_timeout(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(moto, monkeypatch)
    with silent_server() as port:
        driver = S3Driver(BUCKET, endpoint_url=f"http://127.0.0.1:{port}", timeout=0.6)  # type: ignore[arg-type]
        begin = time.monotonic()
        with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
            driver.get("key")
        assert time.monotonic() - begin < 4
        driver.close()


def test_what_does_not_speak_s3_is_named(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(moto, monkeypatch)
    with wrong_server() as port:
        driver = S3Driver(BUCKET, endpoint_url=f"http://127.0.0.1:{port}", timeout=1)  # type: ignore[arg-type]
        with pytest.raises(DriverUnavailable):
            driver.get("key")
        driver.close()


def test_nobody_listening_is_an_outage(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(moto, monkeypatch)
    with silent_server() as port:
        pass
    driver = S3Driver(BUCKET, endpoint_url=f"http://127.0.0.1:{port}", timeout=1)  # type: ignore[arg-type]
    for call in (lambda: driver.get("key"), lambda: driver.set("key", b"x")):
        with pytest.raises(DriverUnavailable, match="nobody answers"):
            call()
    driver.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "cannot be the name of a bucket"),
        ("s3://user:s3cr3t@bucket", "credentials come from boto3's own chain"),
        ("s3://AKIA:s3cr3t/x@bucket/folder", r"^s3://\.\.\.: leave out user and password"),
        ("s3://AKIA:123/s3cr3t@bucket", r"^s3://\.\.\.: leave out user and password"),
        ("s3://bucket?endpoint_url=http://localhost:9000/bucket", "ends in the name of a bucket; leave that out"),
        ("s3://bucket?endpoint_url=http://localhost:9000/a/bucket/", "ends in the name of a bucket; leave that out"),
        ("s3://bucket/a//b", "no part that is empty"),
        ("s3://bucket/../b", "no part that is empty"),
        ("s3://bucket/" + "f" * 111, "at most 110 bytes"),
        ("s3://bucket?max_connections=0", "at least 1"),
        ("s3://bucket?endpoint_url=localhost:9000", "must begin with http"),
        *(
            (f"s3://bucket?endpoint_url={quote(endpoint)}", "must begin with http")
            for endpoint in (
                *("", "http://", "http:///x", "ftp://h", "http://a b", "http://h/a b", "http://h\n", "http://h\\x"),
                *("http://h_o.example", "http://-x-", "http://[::1", "http://h:0", "http://h:99999", "http://h:port"),
                *("http://user:s3cr3t@h", "http://h?s3cr3t", "http://h#s3cr3t", "http://é.example"),
            )
        ),
        *(
            (f"s3://bucket?region={quote(region)}", "cannot be a region: it is one word like eu-central-1")
            for region in (
                "",
                "x y",
                "eu_central",
                "-x",
                "x-",
                "a/b",
                "a.b",
                "a@b",
                "eu-central-1\n",
                "é",
                "1",
                "x" * 64,
            )
        ),
        ("s3://bucket?endpoint=http://localhost", "did you mean 'endpoint_url'"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_start(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_driver(url)
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http://localhost:9000", "https://s3.example.com/gateway/", "http://[::1]:9000"])
def test_an_endpoint_that_can_be_meant_is_taken(endpoint: str) -> None:
    with closing(open_driver(f"s3://bucket?region=eu-central-1&endpoint_url={endpoint}")) as driver:
        assert [finding.subject for finding in islice(driver.examine(), 1)] == ["network"]  # which has made the client


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_DEFAULT_REGION", "s3cr3t y"),
        ("AWS_ENDPOINT_URL", "http://user:s3cr3t@h o"),
        ("AWS_PROFILE", "s3cr3t"),
        ("AWS_CONFIG_FILE", "{broken}"),
    ],
)
def test_what_boto3_does_not_understand_in_the_environment_is_an_outage_in_one_line(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("s3cr3t, and no section")
    monkeypatch.setenv(name, value.format(broken=tmp_path / "config"))
    with closing(S3Driver(BUCKET)) as driver, pytest.raises(DriverUnavailable) as caught:
        driver.get("key")
    assert re.fullmatch(
        rf"s3://{BUCKET}/: boto3 does not understand its configuration \(\w+\); look at the AWS_ .*", str(caught.value)
    )
    assert "s3cr3t" not in str(caught.value)
    if name == "AWS_CONFIG_FILE":
        with pytest.raises(ConfigError, match="boto3 does not understand its configuration"):
            S3Driver(BUCKET, profile="shop")


def test_an_unknown_profile_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="there is no profile 'nobody'"):
        S3Driver(BUCKET, profile="nobody")


@pytest.mark.parametrize(
    "option", [{"endpoint_url": "http://h"}, {"region": "eu-central-1"}, {"profile": "shop"}, {"timeout": 2.0}]
)
def test_an_option_beside_a_given_client_is_refused_since_it_would_do_nothing(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"takes a client or {name}, not both"):
        S3Driver(BUCKET, client=object(), **option)


def test_a_given_client_is_not_closed(moto: S3Server) -> None:
    client = moto.client()
    driver = S3Driver(BUCKET, "given", client=client)
    driver.set("key", b"value")
    driver.close()
    assert client.get_object(Bucket=BUCKET, Key="given/key")["Body"].read() == b"value"
    client.close()
