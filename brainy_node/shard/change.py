"""The records of a log object on their way into what a shard holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import noun_from_proto, verb_from_proto
from brainy_node.shard.base import Base
from brainy_node.shard.overlay import Rows
from brainy_node.shard.projection import ProjectedDigest
from brainy_node.shard.statistics import Tally
from brainy_node.shard.tail import Tail, TailNoun

#: From so many nouns in a row on, those of a run are taken in together: below, arrays cost more than they spare.
_RUN = 8


class Change:
    """Keeps tail, dead rows, digest and counts in step while records are applied one after the other.

    Nouns that follow one another, each id once, are hashed, measured and counted together; the result is the same.
    """

    __slots__ = ("_base", "_digest", "_projected", "_rows", "_tail", "_tally")

    def __init__(
        self,
        base: Base,
        tail: Tail,
        rows: Rows,
        digest: MultisetDigest,
        tally: Tally,
        projected: ProjectedDigest | None = None,
    ) -> None:
        self._base = base
        self._tail = tail
        self._rows = rows
        self._digest = digest
        self._tally = tally
        #: Only while generations of two embedding models are to be compared.
        self._projected = projected

    def apply(self, first: int, records: Sequence[log_pb2.LogRecord]) -> None:
        """Apply records at the positions from ``first`` on."""
        position = first
        for operation, run in groupby(records, key=_operation):
            if operation == "upsert_noun":
                for nouns in _distinct([record.upsert_noun for record in run]):
                    self._upsert_nouns(position, nouns)
                    position += len(nouns)
                continue
            for record in run:
                if operation == "upsert_verb":
                    self._upsert_verb(position, record.upsert_verb)
                elif operation == "delete_noun":
                    self._count_noun_out(record.delete_noun)
                    self._tail.drop_noun(position, record.delete_noun)
                elif operation == "delete_verb":
                    self._count_verb_out(record.delete_verb)
                    self._tail.drop_verb(position, record.delete_verb)
                # Fences and advances take a position and change nothing.
                position += 1

    def _upsert_nouns(self, first: int, messages: Sequence[common_pb2.Noun]) -> None:
        nouns = [noun_from_proto(message) for message in messages]
        ids = [noun.id for noun in nouns]
        if len(nouns) < _RUN:
            for position, noun in enumerate(nouns, first):
                self._count_noun_out(noun.id)
                state = self._tail.put_noun(position, noun)
                self._digest.add(noun.id, state.hash)
                self._tally.noun(state.facts, indexed=state.unindexed is None)
                if self._projected is not None:
                    self._projected.noun_in(noun)
            return
        self._count_nouns_out(ids)
        states = self._tail.put_nouns(first, nouns)
        self._digest.add_all(ids, [state.hash for state in states])
        counted = Counter((state.facts, state.unindexed is None) for state in states)
        for (facts, indexed), count in counted.items():
            self._tally.noun(facts, indexed=indexed, by=count)
        if self._projected is not None:
            for noun in nouns:
                self._projected.noun_in(noun)

    def _upsert_verb(self, position: int, message: common_pb2.Verb) -> None:
        verb = verb_from_proto(message)
        self._count_verb_out(verb.id)
        kept = self._tail.put_verb(position, verb)
        self._digest.add(verb.id, kept.hash)
        self._tally.verb(verb.type, kept.service)
        if self._projected is not None:
            self._projected.verb_in(verb.id, kept.hash)

    def _count_nouns_out(self, ids: Sequence[str]) -> None:
        elsewhere: list[str] = []
        known = self._tail.nouns
        for item_id in ids:
            state = known.get(item_id)
            if state is None:
                elsewhere.append(item_id)
            else:
                self._count_state_out(item_id, state)
        if elsewhere and self._base.rows:
            for item_id, row in zip(elsewhere, self._base.rows_of(elsewhere), strict=True):
                if row >= 0:
                    self._count_row_out(item_id, row)

    def _count_noun_out(self, item_id: str) -> None:
        state = self._tail.nouns.get(item_id)
        if state is not None:
            self._count_state_out(item_id, state)
            return
        row = self._base.row_of(item_id)
        if row is not None:
            self._count_row_out(item_id, row)

    def _count_state_out(self, item_id: str, state: TailNoun) -> None:
        if state.noun is not None:
            self._digest.remove(item_id, state.hash)
            self._tally.noun(state.facts, indexed=state.unindexed is None, by=-1)
            if self._projected is not None:
                self._projected.state_out(state)

    def _count_row_out(self, item_id: str, row: int) -> None:
        base = self._base
        self._digest.remove(item_id, base.noun_hash(row))
        self._tally.noun(base.noun_facts(row), indexed=bool(base.indexed[row]), by=-1)
        self._rows.kill(base, row)
        if self._projected is not None:
            self._projected.row_out(base, row)

    def _count_verb_out(self, item_id: str) -> None:
        state = self._tail.verbs.get(item_id)
        if state is not None:
            if state.verb is not None:
                self._digest.remove(item_id, state.hash)
                self._tally.verb(state.verb.type, state.service, by=-1)
                if self._projected is not None:
                    self._projected.verb_out(item_id, state.hash)
            return
        row = self._base.verb_row_of(item_id)
        if row is not None:
            self._digest.remove(item_id, self._base.verb_hash(row))
            self._tally.verb(self._base.verb_type(row), self._base.verb_service(row), by=-1)
            self._rows.dead_verbs[row] = True
            if self._projected is not None:
                self._projected.verb_out(item_id, self._base.verb_hash(row))


def _operation(record: log_pb2.LogRecord) -> str | None:
    return record.WhichOneof("operation")


def _distinct(messages: Sequence[common_pb2.Noun]) -> Iterator[Sequence[common_pb2.Noun]]:
    """Cut a run of nouns so that no part names an id twice."""
    if len({message.id for message in messages}) == len(messages):
        yield messages
        return
    seen: set[str] = set()
    start = 0
    for place, message in enumerate(messages):
        if message.id in seen:
            yield messages[start:place]
            start = place
            seen.clear()
        seen.add(message.id)
    yield messages[start:]
