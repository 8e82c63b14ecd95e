"""Objects that expire and are written under conditions, made of those of S3."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from botocore.exceptions import ClientError

from session_kit.drivers.base import CHANGED
from session_kit.drivers.errors import Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.support.s3_client import NEVER_SENT, S3Client, code_of, status_of

# How often a write is repeated that the server refused because another was under way (409).
MAX_ATTEMPTS: Final = 8
REFUSED: Final = (404, 409, 412)
"""How a server says that a condition does not hold."""


class Version(NamedTuple):
    """The version of an object: the server's tag of its content, and when it expires."""

    etag: str
    expires_at: float | None


class Seen(NamedTuple):
    """What a server tells of an object without its content. token: says which write made it."""

    version: Version
    token: str | None


class Honours(NamedTuple):
    """Which conditions a server looks at: of a write that creates, of one that replaces, of a deletion."""

    create: bool
    swap: bool
    delete: bool


class S3Objects:
    """Objects by name."""

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._bucket_is_there = False

    def seen(self, answer: Mapping[str, Any]) -> Seen:
        """What the answer to a GET or HEAD tells of its object."""
        etag, metadata = self._client.etag(answer), answer.get("Metadata", {})
        try:
            expires_at = float(metadata["expires-at"]) if "expires-at" in metadata else None
        except ValueError:
            raise CorruptEntry("the object's expires-at is not a time; it was not written by this library") from None
        return Seen(Version(etag, expires_at), metadata.get("token"))

    def look(self, name: str) -> Seen | None:
        """What the server tells of an object; None if there is none."""
        try:
            seen = self.seen(self._client.ask("head_object", Key=name))
        except ClientError as error:
            if status_of(error) != 404:
                raise self._client.unavailable(error) from None
            if not self._bucket_is_there:  # a missing bucket must not look like a missing key
                self._client.must("head_bucket")
                self._bucket_is_there = True
            return None
        self._bucket_is_there = True
        return seen

    def put(self, name: str, value: bytes, expires_at: float | None, **condition: str) -> Version:
        """Write an object; `Conflict` if the condition (`IfMatch=`, `IfNoneMatch=`) does not hold."""
        token = secrets.token_hex(8)
        # SeaweedFS keeps an empty object of a request that is cut off before its body, unless it knows the sum of that.
        md5 = b64encode(hashlib.md5(value, usedforsecurity=False).digest()).decode()
        request = {"Key": name, "Body": value, "ContentMD5": md5, "Metadata": _metadata(expires_at, token), **condition}
        for attempt in range(MAX_ATTEMPTS):
            try:
                answer = self._client.ask("put_object", **request)
                return Version(self._client.etag(answer), expires_at)
            except ClientError as error:
                if status_of(error) == 409 and attempt < MAX_ATTEMPTS - 1:
                    time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311  # no secret
                    continue
                refused = status_of(error) == 412 or (bool(condition) and code_of(error) in ("NoSuchKey", "404"))
                failure: Exception = Conflict(CHANGED) if refused else self._client.unavailable(error)
                if not refused:
                    raise failure from None
            except DriverUnavailable as error:
                if isinstance(error.__cause__, NEVER_SENT):
                    raise
                failure = error
            # Did it land? A request whose answer was lost may have, and its repetition is then refused.
            seen = self.look(name)
            if seen is not None and seen.token == token:
                return seen.version
            raise failure
        raise DriverUnavailable(f"{self._client.where}: others write the same key all the time; try again")

    def remove(self, name: str, version: Version) -> None:
        """Delete an object of this version, on a server that honours the condition; else `Conflict`."""
        try:
            self._client.ask("delete_object", Key=name, IfMatch=version.etag)
        except ClientError as error:
            if status_of(error) not in REFUSED:
                raise self._client.unavailable(error) from None
            # A request whose answer was lost is repeated by boto3, and finds that it has been done.
            repeated = error.response["ResponseMetadata"].get("RetryAttempts")
            if not repeated or self.look(name) is not None:
                raise Conflict(CHANGED) from None

    def remove_all(self, names: list[str], size: int) -> None:
        """Delete objects, so many with one request."""
        for start in range(0, len(names), size):
            objects = [{"Key": name} for name in names[start : start + size]]
            answer = self._client.must("delete_objects", Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                raise DriverUnavailable(
                    f"{self._client.where}: {len(errors)} objects were not deleted: {errors[0].get('Code')}"
                )

    def keep(self, name: str, seen: Seen, expires_at: float | None) -> bool:
        """Give an object another expiry, by letting the server copy it onto itself; False if it has changed."""
        try:
            self._client.ask(
                "copy_object",
                Key=name,
                CopySource={"Bucket": self._client.bucket, "Key": name},
                CopySourceIfMatch=seen.version.etag,
                MetadataDirective="REPLACE",
                Metadata=_metadata(expires_at, seen.token),
            )
        except ClientError as error:
            if status_of(error) not in REFUSED:
                raise self._client.unavailable(error) from None
            return False
        return True

    def pages(self, stem: str, size: int) -> Iterator[list[str]]:
        """The names that begin with `stem`, so many at a time."""
        more: dict[str, str] = {}
        while True:
            answer = self._client.must("list_objects_v2", Prefix=stem, MaxKeys=size, **more)
            yield [item["Key"] for item in answer.get("Contents", ())]
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def probe(self, name: str) -> Honours | None:
        """Find out what the server honours, with an object of this name; None if nothing may be written there.

        Raises `DriverUnavailable` if a permission is missing without which what is gone looks like an outage.
        """
        wrong = {"IfMatch": '"00000000000000000000000000000000"'}

        def refuses(operation: str, **arguments: Any) -> bool:
            try:
                self._client.ask(operation, Key=name, **arguments)
            except ClientError as error:
                if status_of(error) in (412, 409):
                    return True
                if status_of(error) in (400, 501):  # it knows of no conditions, and says so
                    return False
                raise self._client.unavailable(error) from None
            return False

        try:
            self._client.ask("put_object", Key=name, Body=b"probe")
        except ClientError as error:
            if status_of(error) != 403:
                raise self._client.unavailable(error) from None
            return None
        try:
            honours = Honours(
                create=refuses("put_object", Body=b"other", IfNoneMatch="*"),
                swap=refuses("put_object", Body=b"other", **wrong),
                delete=refuses("delete_object", **wrong),
            )
        finally:
            self._client.must("delete_object", Key=name)
        try:
            self._client.ask("head_object", Key=name)
        except ClientError as error:
            if status_of(error) == 403:
                raise DriverUnavailable(
                    f"{self._client.where}: the permission s3:ListBucket is missing; without it the server refuses"
                    " (403) to say that an object is not there, and each session that has ended would look like an"
                    " outage. Grant it on the bucket itself"
                ) from None
            if status_of(error) != 404:
                raise self._client.unavailable(error) from None
        return honours


def _metadata(expires_at: float | None, token: str | None) -> dict[str, str]:
    """What stands with an object."""
    expiry = {} if expires_at is None else {"expires-at": repr(expires_at)}
    return expiry if token is None else {**expiry, "token": token}
