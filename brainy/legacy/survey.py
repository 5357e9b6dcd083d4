"""A cheap look at a bucket: which of Brainy's trees it holds and how long its vectors are.

At most 24 LISTs (one page each) and 64 GETs, whatever the size of the bucket. A full account is
``brainy.legacy.inspection``.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from brainy.legacy import keys
from brainy.legacy.batch import Reason
from brainy.legacy.keys import ENTITY, ENTITY_KEYS, FLAT, FLAT_KEYS, TYPED, Kind, id_in
from brainy.legacy.objects import open_object
from brainy.legacy.values import MAX_OBJECT_BYTES, UnreadableError
from brainy.store.base import ObjectMeta, ObjectStore, StoredObject

SAMPLE = 64
_LISTS = 24
#: Objects looked at to tell persons from ids with a slash.
_PERSON_PROBES = 4
#: Objects looked at to tell whether folders named as in the typed tree are Brainy's, at once and at most.
_PROBES, _MOST_PROBES = 8, 32
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.json")
#: Where to look beyond the first page, so that a sample of UUIDs is spread over the bucket.
_JUMPS = ("5", "a")
#: Folders of the typed tree that are listed with another's prefix.
_NESTED = (keys.PERSONS, keys.OLD_PERSONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a bucket is."""

    #: Trees found, strongest first: "entity", "flat", "typed".
    trees: tuple[str, ...]
    #: The most frequent vector length of the sample; 0 when no vector was seen.
    dimensions: int
    #: Vector length -> nouns of the sample that have it.
    dimension_counts: dict[int, int]
    #: Nouns looked at.
    sampled: int
    #: There are objects, but none is Brainy's (our own under cluster/ do not count).
    foreign_keys: bool
    #: There are no objects but our own.
    empty: bool
    #: Store calls made.
    lists: int = 0
    gets: int = 0


class _Looker:
    """The budget of LISTs."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.lists = 0
        self.gets = 0

    @property
    def spent(self) -> bool:
        return self.lists >= _LISTS

    async def page(self, prefix: str, start_after: str = "") -> Sequence[ObjectMeta]:
        """Return one page, or nothing when the budget is spent."""
        if self.spent:
            return ()
        self.lists += 1
        async for page in self._store.list(prefix, start_after=start_after):
            return page
        return ()

    async def bodies(self, wanted: Sequence[str]) -> list[StoredObject]:
        """Return those of the objects that can be had."""
        self.gets += len(wanted)
        found = []
        for item in await self._store.get_many(wanted):
            if isinstance(item, Exception):
                raise item
            if item is not None:
                found.append(item)
        return found


async def survey(store: ObjectStore) -> Survey:
    """Look at a namespace. Nothing is written; objects that cannot be read are passed over.

    Raises:
        BrainyError: the store failed.
    """
    look = _Looker(store)
    folders = [keys.TYPED_DEFAULT, *(f for f in keys.TYPED_FOLDERS if f not in _NESTED), keys.TYPED_VERBS]
    entities, nouns, verbs, *pages = await asyncio.gather(
        *(look.page(prefix) for prefix in ("entities/", FLAT_KEYS.nouns, FLAT_KEYS.verbs, *folders))
    )

    trees: set[str] = set()
    if any(keys.parse(meta.key).tree == ENTITY for meta in entities):
        trees.add(ENTITY)
    persons, flat_nouns = await _tell_persons(look, nouns)
    named = [[m.key for m in page if id_in(folder, m.key)] for folder, page in zip(folders, pages, strict=True)]
    if persons or await _are_typed(look, named):
        trees.add(TYPED)
    # The typed tree kept its verbs in verbs/ too.
    if flat_nouns or (TYPED not in trees and any(id_in(FLAT_KEYS.verbs, meta.key) for meta in verbs)):
        trees.add(FLAT)
    foreign = False
    empty = False
    if not trees:
        parsed = [keys.parse(key) for key in await _roots(look)]
        if any(p.tree == FLAT for p in parsed):
            trees.add(FLAT)
        # Folders that are named like the typed tree's and hold no vectors are somebody else's.
        theirs = {Kind.FOREIGN if p.tree == TYPED else p.kind for p in parsed} - {Kind.CLUSTER}
        empty = not theirs
        foreign = not empty and not trees and theirs == {Kind.FOREIGN}
    typed = [_nouns(page, folder) for folder, page in zip(folders, pages, strict=True) if TYPED in trees]
    counts, sampled = await _dimensions(look, entities, flat_nouns, typed)
    return Survey(
        trees=tuple(name for name in (ENTITY, FLAT, TYPED) if name in trees),
        dimensions=_majority(counts),
        dimension_counts=dict(counts),
        sampled=sampled,
        foreign_keys=foreign,
        empty=empty,
        lists=look.lists,
        gets=look.gets,
    )


async def _tell_persons(look: _Looker, nouns: Sequence[ObjectMeta]) -> tuple[bool, Sequence[ObjectMeta]]:
    # nouns/person/x.json is the typed tree's person x, or the flat tree's id "person/x": the id inside tells.
    prefix = "nouns/person/"
    under = [meta for meta in nouns if meta.key.startswith(prefix) and id_in(prefix, meta.key)]
    flat = [m for m in nouns if id_in(FLAT_KEYS.nouns, m.key) and not m.key.startswith(prefix)]
    if not under:
        return False, flat
    for found in await look.bodies(_spread([meta.key for meta in under], _PERSON_PROBES)):
        inside = _id(found.body)
        if inside == id_in(prefix, found.key):
            return True, flat
        if inside is not None:
            break
    return False, [*flat, *under]


async def _are_typed(look: _Looker, folders: Sequence[Sequence[str]]) -> bool:
    spread = (_spread(candidates, _MOST_PROBES) for candidates in folders)
    # Some of each folder first; the very first tells, as a rule.
    mixed = [key for row in zip_longest(*spread) for key in row if key is not None][:_MOST_PROBES]
    for start in range(0, len(mixed), _PROBES):
        if any(map(_looks_typed, await look.bodies(mixed[start : start + _PROBES]))):
            return True
    return False


def _looks_typed(found: StoredObject) -> bool:
    try:
        return isinstance(open_object(found.body)[1].get("vector"), list)
    except UnreadableError as error:
        # Damaged under an id as Brainy makes them, rather than somebody else's document.
        damaged = error.cause in (Reason.EMPTY, Reason.NOT_JSON, Reason.TOO_DEEP)
        return damaged and _UUID.fullmatch(found.key.rpartition("/")[2]) is not None


async def _roots(look: _Looker) -> list[str]:
    """Some keys of each folder at the root, jumping from one folder to the next."""
    samples: list[str] = []
    after = ""
    while not look.spent:
        page = await look.page("", after)
        if not page:
            break
        folders: Counter[str] = Counter()
        for meta in page:
            if keys.is_folder_marker(meta.key, meta.size):
                continue
            folder = meta.key.partition("/")[0]
            folders[folder] += 1
            if folders[folder] <= 4:
                samples.append(meta.key)
        last = page[-1].key
        folder, slash, _ = last.partition("/")
        # "0" follows "/": the first key after everything in the folder.
        after = folder + "0" if slash else last
        if len(page) < 1000 and not slash:
            break
    return samples


async def _dimensions(
    look: _Looker,
    entities: Sequence[ObjectMeta],
    flat: Sequence[ObjectMeta],
    typed: Sequence[list[str]],
) -> tuple[Counter[int], int]:
    strata: list[list[str]] = []
    prefix = ENTITY_KEYS.nouns
    if any(meta.key.startswith("entities/") for meta in entities):
        # The metadata sorts before the vectors and may fill the first page.
        pages = [await look.page(prefix)]
        pages += [await look.page(prefix, prefix + jump) for jump in _JUMPS if len(pages[0]) >= 1000]
        strata += [_nouns(page, prefix) for page in pages]
    if flat:
        prefix = FLAT_KEYS.nouns
        pages = [flat]
        pages += [await look.page(prefix, prefix + jump) for jump in _JUMPS if len(flat) >= 900]
        strata += [_nouns(page, prefix) for page in pages]
    strata += typed
    strata = [stratum for stratum in strata if stratum]
    counts: Counter[int] = Counter()
    if not strata:
        return counts, 0
    # Telling the trees apart has taken some.
    share = max(1, (SAMPLE - look.gets) // len(strata))
    chosen = dict.fromkeys(key for stratum in strata for key in _spread(stratum, share))
    sampled = 0
    for found in await look.bodies(list(chosen)):
        sampled += 1
        dimension = _dimension(found.body)
        if dimension is not None:
            counts[dimension] += 1
    return counts, sampled


def _nouns(page: Sequence[ObjectMeta], prefix: str) -> list[str]:
    return [meta.key for meta in page if id_in(prefix, meta.key) and _sane(meta)]


def _sane(meta: ObjectMeta) -> bool:
    return 0 < meta.size <= MAX_OBJECT_BYTES


def _spread(candidates: Sequence[str], count: int) -> list[str]:
    step = max(1, len(candidates) // max(1, count))
    return list(candidates[::step][:count])


def _id(body: bytes) -> str | None:
    try:
        return open_object(body)[0]
    except UnreadableError:
        return None


def _dimension(body: bytes) -> int | None:
    try:
        vector = open_object(body)[1].get("vector")
    except UnreadableError:
        return None
    return len(vector) if isinstance(vector, list) else None


def _majority(counts: Counter[int]) -> int:
    # Counter keeps the order of first sight, so the strongest tree wins a draw. Empty vectors say nothing.
    return max((d for d in counts if d), key=lambda d: counts[d], default=0)
