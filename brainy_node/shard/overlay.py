"""What a tail makes of the base below it: dead and hidden rows, and the digest and counts of both together."""

from __future__ import annotations

import numpy as np

from brainy.bucket.digest import MultisetDigest
from brainy_node.shard.base import Base
from brainy_node.shard.statistics import Tally
from brainy_node.shard.tail import Tail


class Rows:
    """What became of the base's rows since it was built."""

    __slots__ = ("dead", "dead_indexed", "dead_verbs", "hidden", "hidden_indexed")

    def __init__(self, base: Base) -> None:
        #: bool (rows): replaced or deleted by a later record.
        self.dead = np.zeros(base.rows, np.bool_)
        #: bool (rows): dead, or carries the soft-delete marker.
        self.hidden = base.soft_deleted.copy()
        self.dead_verbs = np.zeros(base.verb_rows, np.bool_)
        #: How many of the indexed rows are dead, and how many hidden.
        self.dead_indexed = 0
        self.hidden_indexed = int((base.soft_deleted & base.indexed).sum())

    def kill(self, base: Base, row: int) -> None:
        """Take a row out: a later record replaces or deletes it."""
        if base.indexed[row]:
            self.dead_indexed += 1
            self.hidden_indexed += not self.hidden[row]
        self.dead[row] = self.hidden[row] = True


def overlay(base: Base, tail: Tail) -> tuple[Rows, MultisetDigest, Tally]:
    """Lay a tail over a base: which rows it kills, and the digest and counts of both together."""
    rows, digest, tally = Rows(base), base.digest(), base.tally()
    names = list(tail.nouns)
    for item_id, row in zip(names, base.rows_of(names), strict=True):
        if row >= 0:
            rows.kill(base, row)
            digest.remove(item_id, base.noun_hash(row))
            tally.noun(base.noun_facts(row), indexed=bool(base.indexed[row]), by=-1)
        state = tail.nouns[item_id]
        if state.noun is not None:
            digest.add(item_id, state.hash)
            tally.noun(state.facts, indexed=state.unindexed is None)
    for item_id, kept in tail.verbs.items():
        verb_row = base.verb_row_of(item_id)
        if verb_row is not None:
            rows.dead_verbs[verb_row] = True
            digest.remove(item_id, base.verb_hash(verb_row))
            tally.verb(base.verb_type(verb_row), base.verb_service(verb_row), by=-1)
        if kept.verb is not None:
            digest.add(item_id, kept.hash)
            tally.verb(kept.verb.type, kept.service)
    return rows, digest, tally
