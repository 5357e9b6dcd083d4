"""From wishes to nodes and settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brainy import InvalidRequestError
from brainy.config.settings import load_settings
from brainy.sdk.machine import Machine
from brainy.sdk.sizing import PROCESS_BYTES, Wishes, size

GIB = 1 << 30


def test_without_a_wish_nothing_is_set() -> None:
    sizing = size(Wishes())
    assert (sizing.nodes, sizing.settings, sizing.fits) == (1, {}, True)


@pytest.mark.parametrize(
    ("items", "shards"), [(1, 4), (1_000_000, 4), (1_000_001, 5), (5_000_000, 20), (10_000_000, 40), (10**9, 64)]
)
def test_shards_follow_the_expected_size(items: int, shards: int) -> None:
    assert size(Wishes(expected_dataset_size=items)).settings == {"BRAINY_COORDINATOR__SHARD_COUNT": str(shards)}


@pytest.mark.parametrize(
    ("memory", "kind", "fits"),
    [(8 * GIB, None, True), (GIB + GIB // 2, "f16", True), (GIB, "i8", True), (GIB // 2, "i8", False)],
)
def test_the_index_keeps_the_widest_numbers_that_fit(memory: int, kind: str | None, fits: bool) -> None:
    sizing = size(Wishes(expected_dataset_size=1_000_000, dimensions=384, max_memory_usage=memory))
    assert sizing.settings.get("BRAINY_COORDINATOR__SCALAR_KIND") == kind
    assert sizing.fits == fits


def test_every_replica_counts() -> None:
    alone = Wishes(expected_dataset_size=1_000_000, dimensions=384, max_memory_usage=3 * GIB)
    assert "BRAINY_COORDINATOR__SCALAR_KIND" not in size(alone).settings
    assert size(replace(alone, nodes=3)).settings["BRAINY_COORDINATOR__SCALAR_KIND"] == "f16"


@pytest.mark.parametrize(
    ("milliseconds", "candidates"), [(1, 32), (50, 32), (51, 64), (150, 64), (500, 128), (501, 256), (10_000, 256)]
)
def test_more_time_finds_more(milliseconds: float, candidates: int) -> None:
    settings = size(Wishes(target_search_latency=milliseconds)).settings
    assert settings == {"BRAINY_NODE__EXPANSION_SEARCH": str(candidates)}


@pytest.mark.parametrize(
    ("cores", "memory", "nodes"), [(1, 64, 1), (2, 64, 1), (4, 64, 2), (8, 64, 4), (64, 64, 4), (64, 4, 2), (64, 1, 1)]
)
def test_the_machine_decides_how_many_nodes(cores: int, memory: int, nodes: int) -> None:
    machine = Machine(cores=cores, memory_bytes=memory * GIB)
    assert size(Wishes(machine=machine)).nodes == nodes
    assert size(Wishes(machine=machine, nodes=7)).nodes == 7


def test_a_machine_too_small_still_gets_one_node() -> None:
    sizing = size(Wishes(machine=Machine(cores=1, memory_bytes=PROCESS_BYTES), expected_dataset_size=1000))
    assert sizing.nodes == 1
    assert not sizing.fits
    assert sizing.settings["BRAINY_NODE__FOLD_RECORDS"] == "100"


def test_what_cannot_be_is_refused() -> None:
    for wishes in (Wishes(dimensions=-1), Wishes(nodes=-1), Wishes(target_search_latency=-0.1)):
        with pytest.raises(InvalidRequestError, match="cannot be negative"):
            size(wishes)
    with pytest.raises(InvalidRequestError, match="at least 384 MiB"):
        size(Wishes(max_memory_usage=2 * PROCESS_BYTES))
    assert size(Wishes(max_memory_usage=3 * PROCESS_BYTES)).nodes == 1


def test_every_setting_chosen_is_one_the_roles_know() -> None:
    sizing = size(
        Wishes(
            dimensions=384,
            expected_dataset_size=10_000_000,
            max_memory_usage=2 * GIB,
            target_search_latency=10,
        )
    )
    settings = load_settings(environment=sizing.settings)
    assert (settings.coordinator.dimensions, settings.coordinator.shard_count) == (384, 40)
    assert settings.coordinator.scalar_kind == "i8"
    assert settings.node.expansion_search == 32
    assert settings.node.fold_records < 2000


def test_this_machine_has_something() -> None:
    machine = Machine.here()
    assert machine.cores >= 1
    assert machine.memory_bytes > PROCESS_BYTES
