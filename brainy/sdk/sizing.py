"""From what a user expects to how a cluster on this machine is set up. Pure: figures in, settings out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from brainy.errors import InvalidRequestError
from brainy.sdk.machine import Machine

#: Few, large parts search fastest; more of them fill and fold in parallel.
ITEMS_PER_SHARD = 250_000
SHARDS = (4, 64)

#: What a coordinator, and a node before it holds anything, take.
PROCESS_BYTES = 128 << 20

#: More nodes than this on one machine only share its cores.
_MOST_NODES = 4
_CORES_PER_NODE = 2
#: Memory a node is given before another one is started.
_NODE_BYTES = 1 << 30

#: Assumed while nothing says otherwise: the length of the vectors of the model Brainy uses.
_USUAL_DIMENSIONS = 384

#: What a row of the index takes besides its vector, and what a record of the tail takes besides two copies of it.
_GRAPH_BYTES = 200
_RECORD_BYTES = 2048

ScalarKind = Literal["f32", "f16", "i8"]
_WIDTHS: tuple[tuple[ScalarKind, int], ...] = (("f32", 4), ("f16", 2), ("i8", 1))

#: Share of the budget for records that are not folded yet, and how many records that may come to for a shard.
_TAIL_SHARE = 16
_FOLD_RECORDS = (100, 2000)

#: Search time aimed at, milliseconds -> candidates a search keeps. What is slower than the last gets the most.
_EXPANSIONS = ((50.0, 32), (150.0, 64), (500.0, 128), (math.inf, 256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a user said; 0 and None for nothing."""

    dimensions: int = 0
    #: Nouns.
    expected_dataset_size: int = 0
    #: Bytes, of all processes of the embedded cluster together.
    max_memory_usage: int = 0
    #: Milliseconds.
    target_search_latency: float = 0.0
    nodes: int = 0
    #: Set to let the machine decide what is not said.
    machine: Machine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """How the embedded cluster is set up."""

    nodes: int
    #: ``BRAINY_*`` variables of its processes.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Whether the index fits the memory even in its smallest form; if not, searches read from disk.
    fits: bool = True


def size(wishes: Wishes) -> Sizing:
    """Decide.

    * **nodes**: as asked for, else 1; if the machine may decide, one for every two cores and every GiB of the
      budget, up to 4.
    * **shards** of a namespace that no cluster served before: one for every 250,000 nouns expected, 4 to 64.
    * **number kind of its index**: the widest of f32, f16 and i8 with which the expected nouns fit the budget.
    * **records kept in memory** before a shard is folded: a sixteenth of the budget, 100 to 2,000 a shard.
    * **candidates a search keeps**: by the search time aimed at, 32, 64, 128 or 256.

    Raises:
        InvalidRequestError: a negative wish, or a budget that does not hold the processes themselves.
    """
    for name in ("dimensions", "expected_dataset_size", "max_memory_usage", "target_search_latency", "nodes"):
        if getattr(wishes, name) < 0:
            raise InvalidRequestError(f"{name} cannot be negative", remedy="leave it out, or give a positive number")
    memory = wishes.max_memory_usage
    if wishes.machine and not memory:
        memory = wishes.machine.memory_bytes // 2
    nodes = wishes.nodes or _nodes(wishes.machine, memory)
    rest = memory - (nodes + 1) * PROCESS_BYTES
    if wishes.max_memory_usage and rest <= 0:
        raise InvalidRequestError(
            "max_memory_usage does not hold the processes of the cluster",
            remedy=f"allow at least {(nodes + 2) * PROCESS_BYTES >> 20} MiB, or ask for fewer nodes",
            max_memory_usage=wishes.max_memory_usage,
            nodes=nodes,
        )
    settings: dict[str, str] = {}
    shards = SHARDS[0]
    if wishes.dimensions:
        settings["BRAINY_COORDINATOR__DIMENSIONS"] = str(wishes.dimensions)
    if wishes.expected_dataset_size:
        shards = min(max(math.ceil(wishes.expected_dataset_size / ITEMS_PER_SHARD), SHARDS[0]), SHARDS[1])
        settings["BRAINY_COORDINATOR__SHARD_COUNT"] = str(shards)
    dimensions = wishes.dimensions or _USUAL_DIMENSIONS
    fits = True
    if memory:
        copies = min(2, nodes)
        kind, fits = _scalar_kind(copies * wishes.expected_dataset_size, dimensions, rest)
        if kind != "f32":
            settings["BRAINY_COORDINATOR__SCALAR_KIND"] = kind
        records = rest // _TAIL_SHARE // (copies * shards * (8 * dimensions + _RECORD_BYTES))
        low, high = _FOLD_RECORDS
        if records < high:
            settings["BRAINY_NODE__FOLD_RECORDS"] = str(max(records, low))
    if wishes.target_search_latency:
        expansion = next(found for limit, found in _EXPANSIONS if wishes.target_search_latency <= limit)
        settings["BRAINY_NODE__EXPANSION_SEARCH"] = str(expansion)
    return Sizing(nodes=nodes, settings=settings, fits=fits)


def _nodes(machine: Machine | None, memory: int) -> int:
    if machine is None:
        return 1
    return max(1, min(machine.cores // _CORES_PER_NODE, memory // _NODE_BYTES, _MOST_NODES))


def _scalar_kind(rows: int, dimensions: int, budget: int) -> tuple[ScalarKind, bool]:
    for kind, width in _WIDTHS:
        if rows * (dimensions * width + _GRAPH_BYTES) <= budget:
            return kind, True
    return "i8", False
