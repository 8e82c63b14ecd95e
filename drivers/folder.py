"""A folder for sessions: nobody else may look into it."""

from __future__ import annotations

import os
from pathlib import Path

from session_kit.drivers.errors import ConfigError


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
    if path.stat().st_mode & 0o077 and os.name == "posix":
        if (path / ours).exists() or not any(path.iterdir()):
            path.chmod(0o700)
        else:
            raise ConfigError(
                f"{scheme}://{path}: the folder is open to other users and holds other files; name a folder of its own"
            )
