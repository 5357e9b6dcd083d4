"""Texts from elsewhere without their vectors, through the one engine, with real processes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import orjson
import pytest

from brainy.backup.values import BackupFormat
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.embedding.minilm import open_minilm
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.sdk.migration import TargetSpec
from brainy.sdk.reembedding import Reembedding
from brainy.sdk.sources import SourceSpec
from brainy.store.opening import open_store
from tests.corpus import PARAPHRASES
from tests.e2e.conftest import RunCluster, legacy_noun, unexpected
from tests.e2e.test_reembedding import NEW, OLD, assert_embedded, endpoint, reached, tree_and_log
from tests.e2e.test_sparse_import import brainy
from tests.embedding_endpoint import Endpoint

__all__ = ["endpoint"]

NOUNS = 120


async def backed_up(
    directory: Path, endpoint: Endpoint, *, kind: BackupFormat = BackupFormat.NATIVE
) -> tuple[Path, dict[str, str]]:
    """A backup of texts with vectors of the old model, a verb between two of them, and the bucket it was made of."""
    namespace, texts = await tree_and_log(directory / "old", endpoint, NOUNS)
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    for n, (text, _) in enumerate(PARAPHRASES):
        key, body = legacy_noun(f"doc-{n}", endpoint.embed(OLD, [text])[0].tolist())
        await store.put(key, body)
        await store.put(f"metadata/doc-{n}.json", orjson.dumps({"text": text}))
        texts[f"doc-{n}"] = text
    verb = {"id": "v1", "vector": [], "connections": {}, "sourceId": "doc-0", "targetId": "doc-1", "type": "cites"}
    await store.put("verbs/v1.json", orjson.dumps(verb))
    file = directory / "texts.backup"
    await write_backup(store, namespace, file, BackupOptions(format=kind), clock=SystemClock(), ids=Ids())
    await store.close()
    return file, texts


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_paraphrases_are_found_in_texts_that_left_their_vectors_behind(
    tmp_path: Path, endpoint: Endpoint, run_cluster: RunCluster
) -> None:
    file, texts = await backed_up(tmp_path, endpoint)
    new = f"file://{tmp_path / 'new'}"
    async with run_cluster(new, nodes=2) as (cluster, client):
        wished = ("--from-backup", str(file), "--without-vectors", "--embed", "minilm", "-c", cluster.coordinator)
        plan = await brainy("migrate", "plan", new, *wished)
        assert (plan["strategy"], plan["figures"]["texts"]) == ("sparse-import", len(texts))
        checks = {check["name"]: check for check in plan["checks"]}
        assert all(check["passed"] for check in checks.values()), checks
        assert {"vectors_or_model", "texts_stand_still", "embedding_answers", "texts_present"} < checks.keys()
        done = await brainy("migrate", "start", new, *wished, "--shards", "3", "--watch")
        assert (done["state"], done["digest_equal"]) == ("SUCCEEDED", True), done
        await assert_embedded(client, dict(texts), open_minilm().identity)
        hits = await client.search_many([second for _, second in PARAPHRASES], 1)
        assert [found[0].id for found in hits] == [f"doc-{n}" for n in range(len(PARAPHRASES))]
        assert [verb.id async for verb in client.scan_verbs()] == ["v1"]
        # From here on it is a namespace like any other, of that model.
        await client.add("something that was written later", {"text": "later"}, id="later")
        assert (await client.search("something that was written later", 1))[0].id == "later"
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("origin", ["tree", "brainy"])
async def test_a_bucket_or_a_json_backup_without_its_vectors(
    tmp_path: Path, endpoint: Endpoint, run_cluster: RunCluster, origin: str
) -> None:
    file, texts = await backed_up(tmp_path, endpoint, kind=BackupFormat.BRAINY)
    source = SourceSpec(
        backup="" if origin == "tree" else str(file),
        namespace=f"file://{tmp_path / 'old'}" if origin == "tree" else "",
        without_vectors=True,
    )
    target = TargetSpec(embedding=Reembedding.of(f"{endpoint.url}#{NEW}"))
    async with run_cluster(f"file://{tmp_path / 'new'}", nodes=2) as (cluster, client):
        for refused, wish in (
            (SourceSpec(namespace=source.namespace, backup=source.backup), target),
            (source, TargetSpec()),
        ):
            with pytest.raises(PreconditionError, match="vectors_or_model"):
                await client.start_migration(target=wish, source=refused, writers_stopped=True)
        begun = await client.start_migration(target=target, source=source, writers_stopped=True)
        ended = await client.wait_for_migration(begun.id)
        assert (ended.succeeded, ended.digest_equal, ended.strategy) == (True, True, "sparse-import"), ended.story
        await assert_embedded(client, dict(texts), endpoint.identity(NEW))
        assert (await client.search(PARAPHRASES[0][0], 1))[0].id == "doc-0"
        assert unexpected(cluster) == []


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_text_that_did_not_arrive_is_found_before_the_switch(
    tmp_path: Path, endpoint: Endpoint, run_cluster: RunCluster
) -> None:
    file, _ = await backed_up(tmp_path / "whole", endpoint)
    lesser = tmp_path / "lesser.backup"
    namespace = f"file://{tmp_path / 'whole' / 'old'}"
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    await store.delete("nouns/tree-7.json")
    options = BackupOptions(format=BackupFormat.NATIVE)
    await write_backup(store, namespace, lesser, options, clock=SystemClock(), ids=Ids())
    await store.close()
    named = tmp_path / "named.backup"
    await asyncio.to_thread(shutil.copyfile, lesser, named)
    async with run_cluster(f"file://{tmp_path / 'new'}", nodes=2) as (_, client):
        begun = await client.start_migration(
            target=TargetSpec(embedding=Reembedding.of(f"{endpoint.url}#{NEW}")),
            source=SourceSpec(backup=str(named), without_vectors=True),
            hold_before_switch=True,
        )
        await reached(client, begun, "READY")
        # The nodes filled from what lacks one noun; the coordinator reads what holds it.
        await asyncio.to_thread(shutil.copyfile, file, named)
        await client.promote_migration(begun.id)
        ended = await client.wait_for_migration(begun.id)
        assert (ended.state, ended.digest_equal) == ("ABORTED", False), ended.story
        assert (await client.get_statistics()).noun_count == 0
