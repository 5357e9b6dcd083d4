"""The reader with Brainy's rules, held against what real versions were seen to read of each other's buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brainy.store.memory import MemoryStore
from brainy.testing.brainy_reader import BrainyReader
from brainy.testing.clock import ManualClock
from brainy.testing.fixtures import fixtures_root, load_fixture, read_truth

ROOT = fixtures_root()

#: Written by, opened by, nouns and verbs that the real one found, of how many.
SEEN = [
    ("v0.20.0", "0.20.0", 187, 286),
    ("v0.20.0", "0.30.0", 187, 286),
    ("v0.20.0", "0.36.0", 187, 0),
    ("v0.20.0", "0.46.0", 187, 0),
    ("v0.20.0", "1.1.1", 0, 0),
    ("v0.30.0", "0.20.0", 187, 286),
    ("v0.30.0", "0.30.0", 187, 286),
    ("v0.30.0", "0.36.0", 187, 0),
    ("v0.30.0", "0.57.0", 0, 0),
    ("v0.36.0", "0.20.0", 189, 0),
    ("v0.36.0", "0.30.0", 189, 0),
    ("v0.36.0", "0.36.0", 189, 287),
    ("v0.36.0", "0.46.0", 189, 287),
    ("v0.46.0", "0.30.0", 189, 0),
    ("v0.46.0", "0.36.0", 189, 287),
    ("v0.46.0", "0.46.0", 189, 287),
    ("v0.46.0", "1.1.1", 0, 0),
    ("v0.57.0", "0.46.0", 0, 0),
    ("v0.57.0", "1.1.1", 189, 287),
    ("v0.62.3", "0.46.0", 0, 0),
    ("v0.62.3", "1.1.1", 183, 287),
    ("v0.48.1", "0.46.0", 0, 0),
    ("v0.48.1", "0.57.0", 62, 76),
    ("v0.48.1", "1.1.1", 62, 76),
]

pytestmark = pytest.mark.skipif(
    ROOT is None, reason="the recorded buckets are not here (set BRAINY_FIXTURES to their directory)"
)


async def opened(folder: str, version: str) -> tuple[BrainyReader, dict[str, Any]]:
    assert ROOT is not None
    store = MemoryStore(ManualClock())
    await load_fixture(store, Path(ROOT / folder))
    return BrainyReader(store, version), read_truth(ROOT / folder)


@pytest.mark.parametrize(("folder", "version", "nouns", "verbs"), SEEN, ids=lambda value: str(value))
async def test_it_reads_what_the_real_one_read(folder: str, version: str, nouns: int, verbs: int) -> None:
    reader, truth = await opened(folder, version)
    found = [noun for name in truth["nouns"] if (noun := await reader.get_noun(name)) is not None]
    assert len(found) == nouns
    assert all(noun.vector == truth["nouns"][noun.id]["vector"] for noun in found)
    if nouns:
        for name, expected in truth["nouns"].items():
            assert await reader.get_stored_metadata(name) == expected["metadata"], name
    read = [verb for name in truth["verbs"] if (verb := await reader.get_verb(name)) is not None]
    assert len(read) == verbs
    for verb in read:
        expected = truth["verbs"][verb.id]
        assert (verb.source_id, verb.target_id, verb.type) == (
            expected["sourceId"],
            expected["targetId"],
            expected["type"],
        )


@pytest.mark.parametrize(
    ("folder", "version", "dimensions", "loaded", "deleted", "hangs"),
    [
        ("v0.46.0", "0.46.0", 32, 189, 0, False),
        ("v0.30.0", "0.36.0", 32, 187, 0, False),
        ("v0.57.0", "0.57.0", 32, 100, 0, True),
        ("v0.62.3", "1.1.1", 32, 100, 0, True),
        ("v0.48.1", "1.1.1", 32, 62, 0, False),
        ("v0.46.0", "1.1.1", 32, 0, 0, False),
        ("v0.36.0-native512", "0.47.0", 384, 0, None, False),
    ],
)
async def test_it_starts_as_the_real_one_did(
    folder: str, version: str, dimensions: int, loaded: int, deleted: int | None, hangs: bool
) -> None:
    reader, truth = await opened(folder, version)
    started = await reader.start(dimensions)
    assert len(started.loaded) == loaded
    assert started.hangs is hangs
    # An old bucket of 512 dimensions loses every noun to a version that wants 384.
    assert started.deleted == (frozenset(truth["nouns"]) if deleted is None else frozenset())
