"""Names of namespaces: a bucket and a prefix, in the spellings people use.

``s3://bucket/prefix``, ``file:///directory``, ``memory://name`` and the guide's ``bucket/app/v2`` (split at the
first '/').
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from brainy.errors import InvalidRequestError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where one application's data lives. ``str()`` gives the canonical URI, which is also its name."""

    scheme: str  # s3 | file | memory
    #: The bucket's name, or the absolute directory.
    root: str
    #: Key prefix inside the bucket without slashes at its ends; "" for the whole bucket.
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Namespace:
        """Read any accepted spelling.

        Raises:
            InvalidRequestError: empty, unknown scheme, relative directory or illegal bucket name.
        """
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            scheme, rest = "s3", text.strip()
        if scheme == "file":
            if not rest.startswith("/") or ".." in rest.split("/"):
                raise InvalidRequestError(
                    "a directory namespace needs an absolute path",
                    reason="UNKNOWN_NAMESPACE",
                    remedy="write file:///absolute/directory",
                    namespace=text,
                )
            return cls("file", "/" + rest.strip("/"))
        if scheme not in ("s3", "memory"):
            raise InvalidRequestError(
                "unknown kind of namespace",
                reason="UNKNOWN_NAMESPACE",
                remedy="use s3://bucket/prefix, file:///directory or bucket/prefix",
                namespace=text,
            )
        root, _, prefix = rest.partition("/")
        parts = [part for part in prefix.split("/") if part]
        if not _BUCKET.fullmatch(root) or any(part in (".", "..") for part in parts):
            raise InvalidRequestError(
                "not a legal bucket and prefix",
                reason="UNKNOWN_NAMESPACE",
                remedy="a bucket has 3 to 63 of a-z, 0-9, '-' and '.'; a prefix has no '.' or '..' part",
                namespace=text,
            )
        return cls(scheme, root, "/".join(parts))

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"file://{self.root}"
        return f"{self.scheme}://{self.root}/{self.prefix}" if self.prefix else f"{self.scheme}://{self.root}"
