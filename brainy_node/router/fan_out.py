"""Ask one ready replica of every shard at once, and others when one fails."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from brainy.clock import Clock, Deadline
from brainy.errors import (
    BrainyError,
    CorruptDataError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from brainy.telemetry.logs import get_logger
from brainy_node.router.peers import Peers
from brainy_node.router.placement import Assignment, assign
from brainy_node.router.view import GenerationMovedError, RoutingRefresher, View
from brainy_node.runtime.ports import NamespaceRuntime

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub

_log = get_logger(__name__)

Part = TypeVar("Part")
PartOut = TypeVar("PartOut", covariant=True)

#: A peer that is silent for longer is given up while another replica is left to ask.
ATTEMPT_SECONDS = 5.0

#: Reasons of errors that say "not I": another replica, or the same later, may answer.
ASK_ELSEWHERE = frozenset({"NOT_OWNER", "STALE_ROUTING", "SHARD_NOT_READY", "UNKNOWN_NAMESPACE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Shards of one generation, all held by the one that is asked."""

    namespace: str
    generation: int
    shards: tuple[int, ...]


class Question(Protocol[PartOut]):
    """Something that can be asked of the shards held here and of those held by a peer, with equal answers."""

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> PartOut:
        """Answer from local replicas; UnavailableError (SHARD_NOT_READY) when one is not here."""

    async def remote(self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline) -> PartOut:
        """Ask a peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[Part]):
    """The parts that were answered, and the shards that were not."""

    parts: list[Part]
    missing: tuple[int, ...] = ()


def ask_elsewhere(error: BrainyError) -> bool:
    """Say whether another replica may answer what one could not.

    A corrupt base is one node's: nothing was served from it, and the others have their own copies.
    """
    if isinstance(error, UnavailableError):
        return error.reason != "BUFFER_FULL"
    if isinstance(error, PreconditionError | NotFoundError):
        return error.reason in ASK_ELSEWHERE
    return isinstance(error, CorruptDataError)


class FanOut:
    """Asks questions of a whole generation.

    Before: a view, that is a routing record and the generation it says to read.
    Steps: (1) divide the shards among this process and peers, one call each, all at once; (2) when one fails,
    its shards go to untried replicas at once; (3) when none is left for a shard, read the routing record again,
    pause, and start over with all of that shard's replicas.
    After: one part per call answered; each shard is in exactly one part, or in ``missing``.
    Ends with the first error that another replica cannot help, at the deadline, or, with ``allow_partial``,
    when a shard has no untried replica even after the record was read again. A generation that is only tried is not
    waited for: there it ends with the first shard that has no untried replica.
    Cancel safety: everything asked is cancelled with the caller.
    """

    def __init__(self, peers: Peers, refresher: RoutingRefresher, *, clock: Clock) -> None:
        self._peers = peers
        self._refresher = refresher
        self._clock = clock
        self._rotation = itertools.count()

    async def ask(
        self,
        runtime: NamespaceRuntime,
        view: View,
        question: Question[Part],
        shards: Collection[int],
        deadline: Deadline,
        *,
        allow_partial: bool = False,
    ) -> Answer[Part]:
        """Ask ``question`` of ``shards``.

        Raises:
            GenerationMovedError: the generation is no longer the one to read.
            UnavailableError: the deadline passed; names the shards without an answer.
            BrainyError: what a replica raised and no other can help.
        """
        if not shards:
            return Answer(parts=[])
        attempt = _Attempt(self, runtime, view, question, deadline, allow_partial)
        plan = attempt.plan(shards)
        if not plan.remote and not plan.missing:  # the common case of a small cluster: no task, no wait
            try:
                patience = attempt.patience(runtime.node_id, plan.local)
                return Answer(parts=[await question.local(runtime, attempt.target(plan.local), patience)])
            except BrainyError as error:
                attempt.failed(runtime.node_id, plan.local, error)
                return await attempt.run(plan.local)
        return await attempt.run(shards)


class _Attempt(Generic[Part]):
    """One ``ask`` under way."""

    def __init__(
        self,
        fan_out: FanOut,
        runtime: NamespaceRuntime,
        view: View,
        question: Question[Part],
        deadline: Deadline,
        allow_partial: bool,
    ) -> None:
        self._peers = fan_out._peers
        self._refresher = fan_out._refresher
        self._clock = fan_out._clock
        self._rotation = fan_out._rotation
        self._runtime = runtime
        self._view = view
        self._question = question
        self._deadline = deadline
        self._allow_partial = allow_partial
        self._tried: dict[int, set[str]] = {}
        self._running: dict[asyncio.Task[Part], tuple[str, tuple[int, ...]]] = {}
        self._last_error: BrainyError | None = None
        self._rounds = 0

    def target(self, shards: Sequence[int]) -> Target:
        return Target(namespace=self._runtime.name, generation=self._view.generation, shards=tuple(shards))

    def plan(self, shards: Collection[int]) -> Assignment:
        generation = self._view.generation
        return assign(
            self._view.placement,
            shards,
            node_id=self._runtime.node_id,
            ready={shard for shard in shards if self._runtime.shard(generation, shard) is not None},
            reachable=self._view.routing.nodes,
            tried=self._tried,
            suspects=self._peers.suspects(),
            rotation=next(self._rotation),
        )

    def failed(self, node: str, shards: Sequence[int], error: BaseException) -> None:
        """Note a failure, or raise it if no other replica can help."""
        if not isinstance(error, BrainyError) or not ask_elsewhere(error):
            raise error
        if isinstance(error, CorruptDataError):
            _log.error("replica_corrupt", node=node, shards=list(shards), error=str(error))
        for shard in shards:
            self._tried.setdefault(shard, set()).add(node)
        if node != self._runtime.node_id and error.reason in ("UNAVAILABLE", "OUTCOME_UNKNOWN"):
            self._peers.suspect(node)
        self._last_error = error

    async def run(self, shards: Collection[int]) -> Answer[Part]:
        parts: list[Part] = []
        missing: list[int] = []
        unplaced = tuple(shards)
        try:
            while unplaced or self._running:
                plan = self.plan(unplaced)
                self._start(plan)
                unplaced = plan.missing
                if unplaced:
                    if self._allow_partial and (self._rounds or self._deadline.passed):
                        missing.extend(unplaced)
                        unplaced = ()
                        continue
                    await self._start_over(unplaced)
                    continue
                done, _ = await asyncio.wait(
                    self._running, timeout=self._deadline.remaining(), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    left = [shard for _, asked in self._running.values() for shard in asked]
                    if not self._allow_partial:
                        raise self._no_answer(left)
                    return Answer(parts=parts, missing=tuple(sorted((*missing, *left))))
                for task in done:
                    node, asked = self._running.pop(task)
                    error = task.exception()
                    if error is None:
                        parts.append(task.result())
                    else:
                        self.failed(node, asked, error)
                        unplaced += asked
        finally:
            await self._cancel()
        return Answer(parts=parts, missing=tuple(sorted(missing)))

    def _start(self, plan: Assignment) -> None:
        for node, shards in plan.remote.items():
            self._running[asyncio.create_task(self._ask_peer(node, shards))] = (node, shards)
        if plan.local:
            task = asyncio.create_task(self._ask_here(plan.local))
            self._running[task] = (self._runtime.node_id, plan.local)

    async def _ask_here(self, shards: tuple[int, ...]) -> Part:
        # Two turns of the loop: first the calls to peers go out, then the work here begins.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        patience = self.patience(self._runtime.node_id, shards)
        return await self._question.local(self._runtime, self.target(shards), patience)

    async def _ask_peer(self, node: str, shards: tuple[int, ...]) -> Part:
        stub = self._peers.stub(self._view.routing, node)
        return await self._question.remote(stub, self.target(shards), self.patience(node, shards))

    def patience(self, node: str, shards: tuple[int, ...]) -> Deadline:
        """Return how long a node may take (a peer may hang, a replica here lag), leaving time to ask another."""
        remaining = self._deadline.remaining()
        others = assign(
            self._view.placement,
            shards,
            node_id=self._runtime.node_id,
            ready={shard for shard in shards if self._runtime.shard(self._view.generation, shard) is not None},
            reachable=self._view.routing.nodes,
            tried={shard: {node, *self._tried.get(shard, ())} for shard in shards},
        )
        if not others.missing:
            return Deadline.after(self._clock, min(ATTEMPT_SECONDS, remaining * 0.5))
        if self._allow_partial:
            return Deadline.after(self._clock, remaining * 0.9)
        return self._deadline

    async def _start_over(self, shards: Sequence[int]) -> None:
        if isinstance(self._last_error, CorruptDataError):
            raise self._last_error
        if self._deadline.passed or self._view.tried:
            raise self._no_answer(shards)
        if self._rounds:
            await self._refresher.pause(self._rounds, self._deadline)
        await self._refresher.refresh(self._runtime)
        self._rounds += 1
        routing = self._runtime.routing
        generation = routing.read_generation(self._runtime.node_id)
        placement = routing.generations.get(generation)
        if generation != self._view.generation or placement is None:
            raise GenerationMovedError(
                "the generation being read has changed", remedy="retry", generation=self._view.generation
            )
        self._view = View(routing=routing, generation=generation, placement=placement)
        for shard in shards:
            self._tried.pop(shard, None)

    def _no_answer(self, shards: Sequence[int]) -> UnavailableError:
        cause = str(self._last_error) if self._last_error else "no ready replica is known"
        return UnavailableError(
            "shards have no replica that answers",
            reason="SHARD_NOT_READY",
            remedy="retry, or set allow_partial for a search",
            shards=",".join(map(str, sorted(shards))),
            generation=self._view.generation,
            routing_epoch=self._view.routing.epoch,
            cause=cause,
        )

    async def _cancel(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
            self._running.clear()
