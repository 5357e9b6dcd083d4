"""Which of the namespaces served a request means."""

from __future__ import annotations

from collections.abc import Collection

from brainy.bucket.namespace import Namespace
from brainy.errors import NotFoundError


def resolve(text: str, served: Collection[str]) -> str:
    """Return the canonical name; "" means the only one there is.

    Raises:
        NotFoundError: it is not served here (UNKNOWN_NAMESPACE).
        InvalidRequestError: not a name at all.
    """
    if not text and len(served) == 1:
        return next(iter(served))
    name = str(Namespace.parse(text)) if text else ""
    if name not in served:
        raise NotFoundError(
            "this coordinator does not serve the namespace" if text else "several namespaces: say which",
            reason="UNKNOWN_NAMESPACE",
            remedy="name one of: " + ", ".join(sorted(served)),
            namespace=text,
        )
    return name
