"""Randomly damaged backups, every one of which must be refused before anything is asked of the namespace.

``make damage`` runs a thousand of them; DAMAGE_SEED and DAMAGE_RUNS choose others.
"""

from __future__ import annotations

import hashlib
import io
import os  # the number of runs is the caller's
import random  # noqa: TID251 - a seeded source, so that a failing run can be repeated
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from brainy.backup.archive import ArchiveWriter
from brainy.backup.document_writing import write_document
from brainy.backup.manifest import BackupManifest
from brainy.backup.native import NativeOptions, write_native
from brainy.backup.native_reading import CheckedNative
from brainy.backup.opening import check_backup
from brainy.backup.parts import PartSize
from brainy.backup.restoring import RestoreOptions, restore_backup
from brainy.bucket.items import Noun, Verb
from brainy.clock import SystemClock
from brainy.dataset.base import ItemBatch
from brainy.errors import BrainyError
from brainy.ids import Ids
from brainy.samples import sample_objects
from brainy.store.memory import MemoryStore

RUNS = int(os.environ.get("DAMAGE_RUNS", "120"))  # noqa: TID251 - a knob of the test, not of the product
FIRST = int(os.environ.get("DAMAGE_SEED", "1"))  # noqa: TID251 - likewise

Harm = Callable[[bytes, random.Random], bytes]


# --- bytes ---------------------------------------------------------------------------------------------------


def flip_bit(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]


def flip_some(body: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(2, 20)):
        body = flip_bit(body, rng)
    return body


def truncate(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body))]


def lose_a_block(body: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(body)), rng.randrange(1, 5000)
    return body[:at] + body[at + size :]


def zero_a_block(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) - 8)
    size = min(rng.randrange(8, 5000), len(body) - at)
    return body[:at] + bytes(size) + body[at + size :]


def repeat_a_block(body: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(body)), rng.randrange(1, 5000)
    return body[:at] + body[at : at + size] + body[at:]


def swap_blocks(body: bytes, rng: random.Random) -> bytes:
    size = rng.randrange(16, 2000)
    first = rng.randrange(len(body) - 3 * size)
    second = rng.randrange(first + size, len(body) - size)
    one, two = body[first : first + size], body[second : second + size]
    return body[:first] + two + body[first + size : second] + one + body[second + size :]


def append(body: bytes, rng: random.Random) -> bytes:
    return body + rng.randbytes(rng.randrange(1, 100))


BYTES: list[Harm] = [
    flip_bit,
    flip_some,
    truncate,
    lose_a_block,
    zero_a_block,
    repeat_a_block,
    swap_blocks,
    append,
]


# --- values of a JSON backup ---------------------------------------------------------------------------------


def _rewritten(change: Callable[[dict[str, Any], random.Random], None], *, lines: bool) -> Harm:
    def harm(body: bytes, rng: random.Random) -> bytes:
        document = orjson.loads(body)
        change(document, rng)
        if not lines:
            return orjson.dumps(document, option=rng.choice([None, orjson.OPT_INDENT_2]))
        # As we lay it out, so that only the hashes tell.
        parts = [
            b'"%s":[\n%s\n]' % (k.encode(), b",\n".join(map(orjson.dumps, document[k]))) for k in ("nouns", "verbs")
        ]
        head = orjson.dumps({"brainyCluster": document["brainyCluster"]})[:-1]
        names = ("nounTypes", "verbTypes", "hnswIndex", "version")
        rest = orjson.dumps({name: document[name] for name in names})[1:-1]
        return b",".join([head, *parts, rest]) + b',\n"integrity":' + orjson.dumps(document["integrity"]) + b"}\n"

    harm.__name__ = f"{change.__name__}{'_in_place' if lines else ''}"
    return harm


def remove_element(document: dict[str, Any], rng: random.Random) -> None:
    elements = document[rng.choice(["nouns", "verbs"])]
    del elements[rng.randrange(len(elements))]


def repeat_element(document: dict[str, Any], rng: random.Random) -> None:
    elements = document[rng.choice(["nouns", "verbs"])]
    elements.append(rng.choice(elements))


def alter_component(document: dict[str, Any], rng: random.Random) -> None:
    vector = rng.choice(document["nouns"])["vector"]
    at = rng.randrange(len(vector))
    vector[at] = float(np.nextafter(np.float32(vector[at]), np.float32(9)))


def swap_vectors(document: dict[str, Any], rng: random.Random) -> None:
    one, two = rng.sample(document["nouns"], 2)
    one["vector"], two["vector"] = two["vector"], one["vector"]


def alter_metadata(document: dict[str, Any], rng: random.Random) -> None:
    rng.choice(document["nouns"])["metadata"]["name"] = "somebody else"


def alter_verb(document: dict[str, Any], rng: random.Random) -> None:
    verb = rng.choice(document["verbs"])
    verb[rng.choice(["sourceId", "targetId", "type"])] += "x"


def alter_id(document: dict[str, Any], rng: random.Random) -> None:
    rng.choice(document["nouns"])["id"] += "x"


def alter_count(document: dict[str, Any], rng: random.Random) -> None:
    document["integrity"][rng.choice(["nouns", "verbs"])] += 1


def lose_the_seal(document: dict[str, Any], rng: random.Random) -> None:
    document[rng.choice(["integrity", "brainyCluster"])] = {}


CHANGES = [
    remove_element,
    repeat_element,
    alter_component,
    swap_vectors,
    alter_metadata,
    alter_verb,
    alter_id,
    alter_count,
    lose_the_seal,
]
DOCUMENT = BYTES + [_rewritten(change, lines=lines) for change in CHANGES for lines in (False, True)]


# --- parts of an archive -------------------------------------------------------------------------------------


def _entries(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(entries: dict[str, bytes], *, sealed: bool) -> bytes:
    """Pack entries again: with any tool, or sealed by somebody who means to deceive."""
    if not sealed:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return packed.getvalue()
    place = Path(os.environ["PYTEST_DAMAGE_SCRATCH"])  # noqa: TID251 - set by the fixture below
    place.unlink(missing_ok=True)
    writer = ArchiveWriter(place)
    for name, content in entries.items():
        writer.add_bytes(name, content)
    writer.seal()
    return place.read_bytes()


def _manifest(entries: dict[str, bytes]) -> BackupManifest:
    return BackupManifest.decode(entries["manifest.json"], key="manifest.json")


def _described(entries: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Put a part's true size and hash into the manifest."""
    manifest = _manifest(entries)
    parts = []
    for part in manifest.parts:
        if part.name == name:
            content = entries[name]
            rows = pq.read_table(io.BytesIO(content)).num_rows
            sha256 = hashlib.sha256(content).hexdigest()
            part = part.model_copy(update={"size": len(content), "sha256": sha256, "rows": rows})
        parts.append(part)
    told = manifest.model_copy(update={"parts": tuple(parts)})
    return {**entries, "manifest.json": told.encode()}


def swap_parts(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    one, two = rng.sample([name for name in entries if name.startswith("nouns/")], 2)
    return {**entries, one: entries[two], two: entries[one]}


def lose_a_part(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    gone = rng.choice(list(entries))
    return {name: content for name, content in entries.items() if name != gone}


def add_a_part(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    return {"nouns/extra.parquet": rng.choice(list(entries.values())), **entries}


def _edited(entries: dict[str, bytes], rng: random.Random, edit: Callable[[Any], Any]) -> dict[str, bytes]:
    name = rng.choice([name for name in entries if name.startswith("nouns/")])
    table = edit(pq.read_table(io.BytesIO(entries[name])))
    packed = io.BytesIO()
    pq.write_table(table, packed)
    return _described({**entries, name: packed.getvalue()}, name)


def lose_a_row(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    return _edited(entries, rng, lambda table: table.slice(1))


def take_a_row_twice(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    import pyarrow as pa

    return _edited(entries, rng, lambda table: pa.concat_tables([table, table.slice(0, 1)]))


def alter_a_row(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    def edit(table: Any) -> Any:
        import pyarrow as pa

        column = table.column("metadata").to_pylist()
        column[0] = '{"altered":true}'
        at = table.schema.get_field_index("metadata")
        return table.set_column(at, table.schema.field(at), pa.array(column, pa.string()))

    return _edited(entries, rng, edit)


def alter_the_manifest(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    manifest = _manifest(entries)
    change: dict[str, Any] = rng.choice(
        [{"nouns": manifest.nouns + 1}, {"verbs": 0}, {"digest": "0" * 64}, {"parts": manifest.parts[1:]}]
    )
    return {**entries, "manifest.json": manifest.model_copy(update=change).encode()}


def lose_a_checksum(entries: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    body = entries["manifest.json"]
    return {**entries, "manifest.json": body.replace(b'"nouns": 1', b'"nouns": 2', 1)}


PARTS = [
    swap_parts,
    lose_a_part,
    add_a_part,
    lose_a_row,
    take_a_row_twice,
    alter_a_row,
    alter_the_manifest,
    lose_a_checksum,
]


def _repacked(change: Callable[[dict[str, bytes], random.Random], dict[str, bytes]], *, sealed: bool) -> Harm:
    def harm(body: bytes, rng: random.Random) -> bytes:
        return _zipped(change(_entries(body), rng), sealed=sealed)

    harm.__name__ = f"{change.__name__}{'_sealed_again' if sealed else ''}"
    return harm


ARCHIVE = BYTES + [_repacked(change, sealed=sealed) for change in PARTS for sealed in (False, True)]


# --- the runs ------------------------------------------------------------------------------------------------


class Untouched:
    """A namespace that must not even be asked."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a damaged backup came as far as {name}")


async def _items() -> AsyncIterator[ItemBatch]:
    rng = np.random.default_rng(5)
    yield ItemBatch(
        nouns=[
            Noun(
                id=f"n{number}",
                vector=rng.standard_normal(8).astype("<f4").tobytes(),
                metadata=orjson.dumps({"name": f"item {number}", "n": number / 7}),
                attributes=b'{"level":0}',
            )
            for number in range(120)
        ]
    )
    yield ItemBatch(
        verbs=[
            Verb(id=f"v{number}", source_id=f"n{number}", target_id="n0", type="likes", weight=number / 3)
            for number in range(40)
        ]
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[bytes, list[Harm]]]]:
    import asyncio

    folder = tmp_path_factory.mktemp("pristine")

    async def make() -> None:
        await write_document(folder / "b.json", _items())
        store = MemoryStore()
        for key, body, _ in sample_objects():
            await store.put(key, body)
        options = NativeOptions(size=PartSize(unit_items=60))
        await write_native(store, "memory://x", folder / "b.backup", options, clock=SystemClock(), ids=Ids())

    asyncio.run(make())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DAMAGE_SCRATCH", str(folder / "scratch.zip"))
        yield {
            "json": ((folder / "b.json").read_bytes(), DOCUMENT),
            "native": ((folder / "b.backup").read_bytes(), ARCHIVE),
        }


@pytest.mark.timeout(600)
async def test_every_damaged_backup_is_refused(pristine: dict[str, tuple[bytes, list[Harm]]], tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    done: dict[str, int] = {}
    for name, (body, _) in pristine.items():
        path.write_bytes(body)
        assert check_backup(path).verification.sealed, name
    seed = FIRST
    while sum(done.values()) < RUNS:
        rng = random.Random(seed)
        kind = ("json", "native")[seed % 2]
        body, harms = pristine[kind]
        # Each kind of damage in turn, then at random places of it.
        harm = harms[(seed // 2) % len(harms)]
        damaged = harm(body, rng)
        seed += 1
        if damaged == body:
            continue
        path.write_bytes(damaged)
        for accept_rewritten in (False, kind == "json" and not harm.__name__.startswith(("flip", "zero"))):
            try:
                backup = check_backup(path, accept_rewritten=accept_rewritten)
                if accept_rewritten and backup.verification.digest == _digest_of(body, tmp_path):
                    continue  # the text differs, the values do not
                await restore_backup(backup, Untouched(), RestoreOptions(run="r", clear_existing=True))  # type: ignore[arg-type]
            except BrainyError:
                continue
            pytest.fail(f"seed {seed - 1}: {kind} damaged by {harm.__name__} was restored")
        done[f"{kind}: {harm.__name__}"] = done.get(f"{kind}: {harm.__name__}", 0) + 1
    print("\n".join(f"{count:5} {name}" for name, count in sorted(done.items())))


def _digest_of(body: bytes, folder: Path) -> str:
    place = folder / "whole"
    place.write_bytes(body)
    return check_backup(place).verification.digest


async def test_damage_to_an_older_file_of_a_chain_is_found(tmp_path: Path) -> None:
    store = MemoryStore()
    for key, body, _ in sample_objects():
        await store.put(key, body)
    await write_native(store, "memory://x", tmp_path / "0", NativeOptions(), clock=SystemClock(), ids=Ids())
    since = CheckedNative(tmp_path / "0")
    await store.delete(next(key for key, _, _ in sample_objects() if key.startswith("nouns/")))
    await write_native(store, "memory://x", tmp_path / "1", NativeOptions(since=since), clock=SystemClock(), ids=Ids())
    since.close()
    check_backup(tmp_path / "1")
    body = (tmp_path / "0").read_bytes()
    rng = random.Random(3)
    for harm in (flip_bit, truncate, zero_a_block, swap_blocks):
        (tmp_path / "0").write_bytes(harm(body, rng))
        with pytest.raises(BrainyError):
            check_backup(tmp_path / "1")
