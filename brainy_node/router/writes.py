"""Writes: from validated items to durable records at the owners of their shards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import shard_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.embedding import EmbeddingIdentity, check_same_model
from brainy.bucket.partition import shard_of
from brainy.bucket.records import Routing
from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError, FencedError, OutcomeUnknownError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.channel import call
from brainy.telemetry.logs import get_logger
from brainy_node.router.admitted import Admitted
from brainy_node.router.peers import Peers
from brainy_node.router.served import ServedBook
from brainy_node.router.sessions import stale
from brainy_node.router.validation import (
    check_embedded_length,
    check_expected,
    check_ids,
    check_nouns,
    check_same_dimension,
    check_stored_nouns,
    check_stored_verbs,
    check_verbs,
)
from brainy_node.router.view import RoutingRefresher, header
from brainy_node.runtime.moves import refuse_arriving
from brainy_node.runtime.ports import NamespaceRuntime

_log = get_logger(__name__)

#: How often a forwarded write looks whether its shard has got a new owner.
_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Where the records of a call went."""

    header: common_pb2.ResponseHeader
    #: The last position of each shard that got records.
    positions: list[common_pb2.Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Records of one shard, with their places in the call."""

    generation: int
    shard: int
    places: list[int]


class WriteRouter:
    """Commits records to the owners of their shards.

    Before: every item of the call is valid (``upsert_nouns`` and the like refuse all of them if one is not).
    Steps: (1) record i gets the request id ``<request_id>/<i>``; (2) records are grouped by shard of the write
    generation; (3) each group is committed here, if this node owns the shard, or forwarded to its owner, all
    groups at once; (4) groups that were refused because the owner is another one, is not ready, drains, was
    fenced or cannot be reached are sent again, with the same ids, after the routing record was read again and a
    pause, until the deadline.
    After: every record is durable; records of one shard became visible together, in the order of the call.
    If it fails between: the records of some shards may be written (``data_safe`` False says so); repeating the
    call with the same request_id completes it, and nothing is written twice.
    Cancel safety: as a failure.
    """

    def __init__(
        self,
        peers: Peers,
        refresher: RoutingRefresher,
        served: ServedBook,
        *,
        clock: Clock,
        ids: Ids,
        max_batch: int,
    ) -> None:
        self._peers = peers
        self._served = served
        self._refresher = refresher
        self._clock = clock
        self._ids = ids
        self._max_batch = max_batch

    async def upsert_nouns(
        self,
        runtime: NamespaceRuntime,
        nouns: Sequence[common_pb2.Noun],
        request_id: str,
        deadline: Deadline,
        *,
        embedding: EmbeddingIdentity | None = None,
        expected: Sequence[bytes] = (),
    ) -> Written:
        """Insert or replace nouns.

        Args:
            runtime: of the namespace.
            nouns: what to write.
            request_id: makes a repeat recognisable; made up if it is empty.
            deadline: of the whole call.
            embedding: what made the vectors out of texts, if something did.
            expected: digest of the item that must be in place for each (b"" for none), or nothing at all; one that
                finds another item in place is left out.

        Raises:
            InvalidRequestError: an item is wrong; names its index. Nothing was written.
            EmbeddingMismatchError: the namespace's texts were embedded with another model. Nothing was written.
            UnavailableError: not now; repeat with the same request_id.
            OutcomeUnknownError: the deadline passed while an answer was awaited; likewise.
        """
        spec = await runtime.spec(runtime.routing.write)
        if embedding is not None:
            check_same_model(embedding, await runtime.embedding(spec.generation))
        stored, dimensions = check_nouns(nouns, spec, self._max_batch)
        check_expected(expected, len(stored))
        if stored and not spec.dimensions:
            check_same_dimension(dimensions, await runtime.ensure_dimensions(dimensions))
        if stored and embedding is not None:
            check_embedded_length(embedding, dimensions)
            check_same_model(embedding, await runtime.ensure_embedding(embedding))
        records = _expecting([log_pb2.LogRecord(upsert_noun=noun) for noun in stored], expected)
        door = Admitted(generation=spec.generation, dimensions=dimensions, embedding=embedding)
        return await self._commit(runtime, [noun.id for noun in stored], records, request_id, deadline, door)

    async def put_back_nouns(
        self,
        runtime: NamespaceRuntime,
        nouns: Sequence[common_pb2.Noun],
        dimensions: int,
        request_id: str,
        deadline: Deadline,
        *,
        expected: Sequence[bytes] = (),
    ) -> Written:
        """Insert or replace nouns exactly as a namespace of ``dimensions`` (0: unknown) held them.

        Raises:
            InvalidRequestError: as ``upsert_nouns``; what cannot be indexed is no error.
            UnavailableError: as ``upsert_nouns``.
            OutcomeUnknownError: as ``upsert_nouns``.
        """
        spec = await runtime.spec(runtime.routing.write)
        check_stored_nouns(nouns, self._max_batch)
        check_expected(expected, len(nouns))
        if dimensions:
            check_same_dimension(dimensions, spec if spec.dimensions else await runtime.ensure_dimensions(dimensions))
        records = _expecting([log_pb2.LogRecord(upsert_noun=noun) for noun in nouns], expected)
        return await self._commit(runtime, [noun.id for noun in nouns], records, request_id, deadline)

    async def upsert_verbs(
        self,
        runtime: NamespaceRuntime,
        verbs: Sequence[common_pb2.Verb],
        request_id: str,
        deadline: Deadline,
        *,
        as_stored: bool = False,
        embedding: EmbeddingIdentity | None = None,
        expected: Sequence[bytes] = (),
    ) -> Written:
        """Insert or replace verbs; as ``upsert_nouns``, or with ``as_stored`` as ``put_back_nouns``."""
        door: Admitted | None = None
        if as_stored:
            check_stored_verbs(verbs, self._max_batch)
            stored: Sequence[common_pb2.Verb] = verbs
        else:
            spec = await runtime.spec(runtime.routing.write)
            if embedding is not None:
                check_same_model(embedding, await runtime.embedding(spec.generation))
            stored = check_verbs(verbs, spec, self._max_batch)
            if stored and embedding is not None:
                check_embedded_length(embedding, spec.dimensions or embedding.dimensions)
                check_same_model(embedding, await runtime.ensure_embedding(embedding))
            if any(verb.vector for verb in stored):
                door = Admitted(generation=spec.generation, dimensions=spec.dimensions, embedding=embedding)
        check_expected(expected, len(stored))
        records = _expecting([log_pb2.LogRecord(upsert_verb=verb) for verb in stored], expected)
        return await self._commit(runtime, [verb.id for verb in stored], records, request_id, deadline, door)

    async def delete_nouns(
        self, runtime: NamespaceRuntime, ids: Sequence[str], request_id: str, deadline: Deadline
    ) -> Written:
        """Delete nouns; those that do not exist are no error."""
        check_ids(ids, self._max_batch)
        records = [log_pb2.LogRecord(delete_noun=item_id) for item_id in ids]
        return await self._commit(runtime, ids, records, request_id, deadline)

    async def delete_verbs(
        self, runtime: NamespaceRuntime, ids: Sequence[str], request_id: str, deadline: Deadline
    ) -> Written:
        """Delete verbs; as ``delete_nouns``."""
        check_ids(ids, self._max_batch)
        records = [log_pb2.LogRecord(delete_verb=item_id) for item_id in ids]
        return await self._commit(runtime, ids, records, request_id, deadline)

    async def _commit(
        self,
        runtime: NamespaceRuntime,
        ids: Sequence[str],
        records: Sequence[log_pb2.LogRecord],
        request_id: str,
        deadline: Deadline,
        door: Admitted | None = None,
    ) -> Written:
        with self._served.call(runtime, "writes", deadline):
            return await self._commit_all(runtime, ids, records, request_id, deadline, door)

    async def _commit_all(
        self,
        runtime: NamespaceRuntime,
        ids: Sequence[str],
        records: Sequence[log_pb2.LogRecord],
        request_id: str,
        deadline: Deadline,
        door: Admitted | None,
    ) -> Written:
        refuse_arriving(runtime.routing)
        request_id = request_id or self._ids.uuid()
        for index, record in enumerate(records):
            record.request_id = f"{request_id}/{index}"
        positions: dict[tuple[int, int], int] = {}
        pending: list[int] = list(range(len(records)))
        unknown = False
        attempt = 0
        while pending:
            groups = self._group(runtime.routing, ids, pending)
            if door is not None and groups[0].generation != door.generation:
                # It waited while the namespace switched: what was let in for one generation may be wrong for the next.
                try:
                    door = await door.again(runtime, groups[0].generation)
                except BrainyError as error:
                    raise _partly(error, len(records) - len(pending)) from None
            outcomes = await self._send_all(runtime, groups, records, deadline)
            pending = []
            retry: BrainyError | None = None
            final: BrainyError | None = None
            for group, outcome in zip(groups, outcomes, strict=True):
                if isinstance(outcome, int):
                    key = (group.generation, group.shard)
                    positions[key] = max(outcome, positions.get(key, 0))
                    continue
                unknown = unknown or outcome.reason == "OUTCOME_UNKNOWN"
                pending.extend(group.places)
                if _again(outcome):
                    retry = outcome
                else:
                    final = outcome
            if final is not None:
                raise _partly(final, len(records) - len(pending))
            if retry is None:
                break
            pending.sort()
            if deadline.passed:
                raise _expired(retry, request_id, unknown, len(records) - len(pending))
            _log.info("write_retried", reason=retry.reason, records=len(pending), attempt=attempt)
            if attempt:
                await self._refresher.pause(attempt, deadline)
            await self._refresher.refresh(runtime)
            attempt += 1
        routing = runtime.routing
        generation = max((g for g, _ in positions), default=routing.write)
        return Written(header=header(runtime.node_id, routing, generation), positions=position_messages(positions))

    def _group(self, routing: Routing, ids: Sequence[str], places: Sequence[int]) -> list[_Group]:
        placement = routing.generations.get(routing.write)
        count = placement.shard_count if placement else 1
        groups: dict[int, list[int]] = {}
        for place in places:
            groups.setdefault(shard_of(ids[place], count), []).append(place)
        return [_Group(generation=routing.write, shard=shard, places=found) for shard, found in groups.items()]

    async def _send_all(
        self,
        runtime: NamespaceRuntime,
        groups: Sequence[_Group],
        records: Sequence[log_pb2.LogRecord],
        deadline: Deadline,
    ) -> Sequence[int | BrainyError]:
        if len(groups) == 1:
            return [await self._send(runtime, groups[0], records, deadline)]
        async with asyncio.TaskGroup() as scope:
            tasks = [scope.create_task(self._send(runtime, group, records, deadline)) for group in groups]
        return [task.result() for task in tasks]

    async def _send(
        self,
        runtime: NamespaceRuntime,
        group: _Group,
        records: Sequence[log_pb2.LogRecord],
        deadline: Deadline,
    ) -> int | BrainyError:
        """Return the group's last position, or what went wrong."""
        own = [records[place] for place in group.places]
        try:
            owner = _owner(runtime.routing, group)
            if owner == runtime.node_id:
                async with asyncio.timeout(deadline.remaining()):
                    return await runtime.commit(group.generation, group.shard, own)
            return await self._forward(runtime, group, owner, own, deadline)
        except TimeoutError:
            return UnavailableError(
                "the write did not become durable in time",
                remedy="repeat the call with the same request_id",
                reason="OUTCOME_UNKNOWN",
                data_safe=False,
            )
        except BrainyError as error:
            return error

    async def _forward(
        self,
        runtime: NamespaceRuntime,
        group: _Group,
        owner: str,
        records: Sequence[log_pb2.LogRecord],
        deadline: Deadline,
    ) -> int:
        """Ask the owner; give up on it as soon as the record names another one."""
        routing = runtime.routing
        epoch = routing.generations[group.generation].shards[group.shard].epoch
        request = shard_pb2.CommitRecordsRequest(
            namespace=runtime.name, generation=group.generation, shard=group.shard, records=records
        )
        stub = self._peers.stub(routing, owner)
        task = asyncio.create_task(call(stub.CommitRecords, request, deadline=deadline, write=True))
        try:
            while True:
                done, _ = await asyncio.wait((task,), timeout=_WATCH_SECONDS)
                if done:
                    return task.result().position
                placement = runtime.routing.generations.get(group.generation)
                placed = placement.shards.get(group.shard) if placement else None
                if placed is None or placed.epoch != epoch:
                    raise UnavailableError(
                        "the shard has got a new owner while the old one was asked",
                        remedy="repeat the call with the same request_id",
                        reason="OUTCOME_UNKNOWN",
                        data_safe=False,
                        owner=owner,
                        shard=group.shard,
                    )
        finally:
            task.cancel()


def position_messages(positions: Mapping[tuple[int, int], int]) -> list[common_pb2.Position]:
    """Build the session tokens of (generation, shard) -> position."""
    return [
        common_pb2.Position(generation=generation, shard=shard, position=position)
        for (generation, shard), position in sorted(positions.items())
    ]


def _expecting(records: list[log_pb2.LogRecord], expected: Sequence[bytes]) -> list[log_pb2.LogRecord]:
    if expected:
        for record, digest in zip(records, expected, strict=True):
            record.expected = digest
    return records


def _owner(routing: Routing, group: _Group) -> str:
    placement = routing.generations.get(group.generation)
    placed = placement.shards.get(group.shard) if placement else None
    if placed is None:
        raise stale(routing, group.generation, f"no owner of shard {group.shard}")
    return placed.owner


def _again(error: BrainyError) -> bool:
    """Say whether the same records may be sent again, to whoever the owner is then."""
    if isinstance(error, FencedError | OutcomeUnknownError):
        return True  # a newer owner exists; or the request ids settle what became of it
    if isinstance(error, UnavailableError):
        return error.reason not in ("BUFFER_FULL", "STORE_UNAVAILABLE")
    return error.reason in ("NOT_OWNER", "STALE_ROUTING", "SHARD_NOT_READY", "UNKNOWN_NAMESPACE")


def _partly(error: BrainyError, written: int) -> BrainyError:
    if written:
        error.data_safe = False
        error.fields["records_written"] = str(written)
    return error


def _expired(last: BrainyError, request_id: str, unknown: bool, written: int) -> BrainyError:
    if not unknown:
        return _partly(last, written)
    return OutcomeUnknownError(
        "the deadline passed before the owner answered",
        remedy="repeat the call with the same request_id: it has one effect however often it is sent",
        data_safe=False,
        request_id=request_id,
        records_written=written,
        cause=last,
    )
