"""Texts imported by the command with the offline model, killed on the way and begun again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import pytest

from brainy.clock import SystemClock
from brainy.config.environment import inherited
from brainy.embedding.function import FunctionEmbedder
from brainy.embedding.minilm import open_minilm
from brainy.errors import EmbeddingMismatchError
from brainy.sdk.client import AsyncBrainy
from tests.corpus import PARAPHRASES, sentences
from tests.e2e.conftest import RunCluster, unexpected

#: Change-log objects after which the importer is killed. Four are the owners' fences; each window writes one a shard.
KILL_AFTER = {300: 4 + 1, 5000: 4 + 30}


def write_rows(path: Path, count: int) -> list[str]:
    """Write lines of texts, every other one with an id; returns the texts."""
    texts = [first for first, _ in PARAPHRASES]
    texts += sentences(count - len(texts))
    rows = [
        {"metadata": {"text": text, "noun": "document", "n": n}} | ({"id": f"doc-{n}"} if n % 2 else {})
        for n, text in enumerate(texts)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return texts


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "brainy.cli.main", *arguments]


async def brainy(*arguments: str) -> Any:
    """Run the command; returns what it printed, as JSON."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (out, err)
    return orjson.loads(out)


async def killed_importer(rows: Path, bucket: Path, state: Path, *, after_slots: int) -> None:
    """Run an importer with a cluster of its own, and kill it once its log has so many objects."""
    log = bucket / "cluster" / "generations" / "0" / "change-log"
    with (state.parent / "importer.log").open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - starts at once
            command("import", str(rows), f"file://{bucket}", "--embed", "minilm", "--dir", str(state)),
            env=inherited(),
            stdout=output,
            stderr=output,
        )
    clock = SystemClock()
    deadline = clock.monotonic() + 600
    while sum(1 for path in log.rglob("*") if path.is_file()) < after_slots:
        assert process.poll() is None, (state.parent / "importer.log").read_text()
        assert clock.monotonic() < deadline
        await asyncio.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 20)
    assert not alive


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(240)]),
        pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_an_import_that_was_killed_goes_on_and_sentences_find_their_paraphrases(
    count: int, tmp_path: Path, run_cluster: RunCluster
) -> None:
    rows, bucket = tmp_path / "rows.jsonl", tmp_path / "bucket"
    texts = write_rows(rows, count)
    await killed_importer(rows, bucket, tmp_path / "importer", after_slots=KILL_AFTER[count])
    async with run_cluster(f"file://{bucket}", nodes=1) as (cluster, client):
        before = (await client.get_statistics()).noun_count
        assert 0 < before < count
        told = await brainy("import", str(rows), f"file://{bucket}", "-e", cluster.endpoints[0])
        # What was stored is not embedded again, the rest is, nothing is doubled.
        assert told["unchanged"] == before
        assert told["nouns_imported"] == told["embedded"] == count - before
        assert told["skipped"] == []
        print(f"{before} of {count} before the kill, then {told['embedded']} texts in {told['seconds']} s")
        again = await brainy("import", str(rows), f"file://{bucket}", "-e", cluster.endpoints[0])
        assert (again["unchanged"], again["embedded"], again["nouns_imported"]) == (count, 0, 0)
        statistics = await client.get_statistics()
        assert (statistics.noun_count, statistics.unindexed_count) == (count, 0)
        assert statistics.embedding == open_minilm().identity
        await everything_is_there(client, texts)
        await paraphrases_are_found(client)
        hits = await brainy(
            "search", f"file://{bucket}", "--text", PARAPHRASES[4][1], "-k", "1", "-e", cluster.endpoints[0]
        )
        assert hits[0]["metadata"]["text"] == PARAPHRASES[4][0]
        if count < 1000:
            await the_model_outlives_a_migration(client)
        assert unexpected(cluster) == []


async def everything_is_there(client: AsyncBrainy, texts: list[str]) -> None:
    found = {}
    async for noun in client.scan():
        assert noun.vector is not None
        found[noun.metadata["n"]] = (noun.metadata["text"], noun.vector)
    assert {n: text for n, (text, _) in found.items()} == dict(enumerate(texts))
    some = list(range(0, len(texts), max(1, len(texts) // 40)))
    anew = await asyncio.to_thread(open_minilm().embed, [texts[n] for n in some])
    likeness = np.einsum("ij,ij->i", anew, np.stack([found[n][1] for n in some]))
    assert likeness.min() > 0.998


async def paraphrases_are_found(client: AsyncBrainy) -> None:
    # The client was told of no model: it takes the one that the namespace records.
    assert client.embedder is None
    hits = await client.search_many([second for _, second in PARAPHRASES], 1)
    assert [found[0].metadata["text"] for found in hits] == [first for first, _ in PARAPHRASES]


async def the_model_outlives_a_migration(client: AsyncBrainy) -> None:
    before = (await client.get_statistics()).embedding
    migration = await client.start_migration("in-place-upgrade", requested_by="test")
    ended = await client.wait_for_migration(migration.id)
    assert ended.state == "SUCCEEDED"
    statistics = await client.get_statistics()
    assert (statistics.generation, statistics.embedding) == (1, before)
    await paraphrases_are_found(client)
    stranger = FunctionEmbedder(lambda texts: np.ones((len(texts), 384)), model="stranger")
    with pytest.raises(EmbeddingMismatchError):
        await client.import_sparse_data([{"metadata": {"text": "one more"}}], stranger)
    await client.add("One more sentence.", id="one-more")
    assert (await client.search("one more sentence", 1))[0].id == "one-more"
