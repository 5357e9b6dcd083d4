"""What a shard counts of itself beside its items."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import orjson
import pytest

from brainy.bucket.items import Noun
from brainy.bucket.records import Spec
from brainy.errors import CorruptDataError
from brainy_node.shard import shard as shard_module
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

ROWS, DIMENSIONS = 300, 32


def spec_of(scalar_kind: str) -> Spec:
    return Spec.model_validate(
        {
            "generation": 1,
            "dimensions": DIMENSIONS,
            "scalar_kind": scalar_kind,
            "connectivity": 4,
            "shard_count": 1,
            "source": "empty",
        }
    )


def shard_of(directory: Path, scalar_kind: str = "f32", *, expansion_search: int = 0) -> Shard:
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSIONS)).astype("<f4")
    spec = spec_of(scalar_kind)
    with BaseWriter(directory, spec=spec, shard=0) as writer:
        writer.add_nouns([Noun(id=f"n{row}", vector=vector.tobytes()) for row, vector in enumerate(vectors)])
        writer.finish(position=0, source_cursor={}, threads=1)
    return Shard.open(Base.open(directory), spec, threads=1, expansion_search=expansion_search)


def test_the_index_file_is_smaller_for_narrower_numbers(tmp_path: Path) -> None:
    ratios = []
    for kind in ("f32", "f16", "i8"):
        base = shard_of(tmp_path / kind, kind).base
        assert base.vector_bytes == ROWS * DIMENSIONS * 4
        assert base.index_bytes == (base.directory / "index.usearch").stat().st_size
        ratios.append(base.vector_bytes / base.index_bytes)
    assert ratios == sorted(ratios)
    assert ratios[0] < 1


def test_searches_that_read_from_disk_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = shard_of(tmp_path / "base")
    query = np.ones((1, DIMENSIONS), np.float32)
    faults = iter([7, 7, 7, 9, 9, 9])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert usage.ru_majflt >= 0
    monkeypatch.setattr(shard_module, "_reads_from_disk", lambda: next(faults))
    for _ in range(3):
        shard.search(query, 5)
    assert (shard.searches, shard.searches_from_disk) == (3, 1)


def test_candidates_kept_are_the_nodes_choice(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "base", expansion_search=200)
    assert shard.base.index is not None
    assert shard.base.index._index.expansion_search == 200
    plain = shard_of(tmp_path / "plain")
    assert plain.base.index is not None
    assert plain.base.index._index.expansion_search == spec_of("f32").expansion_search
    query = np.ones((1, DIMENSIONS), np.float32)
    assert shard.search(query, 5).ids == shard.search(query, 5, exact=True).ids


def test_a_base_without_a_count_of_today_is_not_opened(tmp_path: Path) -> None:
    directory = shard_of(tmp_path / "base").base.directory
    record = orjson.loads((directory / "base.json").read_bytes())
    del record["tally"]["verbs_by_service"], record["checksum"]
    (directory / "base.json").write_bytes(orjson.dumps(record))
    with pytest.raises(CorruptDataError, match="lacks a count"):
        Base.open(directory)
