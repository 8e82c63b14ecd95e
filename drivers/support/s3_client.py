"""A client of a server that speaks S3, for one bucket: how it is opened, what its errors mean, what to know of it."""

from __future__ import annotations

import errno
import functools
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

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
    SSLError,
)
from botocore.parsers import ResponseParserError
from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url
from urllib3.exceptions import HTTPError

from session_kit.drivers.errors import ConfigError, DriverUnavailable
from session_kit.drivers.support.findings import Finding, clock_finding, network_finding
from session_kit.drivers.support.tls import system_error, tls_reason

R = TypeVar("R")

BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
# As boto3 wants it: the region becomes a part of the server's name.
REGION: Final = re.compile(r"(?!-)(?![0-9]+$)[A-Za-z0-9-]{1,63}(?<!-)")
# HTTPError: what boto3 reads of a refusal's body it does not look after. ValueError: half a date or half a number in
# headers that were cut off; Python takes an answer that ends within its headers for a whole one.
FAILURES: Final = (ClientError, BotoCoreError, ResponseParserError, HTTPError, ValueError)
CUT_OFF: Final = "the answer was cut off, or the server does not speak S3"
LENGTHS: Final = ("content-length", "transfer-encoding")
TAG: Final = re.compile(r'(?:W/)?"[^"]*"')
UNREADABLE: Final = "boto3 does not understand its configuration"
WITH_BUCKET: Final = "the endpoint ends in the name of a bucket; leave that out"
CONFIGURATION: Final = "the AWS_ variables of the environment, and at ~/.aws"
OUR_LIMITS: Final = (errno.EMFILE, errno.ENFILE)
AUTHORITY: Final = "AWS_CA_BUNDLE (in ~/.aws/config: ca_bundle)"
# A request that failed so has not reached the server.
NEVER_SENT: Final = (ConnectTimeoutError, EndpointConnectionError, NoCredentialsError, PartialCredentialsError)
# Nobody is there, or somebody who does not speak S3.
UNANSWERED: Final = (ConnectTimeoutError, ReadTimeoutError, EndpointConnectionError, ResponseParserError)


class S3Client:
    """Requests to one bucket.

    where: what error messages begin with. given: a boto3 client that is used as it is and never closed; then the
    settings mean nothing, and the driver refuses them. connections: how many requests are under way at a time.
    """

    def __init__(
        self,
        bucket: str,
        *,
        where: str,
        given: Any,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        timeout: float,
        connections: int,
    ) -> None:
        if endpoint_url is not None:
            if not _is_endpoint(endpoint_url):
                raise ConfigError(
                    f"{where}: endpoint_url must begin with http:// or https:// and name a host, as"
                    " http://localhost:9000 does; user and password, '?', '#' and spaces have no place in it"
                )
            if _ends_in(endpoint_url, bucket):
                raise ConfigError(f"{where}: endpoint_url: {WITH_BUCKET}")
        if region is not None and not REGION.fullmatch(region):
            raise ConfigError(f"{where}: {region!r} cannot be a region: it is one word like eu-central-1")
        if profile is not None and profile not in _profiles(where):
            raise ConfigError(f"{where}: there is no profile {profile!r} in the configuration of boto3")
        self.bucket = bucket
        self.where = where
        self._given = given
        self._endpoint_url, self._region, self._profile = endpoint_url, region, profile
        self._timeout = timeout
        self._connections = connections
        self._begin()

    def _begin(self) -> None:
        self._opening = threading.Lock()
        self._opened: Any = self._given

    def ask(self, operation: str, **arguments: Any) -> Any:
        """Make a request. `ClientError` if the server refuses it, `DriverUnavailable` if there is no answer."""
        call = getattr(self._client(), operation)
        answer = self.asked(lambda: call(Bucket=self.bucket, **arguments))
        if _is_cut_off(operation, answer):
            raise self._cut_off()
        return answer

    def asked(self, ask: Callable[[], R]) -> R:
        """The same for what is left to do of a request."""
        try:
            return ask()
        except ClientError:
            raise
        except FAILURES as error:
            raise self.unavailable(error) from error

    def must(self, operation: str, **arguments: Any) -> Any:
        """Make a request that no server refuses, or `DriverUnavailable`."""
        try:
            return self.ask(operation, **arguments)
        except ClientError as error:
            raise self.unavailable(error) from None

    def etag(self, answer: Mapping[str, Any]) -> str:
        """The tag of the content; `DriverUnavailable` if half of it is missing, or all."""
        etag = str(answer.get("ETag", ""))
        if not etag or (etag.removeprefix("W/").startswith('"') and not TAG.fullmatch(etag)):
            raise self._cut_off()
        return etag

    def _cut_off(self) -> DriverUnavailable:
        return DriverUnavailable(f"{self.where}: {CUT_OFF}")

    def unavailable(self, error: Exception) -> DriverUnavailable:
        """The error to raise for one of boto3's."""
        return DriverUnavailable(f"{self.where}: {_reason(error)}", unanswered=isinstance(error, UNANSWERED))

    def examine(self) -> Iterator[Finding]:
        """What an operator should know of the server."""
        url = urlsplit(str(self._client().meta.endpoint_url))
        yield network_finding(url.hostname or "", url.scheme == "https", "use https:// in endpoint_url")
        headers = self.must("head_bucket")["ResponseMetadata"]["HTTPHeaders"]
        if "date" in headers:
            # In whole seconds.
            yield clock_finding(parsedate_to_datetime(headers["date"]).timestamp() + 0.5 - time.time(), "the server's")

    def close(self) -> None:
        """Close what was opened here. It opens again by itself."""
        with self._opening:
            client, self._opened = self._opened, self._given
        if client is not None and client is not self._given:
            client.close()

    def after_fork(self) -> None:
        """Leave the parent's connections alone."""
        self._begin()

    def _client(self) -> Any:
        client = self._opened
        if client is None:
            with self._opening:
                client = self._opened
                if client is None:
                    try:
                        client = self._opened = self._open()
                    except (BotoCoreError, ValueError) as error:  # whose message may show an endpoint with a password
                        raise DriverUnavailable(
                            f"{self.where}: {UNREADABLE} ({type(error).__name__}); look at {CONFIGURATION}"
                        ) from None
        return client

    def _open(self) -> Any:
        core = botocore.session.get_session()
        core.register_component("data_loader", _models())
        session = boto3.session.Session(profile_name=self._profile, botocore_session=core)
        config = Config(
            connect_timeout=self._timeout / 2,
            read_timeout=self._timeout / 2,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=2 * self._connections,
            # Servers other than Amazon's are often reached by an address, in front of which no bucket can stand.
            s3={"addressing_style": "path"} if self._endpoint_url else {},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=self._region or session.region_name or "us-east-1",
            config=config,
        )
        if _ends_in(client.meta.endpoint_url, self.bucket):
            raise DriverUnavailable(f"{self.where}: AWS_ENDPOINT_URL, or that of ~/.aws/config: {WITH_BUCKET}")
        # "Expect: 100-continue" saves nothing with small bodies, and lets racers wait for each other.
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        return client


@functools.cache
def _models() -> Any:
    """The descriptions of the service, which take most of the time that a new client needs; read once a process."""
    return botocore.loaders.create_loader()


def _profiles(where: str) -> list[str]:
    try:
        names: list[str] = botocore.session.get_session().available_profiles
    except BotoCoreError as error:
        raise ConfigError(f"{where}: {UNREADABLE} ({type(error).__name__}); look at {CONFIGURATION}") from None
    return names


def _ends_in(endpoint_url: str, bucket: str) -> bool:
    """Whether an address ends in the bucket, as some services show it: names would begin with the bucket once more."""
    return urlsplit(endpoint_url).path.rstrip("/").endswith(f"/{bucket}")


def _is_endpoint(url: str) -> bool:
    """Whether boto3 takes this for the address of a server, and ignores nothing of it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not match, a port that is none
        return False
    if not re.match(r"https?://", url) or re.search(r"[\s?#]", url) or "@" in parts.netloc or port == 0:
        return False
    return bool(is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url))


def _reason(error: Exception) -> str:
    """What went wrong, in words that show neither key nor secret."""
    if isinstance(error, ClientError):
        code, status = code_of(error), status_of(error)
        if code == "NoSuchBucket" or status == 404:
            return "the bucket does not exist"
        if code in ("AccessDenied", "403"):
            return (
                f"the server refuses ({code}); check credentials and permissions: s3:GetObject, s3:PutObject and"
                " s3:DeleteObject on the objects, and s3:ListBucket on the bucket, without which it also refuses to"
                " say that an object is not there; or is the clock of this machine minutes off?"
            )
        if code == "RequestTimeTooSkewed":
            return f"the server refuses ({code}): the clock of this machine, or that of the server, is minutes off"
        if status in (401, 403):
            return f"the server refuses ({code}); check credentials and permissions"
        return f"the server answers {code} ({status})"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile"
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return "no answer within the timeout"
    if isinstance(error, EndpointConnectionError):
        said = system_error(error)
        if said is not None and said.errno in OUR_LIMITS:
            return os.strerror(said.errno)
        return "nobody answers at this endpoint"
    if isinstance(error, SSLError):
        said = system_error(error)
        if isinstance(said, ssl.SSLError):
            return tls_reason(said, AUTHORITY)
        if said is not None:
            return f"{os.strerror(said.errno or 0)}; is the file of {AUTHORITY} there?"
        return "the server's certificate is not for this host"  # urllib3 compares the names itself
    if isinstance(error, ResponseParserError):
        return "what answers there does not speak S3"
    if isinstance(error, ValueError):
        return CUT_OFF
    if isinstance(error, (HTTPClientError, ResponseStreamingError, HTTPError)):
        return "the connection was lost"
    return type(error).__name__


def _is_cut_off(operation: str, answer: Mapping[str, Any]) -> bool:
    """Whether what was asked for seems to be empty because the headers were cut off before they told its length."""
    if operation == "get_object":
        return not any(name in answer["ResponseMetadata"]["HTTPHeaders"] for name in LENGTHS)
    return operation == "list_objects_v2" and "IsTruncated" not in answer


def code_of(error: ClientError) -> str:
    """The server's own name for the error."""
    return str(error.response.get("Error", {}).get("Code", "unknown error"))


def status_of(error: ClientError) -> int:
    """The HTTP status; 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_repeated(error: ClientError) -> bool:
    """Whether boto3 had made the request before, with another outcome, or with none."""
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))
