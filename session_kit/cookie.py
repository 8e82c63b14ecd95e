"""The cookie: its signed value, the header that sets it, and finding it among the cookies of a request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from hmac import compare_digest
from typing import Any, Literal

import itsdangerous

from session_kit.errors import ConfigError
from session_kit.record import write_bits

MIN_SECRET_BYTES = 32
PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "your-secret",
    "your_secret",
    "insecure",
    "example",
)
HOW_TO_MAKE_ONE = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'

# Browsers cap the lifetime of a cookie (RFC 6265bis, section 5.5).
MAX_AGE_LIMIT = 400 * 86400

PREFIXES = ("__host-", "__secure-", "__http-")
"""Names that browsers keep for cookies with certain attributes."""
MAX_NAME = 1024
"""Letters. Browsers drop a cookie whose name and value have more than 4096 together (RFC 6265bis, section 5.6)."""

MAX_VALUES = 8
"""So many cookies of one name are looked at; each may cost a call of the store."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ATTRIBUTE_VALUE = re.compile(r"[\x20-\x3A\x3C-\x7E]*")
_SPACED = re.compile(rb"(?<![ \t])[ \t]++=")  # looks at each blank of a run once
_NAME = re.compile(r"[!#-+\--:<-\[\]-}]{16,256}")

CookieHeaders = Iterable[tuple[bytes, bytes]]
"""The headers of a request as ASGI has them: pairs of name, in small letters, and value."""

SameSite = Literal["lax", "strict", "none"]
Priority = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """How the cookie is set. The defaults are the safe ones of the OWASP Session Management Cheat Sheet.

    httponly: scripts cannot read it. Default True.
    secure: sent over https only (browsers count http://localhost as safe). Default True.
    samesite: `"lax"` (default), `"strict"`, or `"none"`, which needs `secure`.
    path: sent for this path and below. Default `"/"`.
    domain: sent to this domain and its subdomains; None (default) keeps it to the host that set it.
    persistent: kept when the browser is closed, for as long as the session lives. False makes it end with the browser.
    partitioned: a jar of its own for each top-level site (CHIPS); needs `secure`. Default False.
    priority: `"low"`, `"medium"`, `"high"` or None, which cookies Chromium drops last.

    Combinations that a browser would drop raise `ConfigError` when the middleware is made.

    >>> CookieOptions(samesite="none", secure=False)
    Traceback (most recent call last):
    session_kit.drivers.errors.ConfigError: cookie: samesite='none' needs secure=True, or browsers drop it
    """

    httponly: bool = True
    secure: bool = True
    samesite: SameSite = "lax"
    path: str = "/"
    domain: str | None = None
    persistent: bool = True
    partitioned: bool = False
    priority: Priority | None = None

    def __post_init__(self) -> None:
        if self.samesite not in ("lax", "strict", "none"):
            raise ConfigError(f"cookie: samesite must be 'lax', 'strict' or 'none', not {self.samesite!r}")
        if self.samesite == "none" and not self.secure:
            raise ConfigError("cookie: samesite='none' needs secure=True, or browsers drop it")
        if self.partitioned and not self.secure:
            raise ConfigError("cookie: partitioned=True needs secure=True, or browsers drop it")
        if self.priority not in (None, "low", "medium", "high"):
            raise ConfigError(f"cookie: priority must be 'low', 'medium', 'high' or None, not {self.priority!r}")
        if not self.path.startswith("/") or not _ATTRIBUTE_VALUE.fullmatch(self.path):
            raise ConfigError(f"cookie: path must begin with '/' and hold no ';', not {self.path!r}")
        if self.domain is not None and not re.fullmatch(r"\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", self.domain):
            raise ConfigError(f"cookie: domain must be a host name, not {self.domain!r}")


def fill_options(given: CookieOptions, settings: CookieOptions) -> CookieOptions:
    """The options that an application has given; where one is left at its default, what the framework's settings say.

    >>> fill_options(CookieOptions(secure=False), CookieOptions(samesite="strict")).samesite
    'strict'
    """
    if not isinstance(given, CookieOptions):
        return given  # it is refused, with a hint, by the cookie that is to be made of it
    names = (field.name for field in fields(CookieOptions) if getattr(given, field.name) == field.default)
    return replace(given, **{name: getattr(settings, name) for name in names})


def is_test_host(host: str, *, surely: bool = False) -> bool:
    """Whether a request to that host comes from a test: no such name exists on the internet (RFC 2606, section 2).

    surely: it can only be a test client. A host under `.test` may be a developer's, behind a proxy that speaks https.

    >>> is_test_host("testserver"), is_test_host("shop.test:8000"), is_test_host("localhost")
    (True, True, False)
    >>> is_test_host("testserver", surely=True), is_test_host("shop.test:8000", surely=True)
    (True, False)
    """
    if "test" not in (name := host.lower()):
        return False
    name = re.sub(r":\d*$", "", name)
    return name in ("testserver", "testserver.local", "test") or (name.endswith(".test") and not surely)


def _lax(options: CookieOptions) -> SameSite:
    return "lax" if options.samesite == "none" else options.samesite


class Cookie:
    """One cookie: a name and the headers that set and delete it."""

    def __init__(self, name: str, options: CookieOptions) -> None:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigError(f"cookie name {name!r}: only letters, digits and !#$%&'*+-.^_`|~ are allowed (RFC 6265)")
        if not isinstance(options, CookieOptions):
            known = {field.name for field in fields(CookieOptions)}
            words = options if isinstance(options, dict) and options.keys() <= known else {"secure": False}
            meant = ", ".join(f"{word}={value!r}" for word, value in words.items())
            raise ConfigError(f"cookie takes CookieOptions({meant}), not a {type(options).__name__}")
        if len(name) > MAX_NAME:
            raise ConfigError(
                f"cookie name of {len(name)} letters: at most {MAX_NAME} are allowed, since browsers drop long cookies"
            )
        # Browsers compare the prefixes without regard to case (RFC 6265bis, section 4.1.3).
        lower = name.lower()
        self._prefixed = lower.startswith(PREFIXES)
        if self._prefixed and not options.secure:
            raise ConfigError(f"cookie name {name!r} needs secure=True, or browsers drop it")
        if lower.startswith("__host-") and (options.domain is not None or options.path != "/"):
            raise ConfigError(f"cookie name {name!r} needs path='/' and no domain, or browsers drop it")
        if lower.startswith(("__http-", "__host-http-")) and not options.httponly:
            raise ConfigError(f"cookie name {name!r} needs httponly=True, or browsers drop it")
        self.name = name
        self.options = options
        self.needs_secure = self._prefixed or options.samesite == "none" or options.partitioned
        """Whether browsers drop it, or treat it otherwise, without `Secure`."""
        self._name = name.encode()
        self._begin = self._name + b"="
        self._attributes = self._render_attributes(options)
        plain = replace(options, secure=False, partitioned=False, samesite=_lax(options))
        self._insecure = self._render_attributes(plain)

    def _render_attributes(self, options: CookieOptions) -> str:
        parts = [f"Path={options.path}"]
        if options.domain is not None:
            parts.append(f"Domain={options.domain}")
        parts += [
            word
            for word, wanted in (
                ("HttpOnly", options.httponly),
                ("Secure", options.secure),
                ("Partitioned", options.partitioned),
            )
            if wanted
        ]
        parts.append(f"SameSite={options.samesite.capitalize()}")
        if options.priority is not None:
            parts.append(f"Priority={options.priority.capitalize()}")
        return "; ".join(parts)

    def set_header(
        self, value: str, max_age: float | None, persistent: bool | None = None, *, secure: bool = True
    ) -> str:
        """Return the value of the `Set-Cookie` header.

        max_age: seconds; None for as long as browsers allow.
        persistent: in place of what the options say.
        secure: False leaves `Secure` out, for a test client. Default True, as the options say.
        """
        attributes = self._attributes if secure else self._insecure
        if not (self.options.persistent if persistent is None else persistent):
            return f"{self.name}={value}; {attributes}"
        seconds = MAX_AGE_LIMIT if max_age is None or max_age > MAX_AGE_LIMIT else max(1, int(max_age))
        return f"{self.name}={value}; Max-Age={seconds}; {attributes}"

    def carrying(self, value: bytes) -> CookieHeaders:
        """The headers of a request that has this cookie and no other."""
        return ((b"cookie", self._begin + value),)

    def delete_header(self, *, secure: bool = True) -> str:
        """Return the header that deletes the cookie: the same attributes, or a browser deletes something else."""
        attributes = self._attributes if secure else self._insecure
        return f"{self.name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; {attributes}"

    def split_joined(self, header: bytes) -> bytes:
        """The `Cookie` header of a WSGI request, to which some servers join several by commas, apart again.

        Not for a name with a prefix. Another host can write a comma, and our name behind it, into a cookie of its own.
        """
        return header if self._prefixed else header.replace(b",", b";")

    def find(self, headers: CookieHeaders) -> list[bytes]:
        """Return the values of the cookies with this name: each once, in the order of the headers, eight at most.

        Blanks before the "=" are read in a header that has it nowhere without them.
        """
        begin = self._begin
        values: list[bytes] = []
        for name, header in headers:
            if name != b"cookie":
                continue
            at = header.find(begin)
            if at < 0 and self._name in header:  # perhaps written by hand: "session = ..."
                header = _SPACED.sub(b"=", header)
                at = header.find(begin)
            # Each step looks at what lies behind the last one alone, so that all of them take linear time.
            end = 0
            while at >= 0:
                start, end = end, header.find(b";", at)
                # Not the end of another name, or inside a value.
                if at == start or header[at - 2 : at] == b"; " or header[start:at].rstrip(b" \t")[-1:] in (b"", b";"):
                    at += len(begin)
                    value = (header[at:end] if end >= 0 else header[at:]).strip(b' \t"')
                    if value not in values:
                        values.append(value)
                        if len(values) == MAX_VALUES:
                            return values
                if end < 0:
                    break
                at = header.find(begin, end)
        return values


Candidate = tuple[str, bool]
"""An id that came with a valid signature, and whether an old secret verified it, so that it should be signed again."""


class Signer:
    """Signs ids with HMAC-SHA-256 by itsdangerous, and verifies them with any of several secrets.

    secrets: one, or a sequence with the *newest first*: the first signs, all verify. Each at least 32 bytes.
    name: of the cookie; the signature covers it, so that what one cookie holds is worth nothing in another that is
        signed with the same secret. Default `"session"`.
    Raises `ConfigError` for a secret that is missing, short or made up.

    >>> new, old = "N3w-secret-of-at-least-32-characters!", "0ld-secret-of-at-least-32-characters!"
    >>> token = Signer(old).sign("some-id-that-is-long")
    >>> Signer([new, old]).verify(token.encode())
    ('some-id-that-is-long', True)
    """

    def __init__(self, secrets: str | bytes | Sequence[str | bytes], name: str = "session") -> None:
        # One signer for each secret keeps our order, newest first. In one list itsdangerous wants the newest *last*;
        # mixing the two up is what CVE-2025-47278 was about.
        self._signers = [_SecretSigner(secret, name) for secret in check_secrets(secrets)]

    def __repr__(self) -> str:
        return f"<Signer with {len(self._signers)} secrets>"

    def sign(self, sid: str) -> str:
        """Return the cookie value for an id: the id, a dot, and its signature."""
        return f"{sid}.{self._signers[0].get_signature(sid).decode()}"

    def verify(self, token: bytes) -> Candidate | None:
        """Return the id in `token` if one of the secrets signed it, else None. Any bytes may come in."""
        sid, _, signature = token.rpartition(b".")
        for signer in self._signers:
            # Compared as they are written, so that there is one text for each signature.
            if compare_digest(signer.get_signature(sid), signature):
                return sid.decode(), signer is not self._signers[0]
        return None


class _SecretSigner(itsdangerous.Signer):
    """itsdangerous' signature with one secret, whose key is derived and digested once.

    HMAC begins with two hashes that depend on the key alone (RFC 2104, section 4); copies of these cost a third of what
    the module `hmac` does.
    """

    def __init__(self, secret: str | bytes, name: str) -> None:
        salt = b"session_kit.cookie." + name.encode()
        super().__init__(secret, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
        key = self.derive_key().ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def get_signature(self, value: str | bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(value.encode() if isinstance(value, str) else value)
        outer.update(inner.digest())
        return write_bits(outer.digest())


def check_secrets(secrets: str | bytes | Sequence[str | bytes]) -> list[str | bytes]:
    """Return the secrets as a list, newest first, or raise `ConfigError` for one that is missing, short or made up."""
    given = not isinstance(secrets, Iterable) or isinstance(secrets, (str, bytes))
    listed: list[Any] = [secrets] if given and secrets is not None else list(secrets or ())
    if not listed:
        raise ConfigError(f"no secret given; {HOW_TO_MAKE_ONE}")
    for number, secret in enumerate(listed, start=1):
        which = "the secret" if len(listed) == 1 else f"secret number {number}"
        if not isinstance(secret, (str, bytes)):
            raise ConfigError(f"{which} must be str or bytes, not {type(secret).__name__}; {HOW_TO_MAKE_ONE}")
        try:
            raw = secret.encode() if isinstance(secret, str) else secret
        except UnicodeEncodeError:
            # It comes so from the environment, and each locale would make another secret of it.
            raise ConfigError(f"{which} holds bytes that are no text in this locale; {HOW_TO_MAKE_ONE}") from None
        if len(raw) < MIN_SECRET_BYTES:
            raise ConfigError(
                f"{which} has {len(raw)} bytes, at least {MIN_SECRET_BYTES} are needed; {HOW_TO_MAKE_ONE}"
            )
        if len(set(raw)) < 8 or any(word in raw.lower().decode("latin-1") for word in PLACEHOLDERS):
            raise ConfigError(f"{which} looks like a placeholder; {HOW_TO_MAKE_ONE}")
    return listed


def check_id(name: object) -> str:
    """Return the name that `generate_id` made, or raise `ConfigError` if it is too short or cannot go into a cookie."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "generate_id must return 16 to 256 printable ASCII characters, "
            "none of them ' ', ',', ';', '\"', '\\\\' or '~', which ends the name in an id"
        )
    return name
