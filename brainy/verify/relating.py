"""The relation check: ends of verbs that are no nouns, on each side, and whether the sides agree on them.

Brainy lets a verb outlive its nouns, so such a verb is no fault by itself; one that lost its end on one side only is.
Found by hash, bucket by bucket, from what was kept of every item; what differs is read again like any suspected item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from brainy.bucket.digest import BUCKETS
from brainy.bucket.items import Verb
from brainy.clock import Clock
from brainy.verify.rechecking import LISTED, Patience
from brainy.verify.rows import RowReader
from brainy.verify.scanning import END_NAMES, Scan
from brainy.verify.sides import Side
from brainy.verify.together import together
from brainy.verify.values import NOUN, VERB, Dangling, Holding, Relations

#: Verbs read again at once.
_AT_ONCE = 20_000


async def relate(
    a: Side, b: Side, scans: tuple[Scan, Scan], directory: Path, patience: Patience, clock: Clock
) -> Relations:
    """Check the relations of two sides that were read through with their ends. Errors as ``Watch.look``."""
    items = scans[0].rows(directory), scans[1].rows(directory)
    ends = scans[0].ends(directory), scans[1].ends(directory)
    counts = [0, 0]
    only: set[str] = set()
    for bucket in range(BUCKETS):
        found = [_dangling(items[side], ends[side], bucket) for side in (0, 1)]
        for side in (0, 1):
            counts[side] += len(found[side])
        only.update(verb for verb, _ in found[0] ^ found[1])
    different = 0
    examples: list[Dangling] = []
    ordered = sorted(only)
    for start in range(0, len(ordered), _AT_ONCE):
        for one in await _recheck(a, b, ordered[start : start + _AT_ONCE], patience, clock):
            different += 1
            if len(examples) < LISTED:
                examples.append(one)
    return Relations(dangling_a=counts[0], dangling_b=counts[1], different=different, examples=tuple(examples))


def _dangling(items: RowReader, ends: RowReader, bucket: int) -> set[tuple[str, int]]:
    """Return (verb, end) of the ends in a bucket that are no nouns."""
    rows, runs = ends.bucket(bucket)
    if not len(rows):
        return set()
    keys = items.bucket(bucket)[0]["key"]
    missing = np.flatnonzero(~np.isin(rows["key"], keys))
    return {(ends.id_of(int(runs[row]), int(rows["at"][row])), int(rows["high"][row])) for row in missing.tolist()}


async def _recheck(a: Side, b: Side, verbs: Sequence[str], patience: Patience, clock: Clock) -> list[Dangling]:
    left: Sequence[str] = verbs
    found: list[Dangling] = []
    for turn in range(1 + (patience.rechecks if a.moves or b.moves else 0)):
        if not left:
            break
        if turn:
            await clock.sleep(patience.pause * 2 ** (turn - 1))
        on_a, on_b = await together(_loose_ends(a, left), _loose_ends(b, left))
        found = [Dangling(id=verb, a=on_a[verb], b=on_b[verb]) for verb in left if on_a[verb] != on_b[verb]]
        left = [one.id for one in found]
    return found if left else []


async def _loose_ends(side: Side, verbs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the ends of verbs that are no nouns now; none for a verb that is not there."""
    names = [(VERB, verb) for verb in verbs]
    held = await side.watch(names).look(names)
    relations = {name[1]: item for name, item in held.items() if isinstance(item, Verb)}
    wanted = [(NOUN, end) for end in dict.fromkeys(_ends(relations.values()))]
    nouns: Holding = await side.watch(wanted).look(wanted) if wanted else {}
    return {
        verb: tuple(
            name
            for name in END_NAMES
            if (relation := relations.get(verb)) is not None and nouns[(NOUN, getattr(relation, name))] is None
        )
        for verb in verbs
    }


def _ends(verbs: Iterable[Verb]) -> Iterable[str]:
    for verb in verbs:
        yield verb.source_id
        yield verb.target_id
