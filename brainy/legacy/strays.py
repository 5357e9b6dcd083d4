"""Objects whose id inside differs from the one in their key: finding them, and deciding what they are.

The id inside is believed, as Brainy does when it loads. If an object under the key of that id says the same id,
that one is the item and the stray is quarantined (``duplicate-id``); among several strays the one of the
strongest tree with the smallest key wins. A stray without metadata of its own id has that of its key, unless
another item claims it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence

from brainy.legacy.assembly import Assembly, Entry, Stray, is_null
from brainy.legacy.batch import ItemBatch, Quarantined, Reason
from brainy.legacy.deletions import Deletions
from brainy.legacy.keys import OLD_NOUNS, OLD_PERSONS, PERSONS, Kind, id_in, object_key
from brainy.legacy.objects import HEAD_BYTES, id_at_first, open_object, says_id
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.tree import Tree
from brainy.legacy.values import UnreadableError
from brainy.store.base import StoredObject


async def find_strays(fetcher: Fetcher, tree: Tree, kind: Kind, objects: Sequence[tuple[str, str]]) -> list[Stray]:
    """Look at the first bytes of (key, id in the key) pairs; objects that cannot be read are no strays."""
    inside = await ids_inside(fetcher, [key for key, _ in objects])
    return [
        Stray(tree=tree, kind=kind, key=key, id_in_key=id_in_key, id=said)
        for (key, id_in_key), said in zip(objects, inside, strict=True)
        if said is not None and said != id_in_key
    ]


async def ids_inside(fetcher: Fetcher, keys: Sequence[str]) -> list[str | None]:
    """Return the ids that objects say they have, by their first bytes; None where that cannot be read."""
    heads = await fetcher.heads(keys, HEAD_BYTES)
    return [
        None if head is None else await _id_inside(fetcher, key, head) for key, head in zip(keys, heads, strict=True)
    ]


async def _id_inside(fetcher: Fetcher, key: str, head: bytes) -> str | None:
    try:
        if said := id_at_first(head):
            return said
        if len(head) < HEAD_BYTES:
            return open_object(head)[0]
        whole = await fetcher.get(key)
        return None if whole is None else open_object(whole.body)[0]
    except UnreadableError:
        return None


class Resolution:
    """Decides what each of the strays of a bucket is; ``strays`` are all of them, whoever wants them."""

    def __init__(
        self,
        fetcher: Fetcher,
        trees: Sequence[Tree],
        strays: Collection[Stray],
        deletions: Deletions,
        *,
        keep_doubles: bool = False,
    ) -> None:
        self._fetcher = fetcher
        self._trees = trees
        self._strays = sorted(strays, key=lambda stray: (trees.index(stray.tree), stray.key))
        self._claimed = {(stray.kind, stray.id) for stray in strays}
        self._deletions = deletions
        self._keep_doubles = keep_doubles

    async def items(self, wanted: Callable[[str], bool]) -> AsyncGenerator[ItemBatch]:
        """Yield the strays that are items, and quarantine the others. One batch for each id: they are rare."""
        claims: dict[tuple[Kind, str], list[Stray]] = {}
        for stray in self._strays:
            if wanted(stray.id):
                claims.setdefault((stray.kind, stray.id), []).append(stray)
        for (kind, item_id), claimants in claims.items():
            if await self._held(kind, item_id):
                yield await self._duplicates(claimants)
                continue
            yield await self._item(claimants[0])
            if len(claimants) > 1:
                yield await self._duplicates(claimants[1:])

    async def uncovered(self, wanted: Callable[[str], bool]) -> AsyncGenerator[ItemBatch]:
        """Yield what was passed over because a stray lies under its key in a stronger tree."""
        covered = [(stray.kind, stray.id_in_key) for stray in self._strays if wanted(stray.id_in_key)]
        for kind, item_id in dict.fromkeys(covered):
            places = [tree for tree in self._trees if kind in tree.kinds]
            objects = await self._fetcher.get_all([object_key(tree.keys.objects(kind), item_id) for tree in places])
            # Strongest first, the later one among equals: the order in which the reader believes them.
            there = sorted(
                (
                    (tree, found)
                    for tree, found in zip(places, objects, strict=True)
                    if found is not None and _lies_in(tree, found)
                ),
                key=lambda pair: (pair[0].rank, -pair[1].last_modified),
            )
            for number, (tree, found) in enumerate(there):
                said = _said(found.body)
                if said is not None and said != item_id and says_id(found.body, said):
                    continue  # another stray
                # What cannot be read stands for the item, too.
                if number > 0:
                    yield await self._item(Stray(tree=tree, kind=kind, key=found.key, id_in_key=item_id, id=item_id))
                break

    async def _held(self, kind: Kind, item_id: str) -> bool:
        for tree in self._trees:
            if kind not in tree.kinds:
                continue
            found = await self._fetcher.get(object_key(tree.keys.objects(kind), item_id))
            if found is not None and _said(found.body) == item_id:
                return True
        return False

    async def _duplicates(self, strays: Sequence[Stray]) -> ItemBatch:
        objects = await self._fetcher.get_all([stray.key for stray in strays])
        return ItemBatch(
            quarantined=[
                Quarantined(found.key, Reason.DUPLICATE_ID, len(found.body))
                for stray, found in zip(strays, objects, strict=True)
                # What cannot be read beyond its beginning is reported by whoever reads its key.
                if found is not None and says_id(found.body, stray.id)
            ],
            objects_read=len(objects),
        )

    async def _item(self, stray: Stray) -> ItemBatch:
        kind, prefix = stray.kind, stray.tree.keys.companions(stray.kind)
        graves = [
            object_key(other.keys.noun_metadata, stray.id)
            for other in self._trees
            if kind is Kind.NOUN and other.rank < stray.tree.rank and other.keys.noun_metadata != prefix
        ]
        keys = [stray.key, object_key(prefix, stray.id), object_key(prefix, stray.id_in_key), *graves]
        found, beside, of_key, *buried = await self._fetcher.get_all(keys)
        nothing = ItemBatch(objects_read=len(keys))
        if found is None or any(is_null(grave) for grave in buried):
            return nothing
        if stray.id != stray.id_in_key and not says_id(found.body, stray.id):
            return nothing  # changed meanwhile, or two ids inside: whoever reads its key reports it
        if beside is None and of_key is not None and not await self._belongs_to_another(kind, stray.id_in_key):
            beside = of_key
        entry = Entry(key=stray.key, id=stray.id, companion=None if beside is None else beside.key)
        assembly = Assembly(stray.tree, kind, keep_doubles=self._keep_doubles)
        assembly.take(entry, [found, beside] if beside is not None else [found])
        zombies = await self._deletions.last_word_is_delete(assembly.suspects)
        return assembly.finish(zombies, objects_read=len(keys))

    async def _belongs_to_another(self, kind: Kind, item_id: str) -> bool:
        return (kind, item_id) in self._claimed or await self._held(kind, item_id)


def _lies_in(tree: Tree, found: StoredObject) -> bool:
    """Whether an object below a tree's prefix is that tree's: two folders lie below others."""
    key = found.key
    if key.startswith(OLD_PERSONS):
        return tree.keys.nouns != OLD_NOUNS
    if not key.startswith(PERSONS):
        return True
    try:
        said = id_at_first(found.body[:HEAD_BYTES]) or open_object(found.body)[0]
    except UnreadableError:
        said = None
    return (tree.keys.nouns == PERSONS) == (said == id_in(PERSONS, key))


def _said(body: bytes) -> str | None:
    try:
        return open_object(body)[0]
    except UnreadableError:
        return None
