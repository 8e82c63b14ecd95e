"""A folder for sessions: nobody else may look into it."""

from __future__ import annotations

import os
from pathlib import Path, PurePath, PureWindowsPath
from urllib.parse import quote, unquote

from session_kit.drivers.errors import ConfigError


def named_in(url_path: str, *, windows: bool = os.name == "nt") -> str:
    """The file or folder that the path of a URL names: on Windows `/C:/data` is `C:/data`."""
    path = unquote(url_path)
    return path[1:] if windows and PureWindowsPath(path[1:]).is_absolute() else path


def url_of(scheme: str, path: PurePath) -> str:
    """The URL that names `path`.

    >>> url_of("disk", PureWindowsPath("C:/Users/Ada")), url_of("disk", PurePath("/srv/a b"))
    ('disk:///C:/Users/Ada', 'disk:///srv/a%20b')
    """
    return f"{scheme}:///{quote(path.as_posix().lstrip('/'), safe='/:')}"


def expanded(path: str | os.PathLike[str]) -> Path:
    """The folder that is meant, with `~` and `$NAME` filled in."""
    return Path(os.path.expandvars(os.path.expanduser(path))).absolute()


def make_private(path: Path, scheme: str, ours: str) -> None:
    """Make the folder, readable by this user alone; refuse one that others can use and that is not ours to close.

    ours: the name of a file or folder by which we know that it was made for us.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{scheme}://{path}: the folder cannot be made: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{str(path)!r} cannot be the name of a folder: it holds a NUL or a lone surrogate") from None
    if path.stat().st_mode & 0o077 and os.name == "posix":
        if (path / ours).exists() or not any(path.iterdir()):
            path.chmod(0o700)
        else:
            raise ConfigError(
                f"{scheme}://{path}: the folder is open to other users and holds other files; name a folder of its own"
            )
