"""A place for sessions among the files of this machine: nobody else may look into it, and its loss is noticed."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path, PurePath, PureWindowsPath
from urllib.parse import SplitResult, quote, unquote

from session_kit.drivers.errors import ConfigError, DriverUnavailable

# Without it a planted symbolic link would be followed; not every system has it.
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})")


def named_in(url_path: str, *, windows: bool = os.name == "nt") -> str:
    """The file or folder that the path of a URL names: on Windows `/C:/data` is `C:/data`."""
    path = unquote(url_path)
    return path[1:] if windows and PureWindowsPath(path[1:]).is_absolute() else path


def path_in(url: SplitResult, example: str = "/var/lib/app") -> str:
    """The absolute path of a file or folder that a URL names; `ConfigError` if it names none.

    example: of such a path, for the message.
    """
    if url.netloc or not url.path.strip("/"):
        what = f"{url.scheme}://"
        raise ConfigError(f"{what} needs an absolute path, with three slashes in all: {what}{example}")
    return named_in(url.path)


def url_of(scheme: str, path: PurePath) -> str:
    """The URL that names `path`.

    >>> url_of("disk", PureWindowsPath("C:/Users/Ada")), url_of("disk", PurePath("/srv/a b"))
    ('disk:///C:/Users/Ada', 'disk:///srv/a%20b')
    """
    return f"{scheme}:///{quote(path.as_posix().lstrip('/'), safe='/:')}"


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path that is meant, with `~` and `$NAME` filled in. `ConfigError` if there is no such variable."""
    for variable in VARIABLE.findall(os.fspath(path)):
        if os.path.expandvars(variable) == "":  # without it the path may be another, which is there
            raise ConfigError(f"{os.fspath(path)}: the variable {variable.strip('${}')} of the environment is empty")
    at_home = os.path.expanduser(os.fspath(path))
    if at_home.startswith("~"):  # else it would be a folder of this name in the one that we are in
        raise ConfigError(f"{at_home}: there is no such home folder; write the path in full")
    found = os.path.expandvars(at_home)
    if missing := VARIABLE.search(found):
        raise ConfigError(f"{found}: the environment has no variable {missing[0]}")
    try:
        return Path(found).absolute()
    except OSError:
        raise ConfigError(f"{found}: the folder that we are in is gone; write the path in full") from None


def make_folders(path: Path) -> None:
    """Make the folder, unless it is there, and what is missing above it, for this user alone. Raises `OSError`."""
    if not path.parent.exists():  # Python's own `parents=True` opens these to others
        make_folders(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def make_private(path: Path, scheme: str, ours: str) -> None:
    """Make the folder, readable by this user alone; refuse one that others can use and that is not ours to close.

    ours: the name of a file or folder by which we know that it was made for us.
    Raises `ConfigError`.
    """
    try:
        make_folders(path)
    except OSError as error:
        raise ConfigError(f"{scheme}://{path}: the folder cannot be made: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{str(path)!r} cannot be the name of a folder: {_no_name()}") from None
    check_owner(path, scheme)
    if path.stat().st_mode & 0o077 and os.name == "posix":
        if (path / ours).exists() or not any(path.iterdir()):
            path.chmod(0o700)
        else:
            raise ConfigError(
                f"{scheme}://{path}: the folder is open to other users and holds other files; name a folder of its own"
            )


def check_owner(path: Path, scheme: str) -> None:
    """Raise `ConfigError` if the folder or file is another user's, who can read and write whatever its mode is."""
    if os.name != "posix":
        return
    owner = path.stat().st_uid
    if owner not in (os.geteuid(), 0):
        raise ConfigError(
            f"{scheme}://{path} belongs to another user (uid {owner}, this process runs as {os.geteuid()}), who can"
            " read every session there: name another, or run this as the user that it is for"
        )


def make_file(path: Path, scheme: str) -> None:
    """Make the file, if there is none, readable by this user alone; and the folders above it. Raises `ConfigError`.

    One that is there is not opened: to close it would end the locks that this process has on it.
    """
    try:
        make_folders(path.parent)
        if path.is_symlink():
            raise ConfigError(f"{scheme}://{path}: the file cannot be made: it is a link; name the file itself")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise ConfigError(f"{scheme}://{path}: the file cannot be made: {error.strerror}") from None
    except ConfigError:
        raise
    except ValueError:
        raise ConfigError(f"{str(path)!r} cannot be a file's name: {_no_name()}") from None


def _no_name() -> str:
    return f"it holds a NUL, or what has no form in {sys.getfilesystemencoding()}, the encoding of names in this locale"


def device_of(path: Path) -> int:
    """The device that the path is on, or would be."""
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


def check_mounted(path: Path, device: int, owner: object) -> None:
    """Raise `DriverUnavailable` if what is lost lay on a device that is not there any more: it is not gone for good.

    device: what `device_of` returned before the loss. owner: the driver, for the message.
    """
    if device_of(path) != device:
        raise DriverUnavailable(f"{owner!r} is gone with the file system that it was on; is its disk mounted?")
