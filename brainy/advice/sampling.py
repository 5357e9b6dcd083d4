"""How large the objects of a tree are, from the first page of each listing. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.legacy import keys
from brainy.legacy.keys import ENTITY, ENTITY_KEYS, FLAT_KEYS, Kind, TreeKeys
from brainy.store.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSizes:
    """Mean bytes of an object, 0.0 where the first page has none."""

    noun_metadata: float = 0.0
    verb: float = 0.0
    verb_metadata: float = 0.0


async def sample_sizes(store: ObjectStore, trees: tuple[str, ...]) -> TreeSizes:
    """Look at one page of each folder of the strongest tree (three LISTs).

    Raises:
        BrainyError: the store failed.
    """
    if not trees:
        return TreeSizes()
    tree: TreeKeys = ENTITY_KEYS if trees[0] == ENTITY else FLAT_KEYS
    return TreeSizes(
        noun_metadata=await _mean(store, tree.noun_metadata, Kind.NOUN_METADATA),
        verb=await _mean(store, tree.verbs, Kind.VERB),
        verb_metadata=await _mean(store, tree.verb_metadata, Kind.VERB_METADATA),
    )


async def _mean(store: ObjectStore, prefix: str, kind: Kind) -> float:
    async for page in store.list(prefix):
        sizes = [meta.size for meta in page if keys.parse(meta.key).kind is kind]
        return sum(sizes) / len(sizes) if sizes else 0.0
    return 0.0
