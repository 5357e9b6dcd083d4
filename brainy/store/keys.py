"""What a legal key is; the same for every store."""

from __future__ import annotations

from brainy.errors import InvalidRequestError

#: Limit of S3, in bytes of UTF-8.
MAX_KEY_BYTES = 1024


def check_key(key: str) -> str:
    """Return ``key`` when every store could hold it.

    Raises:
        InvalidRequestError: empty, over 1,024 bytes, starts with '/', or holds NUL or a lone surrogate.
    """
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "the key is not unicode text", remedy="correct the key; nothing was written", key=ascii(key)
        ) from error
    if not key or key[0] == "/" or size > MAX_KEY_BYTES or "\0" in key:
        raise InvalidRequestError(
            "not a legal key",
            remedy="a key has 1 to 1,024 bytes of UTF-8 without NUL and does not start with '/'",
            key=key[:80],
            size=size,
        )
    return key
