"""Records that nobody reads or changes without a key."""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Raw

from session_kit.codec.base import Codec, Wrapper
from session_kit.codec.foreign import ENCRYPTED
from session_kit.codec.names import make_codec
from session_kit.drivers.errors import how_to_install
from session_kit.errors import ConfigError, CorruptEntry, OtherCodec

Key = bytes | str

KEY_SIZE = 32
ID_SIZE = 8
NONCE_SIZE = 12
HEAD_SIZE = len(ENCRYPTED) + ID_SIZE

MANY = 8
"""Thirty-two random bytes that are of fewer kinds do not happen."""

_KEY = "an encryption key is 32 random bytes, as bytes, base64 or hex; `session-kit secret` prints one"


class Encrypted(Wrapper):
    """Encrypts each record with AES-256-GCM, bound to the key that it is stored under; needs the extra `crypto`.

    keys: one, or a list, *newest first*: the first encrypts, all decrypt. A key is 32 random bytes, as bytes or as
        base64 or hex text; `session-kit secret` prints one. It is none of the secrets that sign cookies.
    inner: what encodes the values, by name or a `Codec`, compression included. Default `"json"`.
    accept_plain: read records that are not encrypted too, and encrypt them when they are written next: while a store
        moves to encryption. Default False, because who can write to the store could put in a session of their own.
    write_plain: write as if there were no encryption, and read both: as long as there are workers without the key. It
        has `accept_plain` in it. Default False.

    `"json+encrypt:NAME"`, also in a URL, takes the keys from the environment variable `NAME`, separated by commas.

    A record that was changed, or moved to another key or prefix of the store, is not decrypted: `CorruptEntry`. One
    whose key is not in the list is left alone: `OtherCodec`. A key may go from the list once the store's ttl has
    passed since another came first, because a session that is used is written again every `touch_after` seconds. It is
    good for 2^32 writes (NIST SP 800-38D, section 8.3).

    Not hidden: how long a record is, when it was written, and which session it is of, as far as the store's keys tell.
    An older record of the same session, put back by somebody who can write to the store, is read.

    Raises `ConfigError` for keys that cannot be, without showing them.

    >>> codec = Encrypted("vhX1ZkDyV9mV4Uq8b2Zb0k5WJ7n3xH6cT0rYpLs2aQE")
    >>> record = codec.pack({"user": codec.dump("ada", "user")}, "sess:1")
    >>> {name: codec.load(raw, str) for name, raw in codec.unpack(record, "sess:1").items()}
    {'user': 'ada'}
    """

    def __init__(
        self,
        keys: Key | Sequence[Key],
        inner: Codec | str = "json",
        *,
        accept_plain: bool = False,
        write_plain: bool = False,
    ) -> None:
        codec = make_codec(inner)
        if isinstance(codec, Encrypted):
            raise ConfigError("codec: encryption comes once; give all keys to one, newest first")
        for name, value in {"accept_plain": accept_plain, "write_plain": write_plain}.items():
            if not isinstance(value, bool):
                raise ConfigError(f"codec: {name} must be True or False, not {type(value).__name__}")
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError:
            raise ConfigError(
                f"codec: encryption needs the package cryptography, which is not installed: {how_to_install('crypto')}"
            ) from None
        super().__init__(codec)
        self.accept_plain = accept_plain or write_plain
        self.write_plain = write_plain
        self._refusals = (InvalidTag, ValueError)
        self._ciphers: dict[bytes, Any] = {}
        for key in _read_keys(keys):
            head = ENCRYPTED + sha256(b"session_kit: the name of a key\0" + key).digest()[:ID_SIZE]
            if head in self._ciphers:
                raise ConfigError("codec: an encryption key is given twice")
            self._ciphers[head] = AESGCM(key)
        self._head, self._newest = next(iter(self._ciphers.items()))

    def __repr__(self) -> str:
        return f"Encrypted(<{len(self._ciphers)} keys>, {self.inner!r})"

    def pack(self, fields: Mapping[str, Raw], key: str = "") -> bytes:
        if self.write_plain:
            return self._pack(fields, key)
        head, nonce = self._head, os.urandom(NONCE_SIZE)
        sealed: bytes = self._newest.encrypt(nonce, self._pack(fields, key), head + key.encode())
        return head + nonce + sealed

    def unpack(self, data: bytes, key: str = "") -> dict[str, Raw]:
        head = data[:HEAD_SIZE]
        cipher = self._ciphers.get(head)
        if cipher is not None:
            nonce, sealed = data[HEAD_SIZE : HEAD_SIZE + NONCE_SIZE], data[HEAD_SIZE + NONCE_SIZE :]
            try:
                opened: bytes = cipher.decrypt(nonce, sealed, head + key.encode())
            except self._refusals:
                raise CorruptEntry("an encrypted record was changed, or moved from another key of the store") from None
            return self._unpack(opened, key)
        if head.startswith(ENCRYPTED):
            raise OtherCodec(
                "the record is encrypted with a key that is not in the list; put a retired key back at its end"
            )
        if self.accept_plain:
            return self._unpack(data, key)
        raise OtherCodec(
            "the record is not encrypted; Encrypted(keys, accept_plain=True) reads such records while a store moves"
        )


def keys_in_environment(name: str) -> list[str]:
    """The keys in an environment variable, separated by commas or white space. `ConfigError` if there are none."""
    keys = re.split(r"[\s,]+", os.environ.get(name, "").strip(" \t\r\n,"))
    if not keys[0]:
        # Not which: somebody may have written the key itself there.
        raise ConfigError("codec: the environment variable that is named after `encrypt:` holds no keys")
    return keys


def _read_keys(keys: object) -> list[bytes]:
    if isinstance(keys, (bytes, str)):
        keys = [keys]
    if not isinstance(keys, Sequence) or not keys:
        raise ConfigError(f"codec: keys must be a key or a list of them; {_KEY}")
    return [_read_key(key, f"key {number} of {len(keys)}") for number, key in enumerate(keys, 1)]


def _read_key(key: object, which: str) -> bytes:
    if isinstance(key, str):
        text, key = key.strip(), b""
        try:
            if len(text) == 2 * KEY_SIZE:
                key = bytes.fromhex(text)
            elif re.fullmatch(r"[\w+/-]+=*", text, re.ASCII):
                key = urlsafe_b64decode(text.rstrip("=").translate({43: "-", 47: "_"}) + "==")
        except ValueError:
            pass
        if len(key) != KEY_SIZE:
            raise ConfigError(f"codec: {which} is no text of 32 bytes; {_KEY}")
    if not isinstance(key, bytes):
        raise ConfigError(f"codec: {which} is a {type(key).__name__}; {_KEY}")
    if len(key) != KEY_SIZE:
        raise ConfigError(f"codec: {which} has {len(key)} bytes; {_KEY}")
    if len(set(key)) < MANY:
        raise ConfigError(f"codec: {which} is not random; {_KEY}")
    return key
