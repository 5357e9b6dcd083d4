"""One shard: an immutable base and a tail of newer records, read as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import key_hash
from brainy.bucket.projection import Projection
from brainy.bucket.records import Spec
from brainy.dataset.base import Quarantined
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError
from brainy_node.shard.bare import bare_noun, bare_verb
from brainy_node.shard.base import Base
from brainy_node.shard.base_search import search_base, tail_bounds
from brainy_node.shard.bounds import VectorBounds, bounds_of
from brainy_node.shard.change import Change
from brainy_node.shard.contents import Contents
from brainy_node.shard.faults import reads_from_disk as _reads_from_disk
from brainy_node.shard.fit import check_fit
from brainy_node.shard.hits import Hits, select
from brainy_node.shard.overlay import Rows, overlay
from brainy_node.shard.projection import ProjectedDigest
from brainy_node.shard.requests import Requests
from brainy_node.shard.statistics import ShardStatistics
from brainy_node.shard.tail import Tail

#: Items in one batch of a scan.
_SCAN_BATCH = 1000

_T = TypeVar("_T")


class Shard:
    """A replica of one shard, in memory and on mapped files. No I/O but page faults, no clock, no event loop.

    Invariants, after every call:

    * state = base with the log records (``base.position``, ``applied``] applied in order;
    * an id is alive in at most one of base and tail: what the tail knows of an id makes its base row dead;
    * ``digest()`` and ``statistics()`` describe exactly that state.

    Threads: every method may be called from any thread; a lock makes ``apply``, ``swap_base`` and the reads
    exclude one another while they run. Iterators see the state of the moment they were made.
    """

    def __init__(self, base: Base, spec: Spec, *, threads: int = 0, expansion_search: int = 0) -> None:
        self.spec = spec
        self.generation = spec.generation
        self.number = base.record.shard
        #: Highest log position applied.
        self.applied: int = base.position
        #: Source shard -> position included, while or since this generation followed another; and which one.
        self.source_cursor = base.source_cursor
        self.source_generation = base.source_generation
        #: Highest ownership epoch seen in the log.
        self.epoch = 0
        #: Calls of ``search``, and those of them during which the process had to read from disk.
        self.searches = 0
        self.searches_from_disk = 0
        self._threads = threads
        self._expansion_search = expansion_search
        self._lock = threading.Lock()
        self._requests = Requests(base.record.recent_requests)
        self._base = self._tuned(base)
        self._tail = Tail(spec)
        self._rows = Rows(base)
        self._digest = base.digest()
        self._tally = base.tally()
        #: Kept only while generations of two embedding models are compared.
        self._projected: ProjectedDigest | None = None

    @classmethod
    def open(cls, base: Base, spec: Spec, *, threads: int = 0, expansion_search: int = 0) -> Shard:
        """Start from a base; its log records after ``base.position`` are then applied with ``apply``.

        Args:
            base: where to start.
            spec: of its generation.
            threads: how many one search call may use; 0 means one per core.
            expansion_search: how many candidates a search keeps; 0 for as many as ``spec`` says.

        Raises:
            PreconditionError: the base belongs to another generation or another shape of it.
        """
        check_fit(base, spec, base.record.shard)
        return cls(base, spec, threads=threads, expansion_search=expansion_search)

    def _tuned(self, base: Base) -> Base:
        if self._expansion_search and base.index is not None:
            base.index.keep_candidates(self._expansion_search)
        return base

    @property
    def base(self) -> Base:
        """The base in use."""
        return self._base

    @property
    def base_rows(self) -> int:
        """Nouns in the base, dead ones included."""
        return self._base.rows

    @property
    def tail_records(self) -> int:
        """Log records after the base."""
        return self.applied - self._base.position

    # -- changes -----------------------------------------------------------------------------------------------

    def apply(self, batch: log_pb2.LogBatch) -> None:
        """Apply a log object.

        Records at or below ``applied`` are skipped, so applying twice changes nothing more.

        Raises:
            CorruptDataError: another shard's log, or a gap before the batch. Nothing was applied.
        """
        with self._lock:
            if (batch.generation, batch.shard) != (self.generation, self.number):
                raise CorruptDataError(
                    "a change-log object of another shard",
                    remedy="report it: a log was mixed up",
                    generation=batch.generation,
                    shard=batch.shard,
                    expected=f"{self.generation}/{self.number}",
                )
            if batch.first_position > self.applied + 1:
                raise CorruptDataError(
                    "the change log has a gap",
                    remedy="read the log again from the position after the one applied",
                    shard=self.number,
                    applied=self.applied,
                    next=batch.first_position,
                )
            records = batch.records
            seen = {
                record.request_id: position
                for position, record in enumerate(records, batch.first_position)
                if record.request_id
            }
            known = max(0, self.applied + 1 - batch.first_position)
            if known < len(records):
                change = Change(self._base, self._tail, self._rows, self._digest, self._tally, self._projected)
                change.apply(batch.first_position + known, records[known:] if known else records)
                self.applied = batch.first_position + len(records) - 1
            self._requests.remember(seen)
            self.epoch = max(self.epoch, batch.epoch)
            if batch.source_cursor:
                self._advance(batch)

    def _advance(self, batch: log_pb2.LogBatch) -> None:
        tagged = batch.HasField("source_generation")
        generation = batch.source_generation if tagged else self.spec.made_of
        if generation != self.source_generation:
            if batch.first_position + len(batch.records) - 1 < self.applied:
                return  # a repeat of what was applied before it followed another
            self.source_cursor, self.source_generation = {}, generation
        for source, reached in batch.source_cursor.items():
            self.source_cursor[source] = max(reached, self.source_cursor.get(source, 0))

    def recent_requests(self) -> dict[str, int]:
        """Return the newest request ids -> positions, oldest first: what the next base has to remember."""
        with self._lock:
            return self._requests.recent()

    def position_of(self, request_id: str) -> int | None:
        """Return the position of the last record that the log object first carrying a request holds for it.

        None if the request is not among the last 100,000 applied by this object.
        """
        return self._requests.position_of(request_id)

    def swap_base(self, base: Base) -> None:
        """Put a newer base in place; records after its position stay in the tail.

        Searches and iterators under way keep the old base alive. Takes some microseconds for each record that
        stays.

        Raises:
            PreconditionError: the base is of another shard, ahead of this replica, or behind the base in use.
            CorruptDataError: base and remaining tail do not add up to the present digest. Nothing was changed.
        """
        with self._lock:
            check_fit(base, self.spec, self.number)
            if not self._base.position <= base.position <= self.applied:
                raise PreconditionError(
                    "the new base does not lie between the base in use and the position applied",
                    remedy="fold again from the base in use",
                    base=base.position,
                    current=self._base.position,
                    applied=self.applied,
                )
            tail = self._tail.after(base.position, self.spec)
            rows, digest, tally = overlay(base, tail)
            if digest != self._digest:
                raise CorruptDataError(
                    "the new base is not equal to the state it should replace",
                    remedy="keep the base in use and report it",
                    shard=self.number,
                    buckets=len(digest.differing(self._digest)),
                )
            self._base, self._tail, self._rows, self._tally = self._tuned(base), tail, rows, tally

    def use_spec(self, spec: Spec) -> None:
        """Put a generation's description in force after its dimensions went from 0 to n.

        Vectors in the tail become searchable; those in the base do with the next fold.
        """
        with self._lock:
            check_fit(self._base, spec, self.number)
            self._tail = self._tail.after(self._base.position, spec)
            self._rows, _, self._tally = overlay(self._base, self._tail)
            self.spec = spec

    def contents(self) -> Contents:
        """Return what a new base of this state would hold."""
        with self._lock:
            return self._contents()

    def _contents(self) -> Contents:
        nouns, verbs = self._tail.nouns.values(), self._tail.verbs.values()
        return Contents(
            base=self._base,
            rows=np.flatnonzero(~self._rows.dead).tolist(),
            nouns=[(state.noun, state.hash) for state in nouns if state.noun is not None],
            verb_rows=np.flatnonzero(~self._rows.dead_verbs).tolist(),
            verbs=[(state.verb, state.hash) for state in verbs if state.verb is not None],
        )

    # -- search ------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        exact: bool = False,
        include_soft_deleted: bool = False,
    ) -> Hits:
        """Find the ``k`` nearest nouns of each query.

        Args:
            queries: n x dimensions, finite, not zero where the metric is cos (checked upstream).
            k: hits per query, at least 1.
            exact: scan everything; the true nearest, ties by id.
            include_soft_deleted: also return nouns that carry Brainy's soft-delete marker.

        Returns:
            Hits; fewer than k for a query only if fewer nouns are searchable.

        Raises:
            InvalidRequestError: the queries have other dimensions than the generation (INVALID_DIMENSION).
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if not self.spec.dimensions:
            return Hits.none(len(queries))
        if queries.ndim != 2 or queries.shape[1] != self.spec.dimensions:
            raise InvalidRequestError(
                "the query has other dimensions than the namespace",
                reason="INVALID_DIMENSION",
                remedy=f"send vectors of {self.spec.dimensions} components",
                expected=self.spec.dimensions,
                got=queries.shape[-1],
            )
        with self._lock:
            before = _reads_from_disk()
            hits = self._search(queries, k, exact, include_soft_deleted)
            self.searches += 1
            self.searches_from_disk += _reads_from_disk() > before
            return hits

    def _search(self, queries: npt.NDArray[np.float32], k: int, exact: bool, soft: bool) -> Hits:
        base, tail, state = self._base, self._tail, self._rows
        query, rows, distances = search_base(
            base,
            queries,
            k,
            hidden=state.dead if soft else state.hidden,
            hidden_count=state.dead_indexed if soft else state.hidden_indexed,
            exact=exact,
            threads=self._threads,
        )
        ids = base.ids.texts(rows.tolist())
        owners: list[Noun] = []
        if tail.vectors:
            bounds = tail_bounds(query, distances, len(queries), k)
            found = tail.search(queries, k, include_soft_deleted=soft, bounds=bounds)
            owners = [tail.owner(slot) for slot in found.slots.tolist()]
            if owners:
                ids += [noun.id for noun in owners]
                query = np.concatenate([query, found.query])
                distances = np.concatenate([distances, found.distances])
                rows = np.concatenate([rows, -1 - np.arange(len(owners), dtype=np.int64)])
        order, counts = select(query, distances, ids, len(queries), k)
        return Hits(
            counts=counts,
            ids=[ids[place] for place in order.tolist()],
            distances=distances[order],
            rows=rows[order],
            origin=(base, owners),
        )

    def metadata_of(self, hits: Hits) -> list[bytes]:
        """Return the metadata of hits of this shard's ``search``, parallel to ``ids``; b"" where none is."""
        if not hits.ids:
            return []
        if not isinstance(hits.origin, tuple):
            raise TypeError("these hits are not from a shard")
        base, owners = hits.origin
        return [(base.metadata(row) if row >= 0 else owners[-1 - row].metadata) or b"" for row in hits.rows.tolist()]

    # -- reads -------------------------------------------------------------------------------------------------

    def get_nouns(self, ids: Sequence[str], *, include_vectors: bool = True) -> list[Noun]:
        """Return the nouns that exist, in the order of ``ids``."""
        with self._lock:
            found: dict[str, Noun] = {}
            elsewhere: list[str] = []
            for item_id in ids:
                state = self._tail.nouns.get(item_id)
                if state is None:
                    elsewhere.append(item_id)
                elif state.noun is not None:
                    found[item_id] = state.noun if include_vectors else bare_noun(state.noun)
            for item_id, row in zip(elsewhere, self._base.rows_of(elsewhere), strict=True):
                if row >= 0:
                    found[item_id] = self._base.noun(row, include_vectors=include_vectors)
        return [found[item_id] for item_id in ids if item_id in found]

    def get_verbs(self, ids: Sequence[str], *, include_vectors: bool = True) -> list[Verb]:
        """Return the verbs that exist, in the order of ``ids``."""
        verbs: list[Verb] = []
        with self._lock:
            for item_id in ids:
                state = self._tail.verbs.get(item_id)
                if state is not None:
                    if state.verb is not None:
                        verbs.append(state.verb if include_vectors else bare_verb(state.verb))
                    continue
                row = self._base.verb_row_of(item_id)
                if row is not None:
                    verbs.append(self._base.verb(row, include_vectors=include_vectors))
        return verbs

    def ids_where(
        self, chosen: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]
    ) -> tuple[list[str], list[str]]:
        """Return the ids of the nouns and of the verbs alive whose hashes (``key_hash``) are chosen.

        ``chosen`` gets arrays of hashes, those of the base sorted, and says yes or no of each.
        """
        with self._lock:
            base, rows = self._base, self._rows
            dead, dead_verbs = rows.dead.copy(), rows.dead_verbs.copy()
            newer = [item_id for item_id, state in self._tail.nouns.items() if state.noun is not None]
            newer_verbs = [item_id for item_id, kept in self._tail.verbs.items() if kept.verb is not None]
        nouns = [base.ids.text(row) for row in base.noun_rows_where(chosen) if not dead[row]]
        verbs = [base.verb_ids.text(row) for row in base.verb_rows_where(chosen) if not dead_verbs[row]]
        return nouns + _chosen(newer, chosen), verbs + _chosen(newer_verbs, chosen)

    def digest_in_place(self, record: log_pb2.LogRecord) -> bytes:
        """Return the digest of the item that a record would replace; b"" for none."""
        with self._lock:
            if record.HasField("upsert_noun"):
                noun = self._tail.nouns.get(record.upsert_noun.id)
                if noun is not None:
                    return noun.hash
                row = self._base.row_of(record.upsert_noun.id)
                return b"" if row is None else self._base.noun_hash(row)
            if record.HasField("upsert_verb"):
                verb = self._tail.verbs.get(record.upsert_verb.id)
                if verb is not None:
                    return verb.hash
                row = self._base.verb_row_of(record.upsert_verb.id)
                return b"" if row is None else self._base.verb_hash(row)
        return b""

    def find_verbs(
        self,
        source_id: str | None,
        target_id: str | None,
        kind: str | None,
        *,
        include_vectors: bool = True,
    ) -> Iterator[list[Verb]]:
        """Return batches of the verbs with a source, a target and a type (kind); None matches all."""
        with self._lock:
            base, dead = self._base, self._rows.dead_verbs.copy()
            newer = list(self._tail.verbs_matching(source_id, target_id, kind))

        def batches() -> Iterator[list[Verb]]:
            for rows in base.verb_rows_matching(source_id, target_id, kind):
                alive = [row for row in rows if not dead[row]]
                for part in _parts(alive):
                    yield [base.verb(row, include_vectors=include_vectors) for row in part]
            for verbs in _parts(newer):
                yield list(verbs) if include_vectors else [bare_verb(verb) for verb in verbs]

        return batches()

    def scan_nouns(self, *, include_vectors: bool = True, include_soft_deleted: bool = True) -> Iterator[list[Noun]]:
        """Return batches of every noun, in no particular order."""
        with self._lock:
            base = self._base
            gone = (self._rows.dead if include_soft_deleted else self._rows.hidden).copy()
            newer = [
                state.noun
                for state in self._tail.nouns.values()
                if state.noun is not None and (include_soft_deleted or not state.facts.soft_deleted)
            ]

        def batches() -> Iterator[list[Noun]]:
            for rows in _parts(np.flatnonzero(~gone).tolist()):
                yield [base.noun(row, include_vectors=include_vectors) for row in rows]
            for nouns in _parts(newer):
                yield list(nouns) if include_vectors else [bare_noun(noun) for noun in nouns]

        return batches()

    def statistics(self) -> ShardStatistics:
        """Return the figures at ``applied``."""
        with self._lock:
            return self._tally.statistics(quarantined=len(self._base.quarantined()))

    def digest(self) -> MultisetDigest:
        """Return a copy of the multiset digest at ``applied``."""
        with self._lock:
            return self._digest.copy()

    def project(self, projection: Projection | None) -> Iterator[int]:
        """Begin to keep the digest under a projection, in place of another; None ends it.

        Returns:
            What counts the items that are there, a block at each step; it may run in any thread, beside everything.
        """
        with self._lock:
            self._projected = None if projection is None else ProjectedDigest(projection)
            return iter(()) if self._projected is None else self._projected.count(self._contents())

    def projected(self) -> tuple[Projection, MultisetDigest | None, int] | None:
        """Return what is projected, its digest (None until it is counted) and the position it speaks for."""
        with self._lock:
            kept = self._projected
            if kept is None:
                return None
            return kept.projection, kept.total() if kept.ready else None, self.applied

    def vector_bounds(self) -> VectorBounds:
        """Return how many vectors are searchable, and how large they are."""
        with self._lock:
            base, alive, newer = self._base, self._base.indexed & ~self._rows.dead, self._tail.searchable()
        return bounds_of(base, alive, newer)

    def unindexed(self) -> list[tuple[str, str]]:
        """Return (id, reason) of the nouns that are stored but not searchable."""
        with self._lock:
            listed = list(self._base.unindexed(self._rows.dead))
            listed += [
                (item_id, state.unindexed.value)
                for item_id, state in self._tail.nouns.items()
                if state.unindexed is not None
            ]
        return listed

    def quarantined(self) -> list[Quarantined]:
        """Return the source objects that could not be read."""
        return self._base.quarantined()


def _chosen(ids: list[str], chosen: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]) -> list[str]:
    hashes = np.fromiter(map(key_hash, ids), np.uint64, len(ids))
    return [ids[place] for place in np.flatnonzero(chosen(hashes)).tolist()]


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _SCAN_BATCH):
        yield items[start : start + _SCAN_BATCH]
