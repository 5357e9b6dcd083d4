"""One namespace on this node: the routing record in force and the replicas it asks for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import control_pb2, copy_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.namespace import Namespace
from brainy.bucket.origin import ELSEWHERE
from brainy.bucket.records import Routing, Spec
from brainy.changelog.batch import Slot
from brainy.clock import Clock, Deadline
from brainy.config.settings import Settings
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import BrainyError, UnavailableError
from brainy.ids import Ids
from brainy.legacy.dialect.dialects import DIALECTS, Dialect
from brainy.rpc.channel import ChannelPool
from brainy.store.metered import MeteredStore
from brainy.telemetry.logs import get_logger
from brainy_node.builder.client import BuilderClient
from brainy_node.following.figures import following_message
from brainy_node.following.follower import Follower
from brainy_node.runtime.assignment import assignments
from brainy_node.runtime.bases import BaseSupply
from brainy_node.runtime.copy_throttle import CopyThrottle
from brainy_node.runtime.foreground import Foreground
from brainy_node.runtime.held_vectors import HeldVectors
from brainy_node.runtime.host import Host
from brainy_node.runtime.hosted_shard import HostedShard
from brainy_node.runtime.mirroring import Mirroring
from brainy_node.runtime.moves import refuse_arriving, refuse_moved
from brainy_node.runtime.ownership import owned_now
from brainy_node.runtime.pinning import pin
from brainy_node.runtime.routing_view import RoutingView
from brainy_node.runtime.specs import Specs
from brainy_node.shard.shard import Shard

_log = get_logger(__name__)
#: A replica that the routing record no longer asks for serves this long, for calls routed before the change.
_LINGER_SECONDS = 5.0
_FOLD_CHECK_SECONDS = 1.0
#: A write waits this long for an owner that is just taking over, before its caller is sent back to ask again.
_TAKEOVER_SECONDS = 2.0


class HostedNamespace:
    """Keeps the replicas of one namespace in line with its routing record (``NamespaceRuntime``)."""

    def __init__(
        self,
        namespace: Namespace,
        *,
        store: MeteredStore,
        settings: Settings,
        node_id: str,
        incarnation: str,
        data_dir: Path,
        builder: BuilderClient,
        peers: ChannelPool,
        clock: Clock,
        ids: Ids,
        foreground: Foreground | None = None,
    ) -> None:
        self.name = str(namespace)
        self.node_id = node_id
        self._store = store
        self._builder = builder
        self._settings = settings.node
        self._clock = clock
        self._builder = builder
        self._view = RoutingView(store, lambda routing: self._routing_changed.set())
        self._routing_changed = asyncio.Event()
        self._specs = Specs(store, clock=clock, recheck_seconds=settings.node.routing_poll_seconds)
        self._shards: dict[tuple[int, int], HostedShard] = {}
        self._leaving: dict[tuple[int, int], float] = {}
        self._waiting_writes = 0
        self._reconciling = asyncio.Lock()
        self._throttle = CopyThrottle(
            foreground=foreground or Foreground(clock),
            store_repeats=lambda: store.repeats,
            floor=settings.node.copy_floor_items_per_second,
            clock=clock,
        )
        self._supply = BaseSupply(
            namespace=self.name,
            settings=settings,
            node_id=node_id,
            incarnation=incarnation,
            data_dir=data_dir,
            builder=builder,
            throttle=self._throttle,
        )
        self._elsewhere = Elsewhere(settings.store, clock=clock, ids=ids)
        self._host = Host(
            namespace=self.name,
            node_id=node_id,
            incarnation=incarnation,
            store=store,
            supply=self._supply,
            throttle=self._throttle,
            view=self._view,
            peers=peers,
            clock=clock,
            ids=ids,
            settings=settings.node,
            spec=self.spec,
            embedding=settings.embedding,
            elsewhere=self._elsewhere,
            context=copy_context(),
        )
        #: What the coordinator asks of vectors, and of items without them.
        self.vectors = HeldVectors(self._owned, self.shard)
        #: Takes over what Brainy processes write into the tree, where that is chosen.
        self.follower = Follower(
            store,
            lambda: owned_now(self._host, self._shards.values(), self.ensure_dimensions),
            read_spec=self.spec,
            settings=settings.node,
            clock=clock,
            ids=ids,
        )
        #: Writes our commits back into the tree, where that is chosen; the follower does not take those for foreign.
        self._mirroring = Mirroring(self._host, seen=self.follower.watch, chosen=self._dialect)

    # --- loops ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll the routing record, reconcile, fold, mirror; until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll())
                group.create_task(self._reconcile())
                group.create_task(self._fold())
                group.create_task(self._collect())
                group.create_task(self.follower.run())
                group.create_task(self._mirroring.run(self._shards.values))
        finally:
            self.vectors.close()
            await asyncio.gather(*(hosted.close() for hosted in self._shards.values()))
            await self._supply.close()
            await self._elsewhere.close()
            await self._store.close()

    async def _poll(self) -> None:
        while True:
            try:
                await self._view.refresh()
            except BrainyError as error:
                _log.warning("routing_unreadable", namespace=self.name, cause=str(error))
            wait = 0.25 if self._view.known is None else self._settings.routing_poll_seconds
            await self._clock.sleep(wait)

    async def _reconcile(self) -> None:
        while True:
            self._routing_changed.clear()
            routing = self._view.known
            if routing is not None:
                await self._follow_routing()
            timeout = 1.0 if self._leaving else 60.0
            try:
                async with asyncio.timeout(timeout):
                    await self._routing_changed.wait()
            except TimeoutError:
                continue

    async def _follow_routing(self) -> None:
        async with self._reconciling:
            await self._reconcile_with(self._view.current)

    async def _reconcile_with(self, routing: Routing) -> None:
        wanted = assignments(routing, self.node_id)
        now = self._clock.monotonic()
        for key, assignment in wanted.items():
            self._leaving.pop(key, None)
            hosted = self._shards.get(key)
            if hosted is None:
                hosted = self._shards[key] = HostedShard(self._host, assignment)
                hosted.start()
            elif hosted.assignment != assignment:
                await hosted.assign(assignment)
            if key[0] == routing.write and routing.phase == "serving":
                hosted.resume()
        if routing.migration is None:
            self.vectors.let_go(hosted.shard for hosted in self._shards.values() if hosted.shard is not None)
        for key in list(self._shards.keys() - wanted.keys()):
            since = self._leaving.setdefault(key, now)
            if now - since >= _LINGER_SECONDS:
                await self._shards.pop(key).close()
                del self._leaving[key]

    async def _fold(self) -> None:
        while True:
            await self._clock.sleep(_FOLD_CHECK_SECONDS)
            for hosted in list(self._shards.values()):
                if self.follower.choice.follow:
                    await pin(self._host, hosted)
                await hosted.fold_if_due()

    async def _collect(self) -> None:
        while True:
            await self._clock.sleep(self._settings.log_collection_seconds)
            for hosted in list(self._shards.values()):
                await hosted.collect_log()

    async def _dialect(self) -> Dialect | None:
        return DIALECTS.get(self.follower.choice.mirror)

    # --- what the front door asks ---------------------------------------------------------------

    @property
    def placed(self) -> Collection[int]:
        """Generations that are placed; none before a routing record was read."""
        known = self._view.known
        return known.generations.keys() if known is not None else ()

    @property
    def routing(self) -> Routing:
        """The routing record in force."""
        return self._view.current

    @property
    def metrics(self) -> Mapping[str, int]:
        """Store calls since the start, by kind; those of the builder's processes included."""
        return Counter(self._store.calls) + self._builder.store_calls[self.name]

    async def spec(self, generation: int) -> Spec:
        """Description of a generation.

        Raises:
            CorruptDataError: it is gone or damaged.
        """
        return await self._specs.spec(generation)

    async def embedding(self, generation: int) -> EmbeddingIdentity | None:
        """What a generation's texts were embedded with; None while nobody wrote any."""
        return await self._specs.embedding(generation)

    async def ensure_dimensions(self, dimensions: int) -> Spec:
        """Return the write generation's spec; the first vector of an empty namespace decides its dimensions."""
        refuse_arriving(self.routing)
        return await self._specs.ensure_dimensions(self.routing.write, dimensions)

    async def ensure_embedding(self, embedding: EmbeddingIdentity) -> EmbeddingIdentity:
        """Return what the write generation's texts are embedded with; the first embedded write decides."""
        refuse_arriving(self.routing)
        return await self._specs.ensure_embedding(self.routing.write, embedding)

    def hosted(self, generation: int, shard: int) -> HostedShard | None:
        """The local replica of a shard, in whatever state."""
        return self._shards.get((generation, shard))

    def shard(self, generation: int, shard: int) -> Shard | None:
        """A local replica that is ready for reads."""
        hosted = self._shards.get((generation, shard))
        return hosted.shard if hosted is not None and hosted.readable else None

    async def refresh(self) -> None:
        """Re-read the routing record now."""
        await self._view.refresh()

    def order_copies(self, orders: Sequence[copy_pb2.CopyOrder]) -> None:
        """Take the coordinator's word on how fast to copy."""
        self._throttle.order(order for order in orders if order.namespace == self.name)

    async def refresh_to(self, epoch: int) -> None:
        """Re-read the routing record unless ``epoch`` is in force already."""
        await self._view.refresh(epoch)

    # --- writes ---------------------------------------------------------------------------------

    async def commit(self, generation: int, shard: int, records: Sequence[log_pb2.LogRecord]) -> int:
        """Commit records to a shard owned here; returns the position of the last one.

        While the namespace drains, the call waits (bounded in number and time) and is then judged by the
        new routing record.

        Raises:
            UnavailableError: NOT_OWNER, STALE_ROUTING, SHARD_NOT_READY or BUFFER_FULL; nothing was written.
            FencedError: a newer owner exists.
        """
        while True:
            await self._await_serving()
            refuse_moved(self.routing)
            refuse_arriving(self.routing)
            if generation != self.routing.write:
                raise UnavailableError(
                    "another generation accepts writes now",
                    reason="STALE_ROUTING",
                    remedy="re-read the routing record and retry",
                    write=self.routing.write,
                )
            hosted = self._shards.get((generation, shard))
            if hosted is None:
                raise UnavailableError("this node does not serve the shard", reason="NOT_OWNER", shard=shard)
            await hosted.settle_dimensions()
            commits = await hosted.writable(_TAKEOVER_SECONDS)
            # A shard that was just taken over knows nothing of a drain or a switch that came while it was waited for.
            if not self._drains and generation == self.routing.write:
                break
        written_at = Timestamp()
        written_at.FromNanoseconds(int(self._clock.wall() * 1e9))
        for record in records:
            record.written_at.CopyFrom(written_at)
        return await commits.commit(records)

    @property
    def _drains(self) -> bool:
        return self.routing.phase == "draining"

    async def _await_serving(self) -> None:
        if not self._drains:
            return
        if self._waiting_writes >= self._settings.write_buffer_requests:
            raise UnavailableError(
                "too many writes wait for the cut-over", reason="BUFFER_FULL", remedy="back off and retry"
            )
        self._waiting_writes += 1
        deadline = Deadline.after(self._clock, self._settings.write_buffer_seconds)
        try:
            while self._drains:
                refuse_moved(self.routing)
                if deadline.passed:
                    raise UnavailableError(
                        "the cut-over takes longer than writes may wait",
                        reason="DRAINING",
                        remedy="retry with the same request_id; nothing was written",
                    )
                if not await self._view.wait_newer(self.routing.epoch, min(0.5, deadline.remaining())):
                    await self._view.refresh()
        finally:
            self._waiting_writes -= 1

    def follow_log(self, generation: int, shard: int, from_position: int) -> AsyncIterator[Slot]:
        """Stream the slots of a shard owned here."""
        hosted = self._shards.get((generation, shard))
        if hosted is None:
            raise UnavailableError("this node does not serve the shard", reason="NOT_OWNER", shard=shard)
        return hosted.follow(from_position)

    # --- consistency ----------------------------------------------------------------------------

    async def wait_applied(
        self,
        generation: int,
        shard: int,
        session: Sequence[common_pb2.Position],
        deadline: Deadline,
        *,
        besides: bool = False,
    ) -> None:
        """Wait until a local replica includes the session's writes.

        Raises:
            UnavailableError: it did not get there in time (SHARD_NOT_READY): ask the owner; or another generation is
                to be read by now (STALE_ROUTING), unless this one is only asked ``besides`` that one.
        """
        hosted = self._shards.get((generation, shard))
        if not besides and any(token.generation > generation for token in session):
            # Of a generation that was rolled back from, unless that one has become active again meanwhile.
            await self._check_still_read(generation, session, hosted)
        while hosted is not None and hosted.shard is not None:
            if includes(hosted.shard, session):
                return
            if deadline.passed or not await hosted.wait_progress(deadline.remaining()):
                break
        raise UnavailableError(
            "this replica does not include the session's writes yet",
            reason="SHARD_NOT_READY",
            remedy="ask the owner of the shard",
            shard=shard,
        )

    async def _check_still_read(
        self, generation: int, session: Sequence[common_pb2.Position], hosted: HostedShard | None
    ) -> None:
        replica = hosted.shard if hosted is not None else None
        if replica is None or includes(replica, session):
            return
        await self._view.refresh()
        if self.routing.read_generation(self.node_id) != generation:
            raise UnavailableError(
                "another generation is read now",
                reason="STALE_ROUTING",
                remedy="read the routing record again and retry",
                generation=generation,
            )

    # --- control --------------------------------------------------------------------------------

    async def apply_routing(self, epoch: int) -> Sequence[common_pb2.Position]:
        """Put the record of at least ``epoch`` in force; while it drains, end all writes first.

        Returns:
            The final positions of the owned shards of the write generation, if the record drains.

        Raises:
            UnavailableError: an owned shard cannot say its final position yet (SHARD_NOT_READY).
        """
        await self._view.refresh(epoch)
        routing = self.routing
        if routing.epoch < epoch:
            raise UnavailableError("the named epoch is not in the bucket", reason="STALE_ROUTING", epoch=epoch)
        await self._follow_routing()
        positions: list[common_pb2.Position] = []
        for (generation, number), hosted in list(self._shards.items()):
            if routing.phase != "draining" or generation != routing.write or not hosted.assignment.is_owner:
                continue
            if (generation, number) in self._leaving:
                continue  # no longer ours: its owner of today answers for it
            position = await hosted.commits().drain()
            if self.routing.epoch != routing.epoch:
                # The drain is over already. A shard paused by this late barrier would stay paused.
                if self.routing.phase == "serving":
                    hosted.resume()
                raise UnavailableError("a newer routing record is in force", reason="STALE_ROUTING", epoch=epoch)
            positions.append(common_pb2.Position(generation=generation, shard=number, position=position))
        return positions

    def replicas(self) -> list[control_pb2.ShardReplica]:
        """State of every replica here."""
        replicas = []
        for (generation, number), hosted in self._shards.items():
            replica = hosted.report()
            if (figures := self.follower.figures(generation, number)) is not None:
                replica.following.CopyFrom(following_message(figures, self._clock.monotonic()))
            replicas.append(replica)
        return replicas

    async def digest(
        self, generation: int, shards: Sequence[int]
    ) -> tuple[MultisetDigest, int, int, list[common_pb2.Position]]:
        """Sum of the digests of owned shards, with noun and verb counts and the positions they speak for."""
        total, nouns, verbs = MultisetDigest(), 0, 0
        positions: list[common_pb2.Position] = []
        for number in shards:
            shard = self._owned(generation, number)
            if shard is None:
                raise UnavailableError("this node does not own the shard", reason="NOT_OWNER", shard=number)
            total.merge(shard.digest())
            statistics = shard.statistics()
            nouns += statistics.nouns
            verbs += statistics.verbs
            positions.append(common_pb2.Position(generation=generation, shard=number, position=shard.applied))
        return total, nouns, verbs, positions

    def _owned(self, generation: int, shard: int) -> Shard | None:
        hosted = self._shards.get((generation, shard))
        return hosted.shard if hosted is not None and hosted.assignment.is_owner and hosted.readable else None

    @property
    def ready(self) -> bool:
        """Whether every replica this node should serve reads from answers.

        One that is damaged in the bucket does not hold the node back: it says so in its report, the others serve.
        """
        routing = self._view.known
        if routing is None:
            return False
        generation = routing.read_generation(self.node_id)
        wanted = [key for key in assignments(routing, self.node_id) if key[0] == generation]
        return all(
            (hosted := self._shards.get(key)) is not None and (hosted.readable or hosted.hopeless) for key in wanted
        )


def includes(replica: Shard, session: Sequence[common_pb2.Position]) -> bool:
    """Whether a replica has what a session has seen.

    A generation's cursor names the shards of the generation it follows or followed last, from the fill or from the
    begin of following on, and stays when that ends. What lies further back than the followed one was included before
    that one began to serve; what is newer and was not followed later is not.
    """
    # What came from elsewhere is of no generation that a session could name.
    followed = None if replica.source_generation == ELSEWHERE else replica.source_generation
    for token in session:
        if token.generation == replica.generation:
            if token.shard == replica.number and replica.applied < token.position:
                return False
        elif token.generation == followed:
            if replica.source_cursor.get(token.shard, token.position) < token.position:
                return False
        elif token.generation > replica.generation and (followed is None or followed < token.generation):
            return False
    return True
