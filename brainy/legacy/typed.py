"""The typed tree, Brainy 0.6 to 0.14: recognised and named, not read yet.

Its nouns lie in folders by type at the root of the bucket (``default/``, ``place/``, ..., ``nouns/person/``),
the same id possibly in two of them, of which the one outside ``default/`` is newer.
"""

from __future__ import annotations

from brainy.errors import PreconditionError
from brainy.legacy.keys import TYPED


def refuse_typed() -> PreconditionError:
    """Return the error that says so."""
    return PreconditionError(
        "the bucket holds the oldest layout of brainy (0.6 to 0.14), which cannot be read yet",
        reason="UNSUPPORTED_FORMAT",
        remedy="export it with brainy 0.14 backup() and import the file; nothing was changed",
        tree=TYPED,
    )
