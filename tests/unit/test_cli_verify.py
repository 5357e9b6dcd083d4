"""``brainy verify`` on buckets and files, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from brainy.cli.main import app


@pytest.fixture
def buckets(tmp_path: Path) -> tuple[str, str]:
    for name, last in (("a", 2), ("b", 3)):
        folder = tmp_path / name / "nouns"
        folder.mkdir(parents=True)
        for item in range(20):
            vector = [item, last if item == 7 else 1]
            (folder / f"n{item}.json").write_bytes(
                orjson.dumps({"id": f"n{item}", "vector": vector, "connections": {}})
            )
    return f"file://{tmp_path}/a", f"file://{tmp_path}/b"


def brainy(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, (arguments, done.output, done.exception)
    return done.stdout


def machine(*arguments: str, status: int = 0) -> Any:
    return orjson.loads(brainy(*arguments, "--json", status=status))


def test_equal(buckets: tuple[str, str], tmp_path: Path) -> None:
    brainy("backup", buckets[0], "-o", str(tmp_path / "a.json"))
    result = machine("verify", buckets[0], str(tmp_path / "a.json"), "--relations")
    assert (result["verdict"], result["a"]["nouns"], result["buckets"]) == ("equal", 20, 4096)
    assert result["relations"] == {"dangling_a": 0, "dangling_b": 0, "different": 0, "examples": []}
    assert result["b"]["read_at"]["kind"] == "backup"
    assert "equal: A at the tree, read from 20" in brainy("verify", buckets[0], buckets[0] + "@tree")


def test_different(buckets: tuple[str, str], tmp_path: Path) -> None:
    result = machine("verify", *buckets, "--pause", "0", "--resume", str(tmp_path / "state"), status=1)
    assert (result["verdict"], result["mismatched"], result["suspected"]) == ("different", 1, 1)
    assert result["differences"] == [
        {
            "kind": "noun",
            "id": "n7",
            "what": "mismatched",
            "fields": ["vector"],
            "detail": {"vector": {"components": 1, "largest_ulps": 1 << 22, "largest": 1.0}},
        }
    ]
    shown = brainy("verify", *buckets, "--pause", "0", status=1)
    assert "different: 0 missing in B, 0 only in B, 1 mismatched" in shown
    assert "n7" in shown


def test_what_cannot_be_compared(buckets: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    brainy("verify", buckets[0], f"file://{tmp_path}/c", status=3)
    brainy("verify", buckets[0], f"file://{tmp_path}/absent", status=3)
    brainy("verify", buckets[0], buckets[1] + "@4", status=3)
    brainy("verify", buckets[0], buckets[1] + "@newest", status=2)
    brainy("verify", *buckets, "--sample", "3", "--relations", status=2)
    (tmp_path / "torn.json").write_bytes(b'{"nouns": [')
    brainy("verify", buckets[0], str(tmp_path / "torn.json"), status=6)
