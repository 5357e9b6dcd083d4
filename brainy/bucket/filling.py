"""How far the filling of a generation's shard is: what whoever goes on with it after a crash begins with.

Two objects. ``filling/<shard>.json`` names the segments that are whole and the place in the source that comes after
them; it is replaced each time a part is done, and means nothing once the shard has a manifest.
``filling/source-<nonce>.json`` keeps the manifests of the source generation that are being copied: they are replaced
while the source lives on, and a place in a source holds only for the segments it was taken in.
"""

from __future__ import annotations

from brainy.bucket.records import Manifest, Record, StoredFile


class FillSource(Record):
    """``filling/source-<nonce>.json``: the source as one job found it. Immutable."""

    #: The source generation.
    generation: int
    manifests: tuple[Manifest, ...]


class Filling(Record):
    """``filling/<shard>.json``: the parts of a shard that are in the bucket."""

    generation: int
    shard: int
    #: Epoch of the owner that fills it; a lower one is refused.
    epoch: int
    nonce: str
    #: Key of the ``FillSource``; "" for a Brainy tree, which has no places: there the ids that are held tell.
    source_key: str = ""
    #: Rows of the source, in its order, that are done with.
    place: int = 0
    nouns: tuple[StoredFile, ...] = ()
    verbs: tuple[StoredFile, ...] = ()

    @property
    def rows(self) -> int:
        """Nouns and verbs that are in the parts."""
        return sum(file.rows for file in (*self.nouns, *self.verbs))
