"""Incremental native backups: what changed; of a tree, of a collected log; wrong predecessors are refused."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import test_dataset_generation as generations
from backed_up_namespace import NAMESPACE, SHARDS, Namespace, assert_holds, filled, noun, verb

from brainy.backup.opening import check_backup
from brainy.backup.parts import PartSize
from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket import layout
from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import shard_of
from brainy.bucket.records import (
    Collected,
    Manifest,
)
from brainy.bucket.segments import stored_file, write_nouns, write_verbs
from brainy.clock import SystemClock
from brainy.errors import (
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
)
from brainy.ids import Ids
from brainy.samples import sample_objects
from brainy.store.memory import MemoryStore


async def test_incremental_backups_hold_what_changed(tmp_path: Path) -> None:
    space = await filled()
    await space.backup(tmp_path / "0.backup")
    await space.put(noun("n1", 77.0), noun("fresh"), verb("v1", 0.25))
    await space.put(space.nouns["n5"])  # written again, the same
    await space.drop(nouns=["n2", "never"], verbs=["v2"])
    one = await space.backup(tmp_path / "1.backup", since=tmp_path / "0.backup")
    assert (one.changed, one.deleted) == (3, 2)
    assert (one.nouns, one.verbs) == (250, 19)
    assert_holds(tmp_path / "1.backup", space)
    await space.drop(nouns=["fresh"])
    await space.put(noun("n2", 5.0))
    await space.backup(tmp_path / "2.backup", since=tmp_path / "1.backup")
    backup = assert_holds(tmp_path / "2.backup", space)
    assert [Path(file).name for file in backup.verification.chain] == ["2.backup", "1.backup", "0.backup"]
    assert (tmp_path / "2.backup").stat().st_size < (tmp_path / "0.backup").stat().st_size
    nothing = await space.backup(tmp_path / "3.backup", since=tmp_path / "2.backup")
    assert (nothing.changed, nothing.deleted) == (0, 0)
    assert_holds(tmp_path / "3.backup", space)
    # Without the middle of the chain nothing is restored.
    (tmp_path / "1.backup").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError):
        check_backup(tmp_path / "2.backup")
    (tmp_path / "0.backup").rename(tmp_path / "1.backup")
    with pytest.raises(PreconditionError):
        check_backup(tmp_path / "2.backup")


async def test_an_incremental_backup_of_a_tree_compares_items(tmp_path: Path) -> None:
    space = Namespace()
    objects = [(key, body) for key, body, _ in sample_objects()]
    for key, body in objects:
        await space.store.put(key, body)
    await space.backup(tmp_path / "0.backup")
    gone = next(key for key, _ in objects if key.startswith("nouns/"))
    altered = next(key for key, _ in objects if key.startswith("nouns/") and key != gone)
    await space.store.delete(gone)
    stored = orjson.loads(dict(objects)[altered])
    stored["vector"][0] += 1
    await space.store.put(altered, orjson.dumps(stored))
    one = await space.backup(tmp_path / "1.backup", since=tmp_path / "0.backup")
    assert (one.nouns, one.changed, one.deleted) == (188, 1, 1)
    await space.backup(tmp_path / "whole.backup")
    whole, both = check_backup(tmp_path / "whole.backup"), check_backup(tmp_path / "1.backup")
    assert whole.verification.digest == both.verification.digest


def state_of(path: Path) -> tuple[dict[str, Noun], dict[str, Verb]]:
    backup = check_backup(path)
    nouns = {one.id: one for batch in backup.items() for one in batch.nouns}
    return nouns, {one.id: one for batch in backup.items() for one in batch.verbs}


async def test_a_later_generation_with_its_log_collected_or_not(tmp_path: Path) -> None:
    space = Namespace()
    space.store = store = MemoryStore()
    files = tmp_path / "files"
    files.mkdir()
    await generations.publish(store, files, positions=(4, 4, 4))
    await generations.put_routing(store, 1)
    await space.backup(tmp_path / "0.backup", part_size=PartSize(unit_items=900))
    assert state_of(tmp_path / "0.backup") == (
        {one.id: one for one in generations.NOUNS},
        {one.id: one for one in generations.VERBS},
    )
    assert check_backup(tmp_path / "0.backup").verification.digest != ""
    await generations.write_log(store, 1, generations.CHANGES, base=4)
    summary = await space.backup(tmp_path / "whole.backup")
    await space.backup(tmp_path / "1.backup", since=tmp_path / "0.backup")
    nouns, verbs = state_of(tmp_path / "whole.backup")
    assert (nouns, verbs) == state_of(tmp_path / "1.backup")
    assert nouns["n7"].vector != generations.NOUNS[7].vector
    assert not {"n8", "v3"} & {*nouns, *verbs}
    assert {"new", "w"} <= {*nouns, *verbs}
    assert len(summary.quarantined) == SHARDS
    positions = summary.positions
    # Meanwhile everything was folded, and the log is given up: items are compared instead.
    for shard in range(SHARDS):
        collected = Collected(generation=1, shard=shard, epoch=9, nonce="n", position=positions[shard])
        await store.put(layout.collected(1, shard), collected.encode())
        key = layout.manifest(1, shard)
        found = await store.get(key)
        assert found is not None
        manifest = Manifest.decode(found.body, key=key)
        own = [one for one in nouns.values() if shard_of(one.id, SHARDS) == shard]
        path = files / f"folded-{shard}.parquet"
        rows = write_nouns(path, [own], dimensions=2)
        place = layout.segment(1, "nouns", shard, "folded")
        await store.put(place, path.read_bytes())
        own_verbs = [one for one in verbs.values() if shard_of(one.id, SHARDS) == shard]
        verb_path = files / f"folded-{shard}-v.parquet"
        verb_rows = write_verbs(verb_path, [own_verbs], dimensions=2)
        verb_place = layout.segment(1, "verbs", shard, "folded")
        await store.put(verb_place, verb_path.read_bytes())
        folded = manifest.model_copy(
            update={
                "position": positions[shard],
                "nouns": (stored_file(path, key=place, rows=rows),),
                "verbs": (stored_file(verb_path, key=verb_place, rows=verb_rows),),
                "noun_count": rows,
                "verb_count": verb_rows,
            }
        )
        await store.put(key, folded.encode())
    again = await space.backup(tmp_path / "2.backup", since=tmp_path / "0.backup")
    assert state_of(tmp_path / "2.backup") == (nouns, verbs)
    assert again.digest == summary.digest
    assert again.positions == positions
    nothing = await space.backup(tmp_path / "3.backup", since=tmp_path / "2.backup")
    assert (nothing.changed, nothing.deleted) == (0, 0)


async def test_wrong_predecessors_are_refused(tmp_path: Path) -> None:
    space = await filled()
    await space.backup(tmp_path / "0.backup")
    (tmp_path / "sub").mkdir()
    for since, target in (("0.backup", "0.backup"), ("0.backup", "sub/1.backup")):
        with pytest.raises(InvalidRequestError):
            await space.backup(tmp_path / target, since=tmp_path / since)
    with pytest.raises(InvalidRequestError):
        await write_backup(
            space.store,
            "memory://another",
            tmp_path / "1.backup",
            BackupOptions(format=BackupFormat.NATIVE, since=tmp_path / "0.backup"),
            clock=SystemClock(),
            ids=Ids(),
        )
    with pytest.raises(InvalidRequestError):
        await write_backup(
            space.store,
            NAMESPACE,
            tmp_path / "1.json",
            BackupOptions(since=tmp_path / "0.backup"),
            clock=SystemClock(),
            ids=Ids(),
        )
