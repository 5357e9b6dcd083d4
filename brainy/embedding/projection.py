"""What of an item is compared where two generations have vectors of different models. Pure.

Of a noun it takes id, metadata and attributes, and one word on its vector: that there is none to expect (no text),
that there is one of the model, or that there is not. Of a verb it takes everything. So it is equal on both sides just
if the same items are there and, where it is asked for, every noun with a text was embedded:

=========  ==================================  =================================================
side       a noun with a text                  counted as
=========  ==================================  =================================================
expected   will be embedded                    the model's identity
actual     has a vector of the model's length  the model's identity
actual     has none, or one of another length  missing
=========  ==================================  =================================================
"""

from __future__ import annotations

from brainy.bucket.items import Noun, content_hash
from brainy.bucket.projection import Projection
from brainy.embedding.text import stored_text

_NO_TEXT, _MISSING = b"", b"missing"


def projected_hash(projection: Projection, noun: Noun, vector_bytes: int) -> bytes:
    """Return a noun's hash, 32 bytes; ``vector_bytes`` is the size of its vector, which may have been left out."""
    word = _word(projection, noun.metadata, vector_bytes)
    return content_hash(b"p", noun.id.encode(), word, noun.metadata, noun.attributes)


def _word(projection: Projection, metadata: bytes | None, size: int) -> bytes:
    wanted = projection.embedding
    if wanted is None or stored_text(metadata) is None:
        return _NO_TEXT
    if projection.expected or size == 4 * wanted.dimensions:
        return str(wanted).encode()
    return _MISSING
