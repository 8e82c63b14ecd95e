"""Entries as objects in a bucket of S3, or of a server that speaks S3."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import boto3
import botocore.handlers
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from session_kit.drivers.base import ABSENT, ANY, Capabilities, Driver, Entry, check_key, check_ttl, check_value
from session_kit.drivers.errors import ConfigError, Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.findings import Finding, clock_finding, network_finding
from session_kit.drivers.names import key_of_path, path_of, stem_of
from session_kit.drivers.options import Duration
from session_kit.drivers.registry import redact

if TYPE_CHECKING:
    from typing import Self

R = TypeVar("R")

CHANGED: Final = "the entry is not what was expected: it was changed, created or deleted meanwhile"
# An object name has at most 1,024 bytes, the path of a key 913.
LONGEST_FOLDER: Final = 110
BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
# The most that one request lists or deletes.
PAGE = 1000
# How often a write is repeated that the server refused because another was under way (409).
MAX_ATTEMPTS: Final = 8

FAILURES: Final = (ClientError, BotoCoreError, ResponseParserError)
# A request that failed so has not reached the server.
NEVER_SENT: Final = (ConnectTimeoutError, EndpointConnectionError, NoCredentialsError, PartialCredentialsError)


class Version(NamedTuple):
    """The version of an object: the server's tag of its content, and when it expires."""

    etag: str
    expires_at: float | None


class Seen(NamedTuple):
    """What a server tells of an object without its content. token: says which write made it."""

    version: Version
    token: str | None


class S3Driver(Driver):
    """A bucket, or a folder in one.

    bucket: its name; it has to exist. folder: a path in it, of at most 110 bytes. Default none.
    client: a boto3 client that you made, in place of the settings below; it is never closed here.
    endpoint_url: of a server other than Amazon's. region: default what boto3 finds, else `us-east-1`.
    profile: of `~/.aws/config`. Credentials come from boto3's own chain, never from the URL.
    timeout: about how long a call waits for the server at most, in seconds. Default 10.
    max_connections: requests under way at a time, and threads behind the async twins. Default 32.
    clock: Unix time in seconds.

    Values are stored as they are, with the expiry in the object's metadata (`x-amz-meta-expires-at`, Unix time).
    Servers do not look at it: `prune`, or a lifecycle rule for the bucket, removes what has expired. Conditional writes
    are those of S3 (`If-Match`, `If-None-Match`); whether a server honours them is tried out at the first such write or
    by `prepare`, with an object of no key that is deleted again. A version is the ETag: content that was written back
    is the same version.

    In a URL: `s3://bucket/folder?endpoint_url=http://localhost:9000&region=eu-central-1`.
    """

    def __init__(
        self,
        bucket: str,
        folder: str = "",
        *,
        client: Any = None,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        timeout: Duration = Duration(10.0),
        max_connections: int = 32,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock)
        folder = folder.strip("/")
        self._where = f"s3://{bucket}/{folder}"
        if not BUCKET.fullmatch(bucket):
            raise ConfigError(f"{self._where}: {bucket!r} cannot be the name of a bucket")
        if len(folder.encode()) > LONGEST_FOLDER or any(
            part in ("", ".", "..") for part in folder.split("/") if folder
        ):
            raise ConfigError(
                f"{self._where}: a folder has at most {LONGEST_FOLDER} bytes, and no part that is empty, '.' or '..'"
            )
        if max_connections < 1:
            raise ConfigError(f"{self._where}: max_connections must be at least 1, not {max_connections}")
        if endpoint_url is not None and not re.match(r"https?://[^/]", endpoint_url):
            raise ConfigError(f"{self._where}: endpoint_url must begin with http:// or https:// and name a host")
        if profile is not None and profile not in botocore.session.get_session().available_profiles:
            raise ConfigError(f"{self._where}: there is no profile {profile!r} in the configuration of boto3")
        self.threads = max_connections
        self.capabilities = Capabilities(create=True, swap=True, shared=True)
        self._bucket = bucket
        self._folder = f"{folder}/" if folder else ""
        self._given = client
        self._settings = {"endpoint_url": endpoint_url, "region": region, "profile": profile}
        self._timeout = timeout
        self._prepared = False
        self._bucket_is_there = False
        self._deletes_conditionally = False
        self._reset()

    def _reset(self) -> None:
        self._opening = threading.RLock()
        self._opened: Any = self._given
        self._helpers: ThreadPoolExecutor | None = None

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        if "@" in url.netloc:
            raise ConfigError(f"{redact(url)}: leave out user and password; credentials come from boto3's own chain")
        return cls(unquote(url.netloc), unquote(url.path), **options)

    def __repr__(self) -> str:
        return f"S3Driver({self._where})"

    # --- the contract ---

    def read(self, key: str) -> Entry | None:
        name = self._name(key)
        try:
            answer = self._ask("get_object", Key=name)
            value: bytes = self._asked(answer["Body"].read)
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._unavailable(error) from None
        seen = _seen(answer)
        return Entry(value, seen.version, seen.version.expires_at) if self._is_live(seen) else None

    def has(self, key: str) -> bool:
        return self._is_live(self._look(self._name(key)))

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        name = self._name(key)
        check_value(value)
        expires_at = self.expires_at(ttl)
        if expect is ANY:
            return self._put(name, value, expires_at)
        if expect is not ABSENT:
            return self._put(name, value, expires_at, IfMatch=self._expected(expect).etag)
        self.prepare()
        if not self.capabilities.create:
            raise self.unsupported("conditional writes: the server ignores If-None-Match")
        try:
            return self._put(name, value, expires_at, IfNoneMatch="*")
        except Conflict:
            seen = self._look(name)
            if seen is None or self._is_live(seen):
                raise
            # What has expired is not there, but the server does not know.
            return self._put(name, value, expires_at, IfMatch=seen.version.etag)

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        name = self._name(key)
        if expect not in (ANY, ABSENT):
            self._delete_version(name, self._expected(expect))
            return True
        seen = self._look(name)
        if expect is ABSENT and self._is_live(seen):
            raise Conflict(CHANGED)
        if seen is not None and expect is ANY:
            self._must("delete_object", Key=name)
        return self._is_live(seen)

    def touch(self, key: str, ttl: float | None) -> bool:
        """Give the object new metadata; the server copies it onto itself."""
        name = self._name(key)
        check_ttl(ttl)
        seen = self._look(name)
        if seen is None or not self._is_live(seen):
            return False
        try:
            self._ask(
                "copy_object",
                Key=name,
                CopySource={"Bucket": self._bucket, "Key": name},
                CopySourceIfMatch=seen.version.etag,
                MetadataDirective="REPLACE",
                Metadata=_metadata(self.expires_at(ttl), seen.token),
            )
        except ClientError as error:
            if _status(error) not in (404, 409, 412):
                raise self._unavailable(error) from None
            return self.has(key)  # somebody wrote it, with a fresh ttl, or deleted it
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the live keys; a listing does not tell the expiry, so each object is asked for it, many at a time."""
        for names in self._pages(stem_of(prefix)):
            found = [(key, name) for name in names if (key := self._key(name)) is not None and key.startswith(prefix)]
            for (key, _), seen in zip(found, self._at_once(self._look, [name for _, name in found]), strict=True):
                if self._is_live(seen):
                    yield key

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        names = list(keys)
        values = self._at_once(self.get, names)
        return {key: value for key, value in zip(names, values, strict=True) if value is not None}

    def set_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        check_ttl(ttl)
        list(self._at_once(lambda item: self.set(*item, ttl=ttl), list(items.items())))

    def delete_many(self, keys: Iterable[str]) -> int:
        names = [self._name(key) for key in keys]
        seen = list(self._at_once(self._look, names))
        there = [name for name, one in zip(names, seen, strict=True) if one is not None]
        for start in range(0, len(there), PAGE):
            objects = [{"Key": name} for name in there[start : start + PAGE]]
            answer = self._must("delete_objects", Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                raise DriverUnavailable(
                    f"{self._where}: {len(errors)} objects were not deleted: {errors[0].get('Code')}"
                )
        return sum(map(self._is_live, seen))

    def prune(self) -> int:
        """Delete what has expired; each object is asked for its expiry."""

        def prune(name: str) -> int:
            seen = self._look(name)
            if seen is None or self._is_live(seen):
                return 0
            with contextlib.suppress(Conflict):
                self._remove(name, seen.version)
                return 1
            return 0

        return sum(sum(self._at_once(prune, [n for n in names if self._key(n)])) for names in self._pages(""))

    def prepare(self) -> None:
        """Find out which conditions the server honours."""
        if self._prepared:
            return
        with self._opening:
            if not self._prepared:
                self._probe()
                self._prepared = True

    def examine(self) -> Iterator[Finding]:
        url = urlsplit(self._client().meta.endpoint_url)
        yield network_finding(url.hostname or "", url.scheme == "https", "use https:// in endpoint_url")
        headers = self._must("head_bucket")["ResponseMetadata"]["HTTPHeaders"]
        if "date" in headers:
            # In whole seconds.
            yield clock_finding(parsedate_to_datetime(headers["date"]).timestamp() + 0.5 - time.time(), "the server's")

    def close(self) -> None:
        super().close()
        with self._opening:
            client, self._opened = self._opened, self._given
            helpers, self._helpers = self._helpers, None
        if helpers is not None:
            helpers.shutdown(wait=False)
        if client is not None and client is not self._given:
            client.close()

    def after_fork(self) -> None:
        super().after_fork()
        self._reset()

    # --- conditional writes ---

    def _expected(self, expect: object) -> Version:
        """The version that is expected, if it can still be there."""
        self.prepare()
        if not self.capabilities.swap:
            raise self.unsupported("conditional writes: the server ignores If-Match")
        if not isinstance(expect, Version) or self._is_over(expect.expires_at):
            raise Conflict(CHANGED)
        return expect

    def _put(self, name: str, value: bytes, expires_at: float | None, **condition: str) -> Version:
        token = secrets.token_hex(8)
        metadata = _metadata(expires_at, token)
        for attempt in range(MAX_ATTEMPTS):
            try:
                answer = self._ask("put_object", Key=name, Body=value, Metadata=metadata, **condition)
                return Version(answer["ETag"], expires_at)
            except ClientError as error:
                if _status(error) == 409 and attempt < MAX_ATTEMPTS - 1:
                    time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311  # no secret
                    continue
                refused = _status(error) == 412 or (bool(condition) and _code(error) in ("NoSuchKey", "404"))
                failure: Exception = Conflict(CHANGED) if refused else self._unavailable(error)
                if not refused:
                    raise failure from None
            except DriverUnavailable as error:
                if isinstance(error.__cause__, NEVER_SENT):
                    raise
                failure = error
            # Did it land? A request whose answer was lost may have, and its repetition is then refused.
            seen = self._look(name)
            if seen is not None and seen.token == token:
                return seen.version
            raise failure
        raise DriverUnavailable(f"{self._where}: others write the same key all the time; try again")

    def _delete_version(self, name: str, version: Version) -> None:
        seen = self._look(name)
        if seen is None or seen.version.etag != version.etag or not self._is_live(seen):
            raise Conflict(CHANGED)
        self._remove(name, version)

    def _remove(self, name: str, version: Version) -> None:
        """Delete the object if it still has this version, else `Conflict`."""
        self.prepare()
        if not self._deletes_conditionally:
            if self.capabilities.swap:
                # An object that has expired is as good as none, and it can be put under a condition.
                self._put(name, b"", 0.0, IfMatch=version.etag)
            else:
                self._must("delete_object", Key=name)
            return
        try:
            self._ask("delete_object", Key=name, IfMatch=version.etag)
        except ClientError as error:
            if _status(error) in (404, 409, 412):
                raise Conflict(CHANGED) from None
            raise self._unavailable(error) from None

    def _probe(self) -> None:
        name = f"{self._folder}.probe-{secrets.token_hex(8)}"
        wrong = {"IfMatch": '"00000000000000000000000000000000"'}

        def refuses(operation: str, **arguments: Any) -> bool:
            try:
                self._ask(operation, Key=name, **arguments)
            except ClientError as error:
                if _status(error) in (412, 409):
                    return True
                if _status(error) in (400, 501):  # it knows of no conditions, and says so
                    return False
                raise self._unavailable(error) from None
            return False

        try:
            self._ask("put_object", Key=name, Body=b"probe")
        except ClientError as error:
            if _status(error) != 403:
                raise self._unavailable(error) from None
            self.capabilities = Capabilities(shared=True)  # it can be read, at most
            return
        try:
            self.capabilities = Capabilities(
                create=refuses("put_object", Body=b"other", IfNoneMatch="*"),
                swap=refuses("put_object", Body=b"other", **wrong),
                shared=True,
            )
            self._deletes_conditionally = refuses("delete_object", **wrong)
        finally:
            self._must("delete_object", Key=name)

    # --- names and metadata ---

    def _name(self, key: str) -> str:
        check_key(key)
        return self._folder + path_of(key)

    def _key(self, name: str) -> str | None:
        return key_of_path(name.removeprefix(self._folder))

    def _is_over(self, expires_at: float | None) -> bool:
        return expires_at is not None and expires_at <= self.clock()

    def _is_live(self, seen: Seen | None) -> bool:
        return seen is not None and not self._is_over(seen.version.expires_at)

    def _look(self, name: str) -> Seen | None:
        try:
            seen = _seen(self._ask("head_object", Key=name))
        except ClientError as error:
            if _status(error) != 404:
                raise self._unavailable(error) from None
            if not self._bucket_is_there:  # a missing bucket must not look like a missing key
                self._must("head_bucket")
                self._bucket_is_there = True
            return None
        self._bucket_is_there = True
        return seen

    def _pages(self, stem: str) -> Iterator[list[str]]:
        more: dict[str, str] = {}
        while True:
            answer = self._must("list_objects_v2", Prefix=self._folder + stem, MaxKeys=PAGE, **more)
            yield [item["Key"] for item in answer.get("Contents", ())]
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    # --- the server ---

    def _at_once(self, work: Callable[[Any], R], items: list[Any]) -> Iterator[R]:
        # Threads of their own: the async twins wait in the others.
        with self._opening:
            if self._helpers is None:
                self._helpers = ThreadPoolExecutor(self.threads, thread_name_prefix="S3Driver-helper")
            helpers = self._helpers
        return helpers.map(work, items)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        """Make a request. `ClientError` if the server refuses it, `DriverUnavailable` if there is no answer."""
        call = getattr(self._client(), operation)
        return self._asked(lambda: call(Bucket=self._bucket, **arguments))

    def _asked(self, ask: Callable[[], R]) -> R:
        try:
            return ask()
        except ClientError:
            raise
        except FAILURES as error:
            raise self._unavailable(error) from error

    def _must(self, operation: str, **arguments: Any) -> Any:
        try:
            return self._ask(operation, **arguments)
        except ClientError as error:
            raise self._unavailable(error) from None

    def _client(self) -> Any:
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    self._opened = self._open()
        return self._opened

    def _open(self) -> Any:
        core = botocore.session.get_session()
        core.register_component("data_loader", _models())
        session = boto3.session.Session(profile_name=self._settings["profile"], botocore_session=core)
        endpoint = self._settings["endpoint_url"]
        config = Config(
            connect_timeout=self._timeout / 2,
            read_timeout=self._timeout / 2,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=2 * self.threads,
            # Servers other than Amazon's are often reached by an address, in front of which no bucket can stand.
            s3={"addressing_style": "path"} if endpoint else {},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=self._settings["region"] or session.region_name or "us-east-1",
            config=config,
        )
        # "Expect: 100-continue" saves nothing with small bodies, and lets racers wait for each other.
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        return client

    def _unavailable(self, error: Exception) -> DriverUnavailable:
        return DriverUnavailable(f"{self._where}: {_reason(error)}")


@functools.cache
def _models() -> Any:
    """The descriptions of the service, which take most of the time that a new client needs; read once a process."""
    return botocore.loaders.create_loader()


def _reason(error: Exception) -> str:
    """What went wrong, in words that show neither key nor secret."""
    if isinstance(error, ClientError):
        code, status = _code(error), _status(error)
        if code == "NoSuchBucket" or status == 404:
            return "the bucket does not exist"
        if status in (401, 403):
            return f"the server refuses ({code}); check credentials and permissions"
        return f"the server answers {code} ({status})"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile"
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return "no answer within the timeout"
    if isinstance(error, EndpointConnectionError):
        return "nobody answers at this endpoint"
    if isinstance(error, ResponseParserError):
        return "what answers there does not speak S3"
    if isinstance(error, (HTTPClientError, ResponseStreamingError)):
        return "the connection was lost"
    return type(error).__name__


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown error"))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _metadata(expires_at: float | None, token: str | None) -> dict[str, str]:
    expiry = {} if expires_at is None else {"expires-at": repr(expires_at)}
    return expiry if token is None else {**expiry, "token": token}


def _seen(answer: Mapping[str, Any]) -> Seen:
    metadata = answer.get("Metadata", {})
    try:
        expires_at = float(metadata["expires-at"]) if "expires-at" in metadata else None
    except ValueError:
        raise CorruptEntry("the object's expires-at is not a time; it was not written by this library") from None
    return Seen(Version(answer["ETag"], expires_at), metadata.get("token"))
