"""Entries as objects in a bucket of S3, or of a server that speaks S3."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import SplitResult, unquote

from botocore.exceptions import ClientError

from session_kit.drivers.base import (
    ABSENT,
    ANY,
    CHANGED,
    Capabilities,
    Driver,
    Entry,
    check_key,
    check_ttl,
    check_value,
)
from session_kit.drivers.errors import ConfigError, Conflict
from session_kit.drivers.support.checks import check_client_alone, check_connections
from session_kit.drivers.support.findings import Finding
from session_kit.drivers.support.names import key_of_path, path_of, stem_of
from session_kit.drivers.support.options import Duration
from session_kit.drivers.support.s3_client import BUCKET, S3Client, code_of
from session_kit.drivers.support.s3_objects import S3Objects, Version
from session_kit.drivers.support.threads import Threads

if TYPE_CHECKING:
    from typing import Self

R = TypeVar("R")

# An object name has at most 1,024 bytes, the path of a key 913.
LONGEST_FOLDER: Final = 110
# The most that one request lists or deletes.
PAGE = 1000


class S3Driver(Driver):
    """A bucket, or a folder in one.

    bucket: its name; it has to exist. folder: a path in it, of at most 110 bytes. Default none.
    client: a boto3 client that you made, in place of the next four settings; it is never closed here.
    endpoint_url: of a server other than Amazon's. region: default what boto3 finds, else `us-east-1`.
    profile: of `~/.aws/config`. Credentials come from boto3's own chain, never from the URL.
    timeout: about how long a call waits for the server at most, in seconds. Default 10.
    max_connections: requests under way at a time, and threads behind the async twins. Default 32.
    clock: Unix time in seconds.
    Raises `ConfigError` for settings that cannot work; the server is asked at first use.

    Values are stored as they are, with the expiry in the object's metadata (`x-amz-meta-expires-at`, Unix time).
    Servers do not look at it: `prune`, or a lifecycle rule for the bucket, removes what has expired. Conditional writes
    are those of S3 (`If-Match`, `If-None-Match`); whether a server honours them is tried out at the first such write or
    by `prepare`, with an object of no key that is deleted again. A version is the ETag: content that was written back
    is the same version. Needs `s3:GetObject`, `s3:PutObject` and `s3:DeleteObject`, and `s3:ListBucket` on the bucket.

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
        if not BUCKET.fullmatch(bucket):  # not shown: it may be key and secret
            raise ConfigError("what stands behind s3:// cannot be the name of a bucket")
        folder = folder.strip("/")
        self._where = f"s3://{bucket}/{folder}"
        if len(folder.encode()) > LONGEST_FOLDER or any(
            part in ("", ".", "..") for part in folder.split("/") if folder
        ):
            raise ConfigError(
                f"{self._where}: a folder has at most {LONGEST_FOLDER} bytes, and no part that is empty, '.' or '..'"
            )
        check_connections(max_connections, self._where)
        if client is not None:
            options = {"endpoint_url": endpoint_url, "region": region, "profile": profile, "timeout": timeout}
            check_client_alone(S3Driver, options)
        self.threads = max_connections
        self.capabilities = Capabilities(create=True, swap=True, shared=True)
        self._folder = f"{folder}/" if folder else ""
        self._client = S3Client(
            bucket,
            where=self._where,
            given=client,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            timeout=timeout,
            connections=max_connections,
        )
        self._objects = S3Objects(self._client)
        self._prepared = False
        self._deletes_conditionally = False
        self._preparing = threading.Lock()
        # Threads of their own: the async twins wait in the others.
        self._helpers = Threads(max_connections, "S3Driver-helper")
        super().__init__(clock=clock)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        if "@" in url.netloc or ":" in url.netloc:  # a password with a slash in it ends there
            raise ConfigError(
                f"{url.scheme}://...: leave out user and password; credentials come from boto3's own chain"
            )
        return cls(unquote(url.netloc), unquote(url.path), **options)

    def __repr__(self) -> str:
        return f"S3Driver({self._where})"

    # --- the contract ---

    def read(self, key: str) -> Entry | None:
        name = self._name(key)
        try:
            answer = self._client.ask("get_object", Key=name)
            value: bytes = self._client.asked(answer["Body"].read)
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise self._client.unavailable(error) from None
        version = self._objects.seen(answer)
        return Entry(value, version, version.expires_at) if self._is_live(version) else None

    def has(self, key: str) -> bool:
        return self._is_live(self._objects.look(self._name(key)))

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        name = self._name(key)
        check_value(value)
        expires_at = self.expires_at(ttl)
        if expect is ANY:
            return self._objects.put(name, value, expires_at)
        if expect is not ABSENT:
            return self._objects.put(name, value, expires_at, self._expected(expect))
        self.prepare()
        if not self.capabilities.create:
            raise self.unsupported("conditional writes: the server ignores If-None-Match")
        try:
            return self._objects.put(name, value, expires_at, IfNoneMatch="*")
        except Conflict:
            seen = self._objects.look(name)
            if seen is None or self._is_live(seen):
                raise
            # What has expired is not there, but the server does not know.
            return self._objects.put(name, value, expires_at, IfMatch=seen.etag)

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        name = self._name(key)
        if expect not in (ANY, ABSENT):
            self._delete_version(name, self._expected(expect))
            return True
        seen = self._objects.look(name)
        if expect is ABSENT and self._is_live(seen):
            raise Conflict(CHANGED)
        if seen is not None and expect is ANY:
            self._client.must("delete_object", Key=name)
        return self._is_live(seen)

    def touch(self, key: str, ttl: float | None) -> bool:
        """Give the object new metadata; the server copies it onto itself."""
        name = self._name(key)
        check_ttl(ttl)
        seen = self._objects.look(name)
        if seen is None or not self._is_live(seen):
            return False
        # If somebody wrote it meanwhile, with a fresh ttl, or deleted it, that stands.
        return self._objects.keep(name, seen, self.expires_at(ttl)) or self.has(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the live keys; a listing does not tell the expiry, so each object is asked for it, many at a time."""
        for names in self._objects.pages(self._folder + stem_of(prefix), PAGE):
            found = [(key, name) for name in names if (key := self._key(name)) is not None and key.startswith(prefix)]
            for (key, _), seen in zip(
                found, self._at_once(self._objects.look, [name for _, name in found]), strict=True
            ):
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
        seen = list(self._at_once(self._objects.look, names))
        there = [name for name, one in zip(names, seen, strict=True) if one is not None]
        self._objects.remove_all(there, PAGE)
        return sum(map(self._is_live, seen))

    def prune(self) -> int:
        """Delete what has expired; each object is asked for its expiry."""

        def prune(name: str) -> int:
            seen = self._objects.look(name)
            if seen is None or self._is_live(seen):
                return 0
            with contextlib.suppress(Conflict):
                self._remove(name, seen)
                return 1
            return 0

        pages = self._objects.pages(self._folder, PAGE)
        return sum(sum(self._at_once(prune, [name for name in names if self._key(name)])) for names in pages)

    def prepare(self) -> None:
        """Find out which conditions the server honours, and whether the permissions do.

        Raises `DriverUnavailable`, with the name of the permission that is missing.
        """
        if self._prepared:
            return
        with self._preparing:
            if not self._prepared:
                self._probe()
                self._prepared = True

    def examine(self) -> Iterator[Finding]:
        return self._client.examine()

    def close(self) -> None:
        super().close()
        self._helpers.close()
        self._client.close()

    def after_fork(self) -> None:
        super().after_fork()
        self._preparing = threading.Lock()
        self._helpers.after_fork()
        self._client.after_fork()

    # --- conditional writes ---

    def _expected(self, expect: object) -> Version:
        """The version that is expected, if it can still be there."""
        self.prepare()
        if not self.capabilities.swap:
            raise self.unsupported("conditional writes: the server ignores If-Match")
        if not isinstance(expect, Version) or self.is_over(expect.expires_at):
            raise Conflict(CHANGED)
        return expect

    def _delete_version(self, name: str, version: Version) -> None:
        seen = self._objects.look(name)
        if seen is None or seen.etag != version.etag or not self._is_live(seen):
            raise Conflict(CHANGED)
        self._remove(name, version)

    def _remove(self, name: str, version: Version) -> None:
        """Delete the object if it still has this version, else `Conflict`."""
        self.prepare()
        if self._deletes_conditionally:
            self._objects.remove(name, version)
        elif self.capabilities.swap:
            # An object that has expired is as good as none, and it can be put under a condition.
            self._objects.put(name, b"", 0.0, IfMatch=version.etag)
        else:
            self._client.must("delete_object", Key=name)

    def _probe(self) -> None:
        honours = self._objects.probe(f"{self._folder}.probe-{secrets.token_hex(8)}")
        if honours is None:  # it can be read, at most
            self.capabilities = Capabilities(shared=True)
        else:
            self.capabilities = Capabilities(create=honours.create, swap=honours.swap, shared=True)
            self._deletes_conditionally = honours.delete

    # --- names and metadata ---

    def _name(self, key: str) -> str:
        check_key(key)
        return self._folder + path_of(key)

    def _key(self, name: str) -> str | None:
        return key_of_path(name.removeprefix(self._folder))

    def _is_live(self, seen: Version | None) -> bool:
        return seen is not None and not self.is_over(seen.expires_at)

    def _at_once(self, work: Callable[[Any], R], items: list[Any]) -> Iterator[R]:
        return self._helpers.pool().map(work, items)
