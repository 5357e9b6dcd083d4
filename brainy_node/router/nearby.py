"""Queries made of what there is: vectors of some nouns, slightly moved, for where nobody has asked anything yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from brainy.api.node.v1 import shard_pb2
from brainy.clock import Deadline
from brainy.rpc.channel import call
from brainy_node.router.fan_out import FanOut, Target
from brainy_node.router.held import held
from brainy_node.router.trials import trial_view
from brainy_node.runtime.ports import NamespaceRuntime
from brainy_node.shard.shard import Shard

if TYPE_CHECKING:  # exists in the generated stubs only
    from brainy.api.node.v1.shard_pb2_grpc import ShardServiceAsyncStub

Matrix = npt.NDArray[np.float32]

MOST_VECTORS = 1024
#: Length of the step away from a noun, as a share of its own length: near it, and not on it.
_STEP = 0.1
#: Mixes the seed into a hash (splitmix64), so that another seed chooses other ids.
_MIX = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorsQuestion:
    """Vectors of about ``count`` nouns of the shards asked, n x dimensions, chosen by the hash of their ids."""

    count: int
    seed: int
    dimensions: int

    async def local(self, runtime: NamespaceRuntime, target: Target, deadline: Deadline) -> Matrix:
        """Choose among local replicas."""
        shards = [held(runtime, target.generation, number) for number in target.shards]
        return await asyncio.to_thread(self._choose, shards)

    async def remote(self, peer: ShardServiceAsyncStub, target: Target, deadline: Deadline) -> Matrix:
        """Let a peer choose."""
        request = shard_pb2.SampleVectorsRequest(
            namespace=target.namespace,
            generation=target.generation,
            shards=target.shards,
            count=self.count,
            seed=self.seed,
        )
        answer = await call(peer.SampleVectors, request, deadline=deadline)
        found = np.frombuffer(answer.vectors, dtype="<f4")
        return found.reshape(-1, self.dimensions) if answer.dimensions == self.dimensions else none_of(self.dimensions)

    def _choose(self, shards: list[Shard]) -> Matrix:
        total = sum(shard.statistics().nouns for shard in shards)
        if not total:
            return none_of(self.dimensions)
        # Twice as many as are wanted: some cannot be searched for, and chance gives and takes.
        chosen = _chosen(min(1.0, (2.0 * self.count + 16.0) / total), self.seed)
        rows: list[Matrix] = []
        for shard in shards:
            ids = shard.ids_where(chosen)[0][: 2 * self.count + 16]
            found = (np.frombuffer(noun.vector, dtype="<f4") for noun in shard.get_nouns(ids))
            rows += [row for row in found if len(row) == self.dimensions and np.isfinite(row).all() and row.any()]
        # Evenly over all shards, not the first one's.
        step = max(1.0, len(rows) / self.count)
        places = [int(step * n) for n in range(min(self.count, len(rows)))]
        return np.array([rows[place] for place in places], dtype="<f4").reshape(-1, self.dimensions)


def none_of(dimensions: int) -> Matrix:
    """Return no vectors at all."""
    return np.empty((0, dimensions), dtype="<f4")


async def nearby(
    fan_out: FanOut, runtime: NamespaceRuntime, generation: int, question: VectorsQuestion, deadline: Deadline
) -> Matrix:
    """Return up to ``count`` vectors near nouns of a generation, n x dimensions; the same for the same seed.

    Raises:
        UnavailableError: a shard has no replica that answers.
    """
    view = trial_view(runtime, generation)
    answer = await fan_out.ask(runtime, view, question, view.shards, deadline)
    rows = np.concatenate([none_of(question.dimensions), *answer.parts])
    step = max(1.0, len(rows) / question.count)
    rows = rows[[int(step * n) for n in range(min(question.count, len(rows)))]]
    noise = np.random.default_rng(question.seed).standard_normal(rows.shape).astype("<f4")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True) / np.maximum(
        np.linalg.norm(noise, axis=1, keepdims=True), np.float32(1e-12)
    )
    return np.ascontiguousarray(rows + np.float32(_STEP) * lengths * noise, dtype="<f4")


def _chosen(share: float, seed: int) -> Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]:
    """Say yes to a share of all hashes, spread evenly."""
    most = np.uint64(min(2**64 - 1, int(share * 2.0**64)))
    salt = np.uint64((seed + 1) * _MIX % 2**64)

    def choose(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        mixed = (hashes ^ salt) * np.uint64(_MIX)
        mixed ^= mixed >> np.uint64(29)
        chosen: npt.NDArray[np.bool_] = mixed <= most
        return chosen

    return choose
