"""``brainy mirror`` on a bucket, without a cluster."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainy.api.common.v1 import common_pb2
from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.mirroring import LimitMet, MirrorCursor
from brainy.bucket.records import GenerationPlacement, Routing, ShardPlacement
from brainy.changelog.batch import encode_batch
from brainy.cli.main import app
from brainy.ids import Ids
from brainy.store.local import LocalStore


async def invoke(*arguments: str) -> Any:
    # The command runs a loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, app, ["mirror", *arguments])


@pytest.fixture
async def bucket(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, ids=Ids())


async def routed(store: LocalStore) -> None:
    placement = GenerationPlacement(
        state="serving", shard_count=2, shards={shard: ShardPlacement(owner="n", epoch=1) for shard in range(2)}
    )
    routing = Routing(
        namespace="file:///x", epoch=1, nonce="n", leader_epoch=1, active=0, write=0, generations={0: placement}
    )
    await store.put(layout.ROUTING, routing.encode())
    for position in (1, 3):
        record = log_pb2.LogRecord(upsert_noun=common_pb2.Noun(id="a", vector=struct.pack("<f", 1)))
        record.written_at.FromMilliseconds(1_700_000_000_000)
        batch = log_pb2.LogBatch(
            format_version=1,
            generation=0,
            shard=1,
            epoch=1,
            writer=log_pb2.Writer(nonce=bytes(16)),
            first_position=position,
            records=[record, record],
        )
        await store.put(layout.log_slot(0, 1, position), encode_batch(batch))


async def test_on_shows_dialect_lag_and_limits(bucket: LocalStore, tmp_path: Path) -> None:
    await bucket.put("entities/nouns/vectors/a.json", b'{"id":"a","vector":[1],"connections":{}}')
    await routed(bucket)
    cursor = MirrorCursor(
        generation=0,
        shard=1,
        dialect="entity",
        epoch=1,
        nonce="n",
        position=2,
        written=1,
        conflicts=3,
        limits={"key-too-long": 1},
        newest_limits=(LimitMet(kind="key-too-long", item="noun", id="b", withheld=True),),
        problem="STORE_UNAVAILABLE: gone",
    )
    await bucket.put(layout.mirror_cursor(0, 1), cursor.encode())
    shown = await invoke(f"file://{tmp_path}", "--on", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["dialect"] == "entity"
    assert (found["lag_items"], found["written"], found["conflicts"]) == (2, 1, 3)
    assert found["lag_seconds"] > 1_000_000
    assert found["limits"] == {"key-too-long": 1}
    assert [(shard["shard"], shard["position"], shard["log_end"]) for shard in found["shards"]] == [
        (0, 0, 0),
        (1, 2, 4),
    ]
    assert found["shards"][1]["problem"] == "STORE_UNAVAILABLE: gone"
    assert len(found["standing_limits"]) > 4

    plain = await invoke(f"file://{tmp_path}")
    assert plain.exit_code == 0, plain.output
    assert "key-too-long" in plain.output
    assert "STORE_UNAVAILABLE" in plain.output

    off = await invoke(f"file://{tmp_path}", "--off", "--json")
    assert json.loads(off.stdout)["dialect"] == ""


async def test_what_else_the_record_says_stays(bucket: LocalStore, tmp_path: Path) -> None:
    record = {"format_version": 1, "follow": True, "mirror": "", "nonce": "n", "changed_at": "then"}
    await bucket.put("cluster/follow.json", json.dumps(record).encode())
    changed = await invoke(f"file://{tmp_path}", "--on", "--dialect", "flat-one-piece")
    assert changed.exit_code == 0
    found = await bucket.get("cluster/follow.json")
    assert found is not None
    after = json.loads(found.body)
    assert after.pop("nonce") != "n"
    assert after == {"format_version": 1, "follow": True, "mirror": "flat-one-piece", "changed_at": "then"}


async def test_a_bucket_that_does_not_say_needs_a_dialect(bucket: LocalStore, tmp_path: Path) -> None:
    await bucket.put("nouns/a.json", b'{"id":"a","vector":[1],"connections":{}}')
    refused = await invoke(f"file://{tmp_path}", "--on")
    assert refused.exit_code != 0
    assert "--dialect" in refused.stderr
    assert await bucket.get("cluster/follow.json") is None


@pytest.mark.parametrize("arguments", [("--dialect", "entity"), ("--on", "--dialect", "latin")])
async def test_wrong_arguments_are_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    refused = await invoke(f"file://{tmp_path}", *arguments)
    assert refused.exit_code != 0


async def test_a_record_of_a_newer_version_is_left_alone(bucket: LocalStore, tmp_path: Path) -> None:
    await bucket.put("cluster/follow.json", b'{"format_version":2,"mirror":"entity"}')
    refused = await invoke(f"file://{tmp_path}", "--off")
    assert "UNSUPPORTED_FORMAT" in refused.stderr
    await bucket.put("cluster/follow.json", b"[]")
    damaged = await invoke(f"file://{tmp_path}")
    assert "CORRUPT_DATA" in damaged.stderr
