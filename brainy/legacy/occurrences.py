"""Ids that lie under several keys: found in one pass over the listing, in eight bytes an object.

A listing goes through one folder after the other, so when a folder begins all those before it are known to their
end: their ids are sorted once, and every page that follows is looked up in them. Nothing has to be kept for the
sample but the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from brainy.legacy.keys import Kind, object_key
from brainy.legacy.presence import Hashes, Presence, hashes_of

_SAMPLE = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that holds vector objects of one kind. A lower ``rank`` wins."""

    kind: Kind
    tree: str
    prefix: str
    rank: int


@dataclass(slots=True)
class Sighting:
    """An id of the sample: (place, key) of every copy."""

    id: str
    kind: Kind
    copies: list[tuple[Place, str]] = field(default_factory=list)

    @property
    def by_rank(self) -> list[tuple[Place, str]]:
        """The copies, the one that wins first."""
        return sorted(self.copies, key=lambda copy: (copy[0].rank, copy[1]))


class Occurrences:
    """Vector objects by id and place."""

    def __init__(self) -> None:
        self._sealed: dict[Place, list[Presence]] = {}
        self._open: tuple[Place, Presence] | None = None
        #: Ids under several keys.
        self.ids: Counter[Kind] = Counter()
        #: Copies beyond the first of each id.
        self.hidden = 0
        #: Tree -> ids its copy wins.
        self.won_by: Counter[str] = Counter()
        self.sample: dict[tuple[Kind, str], Sighting] = {}

    def see(self, place: Place, ids: Sequence[str]) -> None:
        """Note the ids that a page of the listing names in a place."""
        if self._open is None or self._open[0] != place:
            self.finish()
            self._open = place, Presence()
        hashes = hashes_of(ids)
        self._compare(place, ids, hashes)
        self._open[1].add(hashes)

    def finish(self) -> None:
        """Declare the folder that was seen last complete (another part of it may still follow)."""
        if self._open is not None:
            place, presence = self._open
            presence.finish()
            self._sealed.setdefault(place, []).append(presence)
            self._open = None

    def _compare(self, place: Place, ids: Sequence[str], hashes: Hashes) -> None:
        others = [other for other in self._sealed if other.kind is place.kind and other != place]
        known = {other: self._contains(self._sealed[other], hashes) for other in others}
        twice = np.zeros(len(hashes), dtype=np.bool_)
        for found in known.values():
            twice |= found
        for at in np.flatnonzero(twice).tolist():
            earlier = [other for other, found in known.items() if found[at]]
            self._note(place, ids[at], earlier)

    def _note(self, place: Place, item_id: str, earlier: list[Place]) -> None:
        self.hidden += 1
        before = min(earlier, key=lambda other: other.rank)
        if len(earlier) == 1:
            self.ids[place.kind] += 1
        else:
            self.won_by[before.tree] -= 1
        self.won_by[min(before, place, key=lambda other: other.rank).tree] += 1
        name = (place.kind, item_id)
        if name not in self.sample:
            if len(self.sample) >= _SAMPLE:
                return
            copies = [(other, object_key(other.prefix, item_id)) for other in earlier]
            self.sample[name] = Sighting(item_id, place.kind, copies)
        self.sample[name].copies.append((place, object_key(place.prefix, item_id)))

    @staticmethod
    def _contains(parts: Sequence[Presence], hashes: Hashes) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(hashes), dtype=np.bool_)
        for part in parts:
            found |= part.contains(hashes)
        return found

    def within(self, kind: Kind, tree: str, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Say of each id whether a tree has a vector object for it. After ``finish``."""
        parts = [p for place, some in self._sealed.items() if (place.kind, place.tree) == (kind, tree) for p in some]
        return self._contains(parts, hashes)

    def anywhere(self, kind: Kind, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Say of each id whether any tree has a vector object for it. After ``finish``."""
        return self._contains([p for place, some in self._sealed.items() if place.kind is kind for p in some], hashes)
