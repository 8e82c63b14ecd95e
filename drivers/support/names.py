"""Keys as names of files and objects: reversible, safe in any path, and prefixes stay prefixes.

A name holds only lowercase letters, digits and `-_!$'()@,=~`: no separator, no dot, nothing that a file system that
folds case or normalises Unicode could confuse, and no part of it is one that Windows keeps for a device. It has at most
901 characters, so that a key of 512 bytes fits into an S3 object name (1,024) with room for a folder before it.
"""

from __future__ import annotations

import base64
from typing import Final

PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
HIGH: Final = "!$'()@,="
LOW: Final = "0123456789abcdefghijklmnopqrstuv"
REST: Final = "~"
PART_LENGTH: Final = 200
FOLDER_END: Final = ".d"
HEAD_BYTES: Final = 200
DEVICES: Final = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""On Windows no folder can have a file of such a name."""

_NAMES: Final = [chr(byte) if byte in PLAIN else HIGH[byte >> 5] + LOW[byte & 31] for byte in range(256)]


def name_of(key: str) -> str:
    """Return the name for `key`: its first 200 UTF-8 bytes escaped one by one, what follows packed in base 32.

    A `~` ends a name that would otherwise name a device.

    >>> name_of("sess:Ada"), name_of("../x")
    ("sess$q'1da", '$e$e$fx')
    """
    data = key.encode()
    head = "".join([_NAMES[byte] for byte in data[:HEAD_BYTES]])
    rest = data[HEAD_BYTES:]
    name = head + REST + base64.b32hexencode(rest).decode().rstrip("=").lower() if rest else head
    return name + REST if _parts(name)[-1] in DEVICES else name


def key_of(name: str) -> str | None:
    """Return the key that `name` stands for; None if `name_of` would not have written it.

    >>> key_of("sess$q'1da")
    'sess:Ada'
    """
    head, _, rest = name.removesuffix(REST).partition(REST)
    try:
        key = (_unescape(head) + base64.b32hexdecode(rest.upper() + "=" * (-len(rest) % 8))).decode()
    except ValueError:
        return None
    return key if key and name_of(key) == name else None


def parts_of(key: str) -> list[str]:
    """Return `name_of(key)` in parts that any file system takes as names: folders, which end in `.d`, and a file.

    >>> parts_of("sess:Ada")
    ["sess$q'1da"]
    """
    parts = _parts(name_of(key))
    return [*(part + FOLDER_END for part in parts[:-1]), parts[-1]]


def path_of(key: str) -> str:
    """Return the parts of the name with slashes between them."""
    return "/".join(parts_of(key))


def key_of_path(path: str) -> str | None:
    """Return the key that `path` stands for; None if `path_of` would not have written it.

    >>> key_of_path(path_of("k" * 512)) == "k" * 512
    True
    """
    *folders, last = path.split("/")
    key = key_of("".join(folder.removesuffix(FOLDER_END) for folder in folders) + last)
    return key if key is not None and path_of(key) == path else None


def stem_of(prefix: str) -> str:
    """Return what the names and paths of all keys that begin with `prefix` begin with, for a backend to list by.

    Others may begin with it too: compare the key.
    """
    return "".join([_NAMES[byte] for byte in prefix.encode()[:HEAD_BYTES]])[:PART_LENGTH]


def _parts(name: str) -> list[str]:
    return [name[start : start + PART_LENGTH] for start in range(0, len(name), PART_LENGTH)]


def _unescape(head: str) -> bytes:
    data, characters = bytearray(), iter(head)
    for character in characters:
        if (high := HIGH.find(character)) < 0:
            data += character.encode()
        else:
            data.append(high << 5 | LOW.index(next(characters, " ")))
    return bytes(data)
