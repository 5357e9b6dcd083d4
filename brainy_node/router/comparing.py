"""Ask two generations the same, and tell what differs from what only came later."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import shard_pb2
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy.traffic.comparison import Comparison, difference
from brainy.traffic.latencies import counted
from brainy_node.router.fan_out import FanOut
from brainy_node.router.held import by_shard
from brainy_node.router.included import ItemsIncluding, ItemsSeen, SearchIncluding, SearchSeen, newest
from brainy_node.router.neighbours import Neighbours, alike, neighbours_of, shared, verdict
from brainy_node.router.reads import ItemsQuestion
from brainy_node.router.search import SearchQuestion
from brainy_node.router.trials import Pair, trial_view
from brainy_node.runtime.ports import NamespaceRuntime
from brainy_node.shard.hits import merge_hits

_log = get_logger(__name__)

_PATIENCE_SECONDS = 5.0
_TRIES = 4
_FIRST_PAUSE_SECONDS = 0.1

#: Kind (noun, verb) and id -> the item as it travels.
Items = Mapping[tuple[str, str], bytes]


class Comparing:
    """Compares what a source and a target that follows it answer, while both are written.

    Source is the generation in service, target the one that follows it: after a switch the migration's source is the
    target here. What binds one side are always positions of the generation in service, which the other knows as its
    cursor.

    Steps: (1) ask both; what is alike is done. (2) For what differs: ask the source, and note which positions its
    replicas included; ask the target, once it includes those, and note which it had reached; ask the source again,
    once it includes these. If the source said the same both times, so should have the target, which saw nothing
    older than the first answer and nothing newer than the second: a difference is one, agreement means that the first
    look only came between. If not, it was written meanwhile: again, after a pause, four times.
    After: every query and item is alike, healed, differing or unsettled; exactly one of them.
    Costs: two calls, and up to twelve more where something differs.
    Cancel safety: nothing is kept.
    """

    def __init__(self, fan_out: FanOut, *, clock: Clock) -> None:
        self._fan_out = fan_out
        self._clock = clock

    # --- searches -------------------------------------------------------------------------------

    async def search(
        self, runtime: NamespaceRuntime, pair: Pair, question: SearchQuestion, *, recall: int = 0
    ) -> Comparison:
        """Compare the neighbours of each query; of the first ``recall`` also with those a scan finds."""
        count = len(question.matrix)
        try:
            source, source_seconds = await self._search(runtime, pair.source, question)
        except BrainyError:
            return Comparison(asked=1, queries_unsettled=count)
        try:
            target, target_seconds = await self._search(runtime, pair.target, question)
        except BrainyError:
            return Comparison(asked=1, failed=1)
        total = Comparison(asked=1, source_latency=counted(source_seconds), target_latency=counted(target_seconds))
        here, there = neighbours_of(source.hits), neighbours_of(target.hits)
        differing = [row for row in range(count) if not alike(here[row], there[row])]
        total += Comparison.total(
            verdict(here[row], there[row]) for row in range(count) if alike(here[row], there[row])
        )
        if differing:
            total += await self._settle_search(runtime, pair, question, differing)
        for row in range(min(recall, count)):
            total += await self._recall(runtime, pair, _some_rows(question, [row]), here[row], there[row])
        return total

    async def _settle_search(
        self, runtime: NamespaceRuntime, pair: Pair, question: SearchQuestion, left: list[int]
    ) -> Comparison:
        total = Comparison()
        for attempt in range(_TRIES):
            if attempt:
                await self._clock.sleep(_FIRST_PAUSE_SECONDS * 2.0**attempt)
            some = _some_rows(question, left)
            try:
                before, _ = await self._search(runtime, pair.source, some)
                target, _ = await self._search(runtime, pair.target, some, newest(before.included, pair.source))
                after, _ = await self._search(runtime, pair.source, some, newest(target.reached, pair.source))
            except BrainyError as error:
                _log.info("comparison_put_off", namespace=runtime.name, reason=error.reason, detail=error.message)
                continue
            moving: list[int] = []
            columns = (neighbours_of(seen.hits) for seen in (before, target, after))
            for row, first, there, last in zip(left, *columns, strict=True):
                if alike(first, there) or alike(last, there):
                    total += verdict(first if alike(first, there) else last, there, healed=True)
                elif alike(first, last):
                    total += verdict(first, there)
                else:
                    moving.append(row)
            left = moving
            if not left:
                break
        return total + Comparison(queries_unsettled=len(left))

    async def _recall(
        self, runtime: NamespaceRuntime, pair: Pair, question: SearchQuestion, here: Neighbours, there: Neighbours
    ) -> Comparison:
        scan = replace(question, exact=True)
        try:
            source, _ = await self._search(runtime, pair.source, scan)
            target, _ = await self._search(runtime, pair.target, scan)
        except BrainyError:
            return Comparison()
        (of_source,), (of_target,) = neighbours_of(source.hits), neighbours_of(target.hits)
        return Comparison(
            recall_queries=1,
            source_found=min(len(of_source), shared(of_source, here)),
            source_exact=len(of_source),
            target_found=min(len(of_target), shared(of_target, there)),
            target_exact=len(of_target),
        )

    async def _search(
        self,
        runtime: NamespaceRuntime,
        generation: int,
        question: SearchQuestion,
        session: Sequence[common_pb2.Position] = (),
    ) -> tuple[SearchSeen, float]:
        started = self._clock.monotonic()
        view = trial_view(runtime, generation)
        asked = SearchIncluding(question=replace(question, include_metadata=False, session=session))
        answer = await self._fan_out.ask(runtime, view, asked, view.shards, self._patience())
        seen = SearchSeen(
            hits=merge_hits([part.hits for part in answer.parts], question.k),
            included=[position for part in answer.parts for position in part.included],
            reached=[position for part in answer.parts for position in part.reached],
        )
        return seen, self._clock.monotonic() - started

    # --- items ----------------------------------------------------------------------------------

    async def items(
        self, runtime: NamespaceRuntime, pair: Pair, ids: Collection[tuple[str, str]], *, include_vectors: bool
    ) -> Comparison:
        """Compare items by (kind, id), kind being noun or verb; one that neither side has is alike."""
        try:
            source, _ = await self._items(runtime, pair.source, ids, include_vectors)
        except BrainyError:
            return Comparison(asked=1, items_unsettled=len(ids))
        try:
            target, _ = await self._items(runtime, pair.target, ids, include_vectors)
        except BrainyError:
            return Comparison(asked=1, failed=1)
        differing = [key for key in ids if source.get(key) != target.get(key)]
        total = Comparison(asked=1, items=len(ids) - len(differing))
        if differing:
            total += await self._settle_items(runtime, pair, differing, include_vectors)
        return total

    async def _settle_items(
        self, runtime: NamespaceRuntime, pair: Pair, left: list[tuple[str, str]], include_vectors: bool
    ) -> Comparison:
        total = Comparison()
        for attempt in range(_TRIES):
            if attempt:
                await self._clock.sleep(_FIRST_PAUSE_SECONDS * 2.0**attempt)
            try:
                before, seen = await self._items(runtime, pair.source, left, include_vectors)
                at_least = newest(seen.included, pair.source)
                target, seen = await self._items(runtime, pair.target, left, include_vectors, at_least)
                at_least = newest(seen.reached, pair.source)
                after, _ = await self._items(runtime, pair.source, left, include_vectors, at_least)
            except BrainyError as error:
                _log.info("comparison_put_off", namespace=runtime.name, reason=error.reason, detail=error.message)
                continue
            moving: list[tuple[str, str]] = []
            for key in left:
                first, there, last = before.get(key), target.get(key), after.get(key)
                if there in (first, last):
                    total += Comparison(items=1, items_healed=1)
                elif first == last:
                    what = (
                        "only on the source" if there is None else "only on the target" if first is None else "differs"
                    )
                    total += Comparison(items=1, items_differing=1, differences=(difference(*key, what),))
                else:
                    moving.append(key)
            left = moving
            if not left:
                break
        return total + Comparison(items_unsettled=len(left))

    async def _items(
        self,
        runtime: NamespaceRuntime,
        generation: int,
        ids: Iterable[tuple[str, str]],
        include_vectors: bool,
        session: Sequence[common_pb2.Position] = (),
    ) -> tuple[Items, ItemsSeen]:
        view = trial_view(runtime, generation)
        count = view.placement.shard_count
        keys = list(ids)
        question = ItemsQuestion(
            nouns=by_shard([item_id for kind, item_id in keys if kind == "noun"], count),
            verbs=by_shard([item_id for kind, item_id in keys if kind == "verb"], count),
            include_vectors=include_vectors,
            session=session,
        )
        shards = question.nouns.keys() | question.verbs.keys()
        asked = ItemsIncluding(question=question)
        answer = await self._fan_out.ask(runtime, view, asked, shards, self._patience())
        found: dict[tuple[str, str], bytes] = {}
        for part in answer.parts:
            for kind, items in (("noun", part.items.nouns), ("verb", part.items.verbs)):
                found |= {(kind, item.id): item.SerializeToString(deterministic=True) for item in items}
        seen = ItemsSeen(
            items=shard_pb2.GetItemsResponse(),
            included=[position for part in answer.parts for position in part.included],
            reached=[position for part in answer.parts for position in part.reached],
        )
        return found, seen

    def _patience(self) -> Deadline:
        return Deadline.after(self._clock, _PATIENCE_SECONDS)


def _some_rows(question: SearchQuestion, rows: Sequence[int]) -> SearchQuestion:
    matrix = np.ascontiguousarray(question.matrix[list(rows)], dtype="<f4")
    return replace(question, matrix=matrix, vectors=matrix.tobytes())
