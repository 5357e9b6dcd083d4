"""The test doubles themselves."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from pathlib import Path

import pytest

from brainy.store.base import PutState
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy.testing.fixtures import fixtures_root, load_fixture, read_objects, read_truth


async def test_sleepers_wake_in_order_at_their_own_instant() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic() - 1000.0))

    tasks = [asyncio.create_task(sleeper(name, seconds)) for name, seconds in (("b", 2), ("a", 1), ("c", 9))]
    await clock.wait_for_sleepers(3)
    await clock.advance(5)
    assert woken == [("a", 1.0), ("b", 2.0)]
    assert clock.sleepers == 1
    wall = clock.wall()
    clock.jump_wall(-3600)
    await clock.advance(4)
    assert woken[-1] == ("c", 9.0)
    assert clock.wall() == wall - 3600 + 4
    await asyncio.gather(*tasks)


async def test_faults_apply_as_planned() -> None:
    memory = MemoryStore()
    store = FaultyStore(memory)
    store.plan(kind="put_if_absent", key_prefix="log/", fault=Fault.LANDED_UNKNOWN)
    assert (await store.put_if_absent("other", b"")).won
    assert (await store.put_if_absent("log/1", b"1")).state is PutState.UNKNOWN
    assert await memory.get("log/1") is not None
    assert (await store.put_if_absent("log/2", b"2")).won
    gate = asyncio.Event()
    store.plan(kind="get", gate=gate)
    waiting = asyncio.create_task(store.get("log/2"))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    assert await waiting is not None


def test_where_recorded_buckets_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRAINY_FIXTURES", str(tmp_path))
    assert fixtures_root() == tmp_path
    monkeypatch.setenv("BRAINY_FIXTURES", str(tmp_path / "missing"))
    assert fixtures_root() is None


async def test_a_recorded_bucket_is_loaded(tmp_path: Path) -> None:
    lines = [
        {"key": "nouns/a b.json", "metadata": {"x": "1"}, "body_b64": base64.b64encode(b"{}").decode()},
        {"key": "verbs/v.json", "content_type": "application/json", "body_b64": ""},
    ]
    with gzip.open(tmp_path / "objects.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "truth.json").write_text('{"nouns": {}}')
    assert [item.key for item in read_objects(tmp_path)] == ["nouns/a b.json", "verbs/v.json"]
    assert read_truth(tmp_path) == {"nouns": {}}
    for store in (MemoryStore(), LocalStore(tmp_path / "bucket", durable=False)):
        assert await load_fixture(store, tmp_path, key_prefix="nouns/") == 1
        assert await load_fixture(store, tmp_path) == 2
        found = await store.get("nouns/a b.json")
        assert found is not None
        assert (found.body, found.user_metadata) == (b"{}", {"x": "1"})
