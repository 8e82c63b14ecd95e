"""Entries on any file system that fsspec knows: object stores, SFTP, memory, and many more."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import SplitResult, unquote

import fsspec

from session_kit.drivers.base import ANY, Capabilities, Driver, Entry, check_key, check_value
from session_kit.drivers.errors import ConfigError, CorruptEntry, DriverError, DriverUnavailable
from session_kit.drivers.registry import ESCAPE, redact
from session_kit.drivers.support.envelope import HEADER, Header, TornEntry, seal, unseal, unseal_header
from session_kit.drivers.support.folder import expanded, path_in
from session_kit.drivers.support.names import FOLDER_END, key_of, path_of
from session_kit.drivers.support.options import Parser, parser_for
from session_kit.drivers.support.twins import Blocking, pause, run
from session_kit.drivers.support.unanswered import is_unanswered

if TYPE_CHECKING:
    from typing import Self

R = TypeVar("R")

PREFIX: Final = "fsspec+"
WAITS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # seconds until a torn entry is looked at again
LISTINGS: Final = 10  # tries
# What fsspec itself looks at, and what we have decided: nothing is cached, and nothing is shared with other code.
OURS: Final = {"use_listings_cache": False, "skip_instance_cache": True}
NO_OPTIONS: Final = {*OURS, "self", "args", "kwargs", "storage_options", "asynchronous", "loop", "fo", "fs"}


LOCAL: Final = ("file", "local")
COPYING: Final = ("filecache", "simplecache")
BY_NAME: Final[dict[str, type]] = {kind.__name__: kind for kind in (bool, int, float, str)}


class FsspecDriver(Driver):
    """A folder of a file system that fsspec reaches, with one file for each entry.

    protocol: as fsspec names it, such as `"gs"`, `"az"`, `"sftp"`, `"memory"`.
    root: the folder, as that file system writes it.
    options: keyword arguments of the file system; in a URL, those that its signature names.
    clock: Unix time in seconds.

    fsspec promises neither exclusive creation nor conditional writes, so `expect=` is refused, and of two requests that
    write one session at the same moment the last wins. A value is replaced atomically where the file system does so
    (object stores do; for local files take `file://`). Elsewhere a read that meets a write waits for its end, and says
    what it found: `CorruptEntry` if the entry stays torn, `DriverUnavailable` if it goes on changing. Where a file
    system calls an outage "not found", so does this driver.

    In a URL: `gs://bucket/folder?project=shop`, `sftp://user:password@host/srv/sessions`, `fsspec+memory://name`.
    """

    def __init__(
        self,
        protocol: str,
        root: str,
        options: Mapping[str, object] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if protocol in COPYING and not (options or {}).get("check_files"):
            remedy = "say check_files=yes" if protocol == "filecache" else "name the file system itself"
            raise ConfigError(f"{protocol}:// goes on showing what it has copied, also after a logout; {remedy}")
        self.capabilities = Capabilities(shared=protocol != "memory")
        self._class = file_system_class(protocol)
        self._root = root.rstrip("/")
        self._where = f"{protocol}://{self._root.lstrip('/')}"
        self._options = {**(options or {}), **OURS}
        self._reset()
        super().__init__(clock=clock)

    def _reset(self) -> None:
        self._opening = threading.Lock()
        self._blocking: Any = None
        self._native: dict[asyncio.AbstractEventLoop, _Native] = {}

    @classmethod
    def url_options(cls, url: SplitResult) -> Mapping[str, Parser]:
        """What the constructor of the file system names, by its annotation, else by the type of its default."""
        found: dict[str, Parser] = {}
        for ancestor in file_system_class(url.scheme.removeprefix(PREFIX)).__mro__:
            for parameter in inspect.signature(ancestor.__init__).parameters.values():
                if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in NO_OPTIONS:
                    continue
                parser = _parser_of(parameter)
                if parser is not None:
                    found.setdefault(parameter.name, parser)
        return found

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        protocol = url.scheme.removeprefix(PREFIX)
        clock = options.pop("clock", time.time)
        plain = f"{protocol}://{url.netloc}{url.path}"  # `geturl` drops the slashes where there is no host
        if not (url.netloc or url.path.strip("/")):
            raise ConfigError(f"{redact(url)}: name a folder or bucket, like {url.scheme}://name")
        if protocol in LOCAL:
            plain = f"{protocol}://{expanded(path_in(url)).as_posix()}"
        file_system = file_system_class(protocol)
        # Host, user and password, for the file systems that have such.
        try:
            own: dict[str, Any] = file_system._get_kwargs_from_urls(plain)
        except ValueError:  # whose message shows the password
            raise ConfigError(f"{redact(url)}: host and port cannot be told apart; {ESCAPE}") from None
        own |= {name: unquote(own[name]) for name in ("username", "user", "password") if isinstance(own.get(name), str)}
        driver = cls(protocol, file_system._strip_protocol(plain), {**own, **options}, clock=clock)
        driver._where = redact(url)
        return driver

    def __repr__(self) -> str:
        return f"FsspecDriver({self._where})"

    # --- the contract ---

    def read(self, key: str) -> Entry | None:
        return run(self._read(self._io, key))

    async def aread(self, key: str) -> Entry | None:
        return await self._read(self._aio, key) if self._class.async_impl else await super().aread(key)

    async def aget(self, key: str) -> bytes | None:
        entry = await self.aread(key)
        return None if entry is None else entry.value

    async def ahas(self, key: str) -> bool:
        return await self.aread(key) is not None

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        return run(self._set(self._io, key, value, ttl, expect))

    async def aset(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        if self._class.async_impl:
            return await self._set(self._aio, key, value, ttl, expect)
        return await super().aset(key, value, ttl=ttl, expect=expect)

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        return run(self._delete(self._io, key, expect))

    async def adelete(self, key: str, *, expect: object = ANY) -> bool:
        if self._class.async_impl:
            return await self._delete(self._aio, key, expect)
        return await super().adelete(key, expect=expect)

    def keys(self, prefix: str = "") -> Iterator[str]:
        for path, key in self._files(self._root, ""):
            if not key.startswith(prefix):
                continue
            header = self._header_of_ours(path)
            if header is not None and not self.is_over(header.expires_at):
                yield key

    def prune(self) -> int:
        """Drop what has expired; each entry is looked at."""
        count = 0
        for path, _ in self._files(self._root, ""):
            header = self._header_of_ours(path)
            if header is not None and self.is_over(header.expires_at):
                with self._translated("deleted"), contextlib.suppress(FileNotFoundError):
                    run(self._io().rm_file(path))
                    count += 1
        return count

    def after_fork(self) -> None:
        super().after_fork()
        self._reset()

    # --- written once for blocking and async code: `io` has the methods of the file system as coroutines ---

    async def _read(self, io: Callable[[], Any], key: str) -> Entry | None:
        path = self._path(key)
        entry = await self._load(io(), path, unseal)
        return None if entry is None or self.is_over(entry.expires_at) else entry

    async def _set(self, io: Callable[[], Any], key: str, value: bytes, ttl: float | None, expect: object) -> object:
        path = self._path(key)
        check_value(value)
        data, version = seal(value, self.expires_at(ttl))
        if expect is not ANY:
            raise self.unsupported("conditional writes")
        with self._translated("written"):
            try:
                await io().pipe_file(path, data)
            except FileNotFoundError:
                await io().makedirs(path.rpartition("/")[0], exist_ok=True)
                await io().pipe_file(path, data)
        return version

    async def _delete(self, io: Callable[[], Any], key: str, expect: object) -> bool:
        path = self._path(key)
        if expect is not ANY:
            raise self.unsupported("conditional deletes")
        try:
            header = await self._header(io(), path)
        except CorruptEntry:  # what cannot be read can still be deleted
            live = True
        else:
            if header is None:
                return False
            live = not self.is_over(header.expires_at)
        with self._translated("deleted"):
            try:
                await io().rm_file(path)
            except FileNotFoundError:
                return False
        return live

    async def _header(self, io: Any, path: str) -> Header | None:
        return await self._load(io, path, unseal_header, start=0, end=HEADER.size)

    def _header_of_ours(self, path: str) -> Header | None:
        """The header of a file; None if it is not there, or not one of ours."""
        with contextlib.suppress(CorruptEntry):
            return run(self._header(self._io(), path))
        return None

    async def _load(self, io: Any, path: str, unseal: Callable[[bytes], R], **part: int) -> R | None:
        """Read what `unseal` takes; again, for a while, if it is torn: few file systems replace a file at once."""
        last: bytes | None = None
        changes = False
        for wait in (*WAITS, None):
            with self._translated("read"):
                try:
                    data: bytes = await io.cat_file(path, **part)
                except FileNotFoundError:
                    return None
            changes = changes or (last is not None and data != last)
            try:
                return unseal(data)
            except TornEntry:
                if wait is None and not changes:
                    raise
                last = data
            if wait is not None:
                await io.pause(wait)
        reason = "the entry is torn, since others write it all the time and this file system replaces no file at once"
        raise DriverUnavailable(f"{self!r} cannot be read: {reason}")

    # --- the file system ---

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._root}/{path_of(key)}"

    def _files(self, folder: str, name: str) -> Iterator[tuple[str, str]]:
        """Each file of ours with its key."""
        for item in self._listed(folder):
            last = item["name"].rstrip("/").rpartition("/")[2]
            if item["type"] == "directory" and last.endswith(FOLDER_END):
                yield from self._files(item["name"], name + last.removesuffix(FOLDER_END))
            elif item["type"] == "file" and (key := key_of(name + last)) is not None:
                yield item["name"], key

    def _listed(self, folder: str) -> list[Any]:
        """What is in a folder; asked again where fsspec's memory stumbles over what other threads delete meanwhile."""
        for tries_left in reversed(range(LISTINGS)):
            try:
                with self._translated("listed"):
                    found: list[Any] = run(self._io().ls(folder, detail=True))
                    return found
            except FileNotFoundError:
                break
            except DriverUnavailable as error:
                if not tries_left or not isinstance(error.__cause__, (KeyError, RuntimeError)):
                    raise
        return []

    def _io(self) -> Any:
        with self._opening:
            if self._blocking is None:
                with self._translated("opened"):
                    self._blocking = Blocking(self._class(**self._options))
            return self._blocking

    def _aio(self) -> Any:
        loop = asyncio.get_running_loop()
        io = self._native.get(loop)
        if io is None:
            # A file system holds its loop, so that neither would go by itself.
            for ended in [each for each in list(self._native) if each.is_closed()]:
                self._native.pop(ended, None)
            with self._translated("opened"):
                io = self._native[loop] = _Native(self._class(asynchronous=True, loop=loop, **self._options))
        return io

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """File systems raise whatever they like: what is not "not found" is an outage."""
        try:
            yield
        except (DriverError, FileNotFoundError):
            raise
        except NotImplementedError:
            raise DriverUnavailable(f"{self!r} cannot be {what}: the file system does not offer it") from None
        except Exception as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise DriverUnavailable(f"{self!r} cannot be {what}: {reason}", unanswered=is_unanswered(error)) from error


class _Native:
    """The coroutines of an asynchronous file system, under the names of the blocking methods."""

    def __init__(self, file_system: Any) -> None:
        self._file_system = file_system
        self.pause = pause

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file_system, f"_{name}")


def _parser_of(parameter: inspect.Parameter) -> Parser | None:
    """What reads the text of an option; None if text cannot give it."""
    kind, default = parameter.annotation, parameter.default
    if isinstance(kind, str):
        kind = BY_NAME.get(kind.removesuffix(" | None"))
    if kind in (None, parameter.empty):
        kind = str if default in (None, parameter.empty) else type(default)
    return parser_for(kind)


def file_system_class(protocol: str) -> Any:
    """Return fsspec's class for `protocol`; `ConfigError` if there is none, or its package is missing."""
    try:
        if not protocol:  # which is the local one to fsspec
            raise ValueError
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise ConfigError(f"{protocol}:// needs another package, says fsspec: {error}") from None
    except ValueError:
        raise ConfigError(f"fsspec knows no protocol {protocol}://") from None
