"""What a failure of TLS means, in words that say what to do."""

from __future__ import annotations

import ssl
from typing import Final

# OpenSSL's numbers: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_NO_AUTHORITY: Final = (2, 18, 19, 20, 21)
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_NO_PEM: Final = ("NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE")


def tls_reason(error: ssl.SSLError, authority: str) -> str:
    """What went wrong.

    authority: how the file of the authority is named to us.

    >>> tls_reason(ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1006)"), "ssl_ca_certs=")
    'the server has closed the connection'
    """
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the server has closed the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the server's certificate is refused: {error.verify_message}".rstrip(".")
        if error.verify_code in _NO_AUTHORITY:
            return f"{text}; {authority} is the file of the authority that has signed it"
        return text
    if error.reason in _NO_TLS:
        return "what answers there does not speak TLS"
    if error.reason in _NO_PEM or "PEM lib" in str(error):
        return "a file of certificates or keys holds none (PEM)"
    return f"TLS failed: {(error.reason or type(error).__name__).replace('_', ' ').lower()}"


def system_error(error: BaseException | None) -> OSError | None:
    """What the system or its TLS has said, if a library has wrapped that into its own error."""
    while error is not None and not (isinstance(error, OSError) and error.errno):
        error = error.__cause__ or error.__context__
    return error
