"""``brainy follow``: the choice is the bucket's, the figures the cluster's."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from brainy.cli import follow
from brainy.cli.main import app
from brainy.sdk.values import Following, NodeInfo, ShardReplica


def say(*words: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["follow", *words, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = orjson.loads(result.stdout)
    return found


def test_the_choice_is_kept_in_the_bucket(tmp_path: Path) -> None:
    namespace = f"file://{tmp_path}"
    assert say(namespace) == {
        "namespace": namespace,
        "follow": False,
        "mirror": "",
        "cluster_runs": False,
        "lag_seconds": None,
        "open_items": 0,
        "passes": 0,
        "applied": 0,
        "conflicts": 0,
        "unreadable": 0,
        "last_error": "",
        "shards": [],
    }
    assert say(namespace, "--on")["follow"] is True
    assert say(namespace)["follow"] is True
    assert orjson.loads((tmp_path / "cluster" / "follow.json").read_bytes())["follow"] is True
    assert say(namespace, "--off")["follow"] is False


def test_a_bucket_that_does_not_exist_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["follow", f"file://{tmp_path / 'nothing'}", "--on"])
    assert result.exit_code != 0
    assert not (tmp_path / "nothing").exists()


def test_the_worst_of_all_shards_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = f"file://{tmp_path}"

    def replica(shard: int, lag: float | None) -> ShardReplica:
        following = Following(
            stage="following",
            lag_seconds=lag,
            open_items=1,
            passes=shard + 4,
            applied=10,
            conflicts=2,
            unreadable=0,
            last_error="" if shard else "the store said no",
        )
        return ShardReplica(
            namespace=namespace,
            generation=1,
            shard=shard,
            role="owner",
            state="ready",
            applied=5,
            copied=0,
            total=0,
            noun_count=1,
            verb_count=0,
            following=following,
        )

    lags: list[float | None] = [1.5, 40.0]

    async def nodes(*_: object) -> list[NodeInfo]:
        replicas = tuple(replica(shard, lag) for shard, lag in enumerate(lags))
        return [NodeInfo(node_id="n", address="a", state="alive", silent_seconds=0, memory_bytes=0, replicas=replicas)]

    monkeypatch.setattr(follow, "_nodes", nodes)
    found = say(namespace)
    assert (found["lag_seconds"], found["open_items"], found["passes"], found["applied"]) == (40.0, 2, 4, 20)
    assert (found["conflicts"], found["last_error"], found["cluster_runs"]) == (4, "the store said no", True)
    lags[0] = None
    assert say(namespace)["lag_seconds"] is None
    shown = CliRunner().invoke(app, ["follow", namespace])
    assert "the store said no" in shown.output
    assert "g1/1" in shown.output
