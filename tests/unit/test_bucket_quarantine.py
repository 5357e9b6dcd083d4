"""The file of what could not be read: bytes come back, bounds hold, damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainy.bucket.quarantine import Kept, QuarantinedObject, QuarantineList, read_quarantine, write_quarantine
from brainy.dataset import kept as kept_module
from brainy.dataset.kept import NothingKept, TreeKept, beside_keys
from brainy.errors import CorruptDataError
from brainy.legacy.batch import Quarantined
from brainy.store.memory import MemoryStore

KEY = "cluster/generations/1/quarantine/0/x.parquet"
ROWS = [
    Kept(key="nouns/a.json", reason="not-json", size=3, sha256="ab", body=b"{\xff\x00"),
    Kept(key="nouns/ünï/б.json", reason="empty", size=0, sha256="cd", body=b""),
    Kept(key="verbs/v.json", reason="missing-ends", size=9, beside_key="verb-metadata/v.json", beside=b"\x00" * 9),
    Kept(key="nouns/huge.json", reason="too-large", size=1 << 40),
]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "q"
    assert write_quarantine(path, ROWS) == 4
    assert list(read_quarantine(path, key=KEY)) == ROWS
    assert list(read_quarantine(path.read_bytes(), key=KEY)) == ROWS
    listed = list(read_quarantine(path, key=KEY, with_bytes=False))
    assert [(row.key, row.reason, row.size, row.body) for row in listed] == [
        (row.key, row.reason, row.size, None) for row in ROWS
    ]


def test_the_older_form_is_read() -> None:
    old = QuarantineList(generation=1, shard=0, objects=(QuarantinedObject(key="a", reason="empty", size=0),))
    assert list(read_quarantine(old.encode(), key=KEY.replace(".parquet", ".json"))) == [
        Kept(key="a", reason="empty", size=0)
    ]


@pytest.mark.parametrize("body", [b"", b"PAR1", b"{}", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_damage_is_named(body: bytes) -> None:
    with pytest.raises(CorruptDataError, match="not a readable quarantine"):
        list(read_quarantine(body, key=KEY))


def test_a_writer_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def rows() -> object:
        yield ROWS[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_quarantine(tmp_path / "q", rows())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


async def test_bytes_are_kept_with_what_belongs_to_them_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    objects = {
        "nouns/a.json": b"<html>",
        "metadata/a.json": b'{"name": "a"}',
        "entities/verbs/vectors/v.json": b"{}",
        "entities/verbs/metadata/v.json": b'{"sourceId": "a"}',
        "nouns/big.json": b"x" * 100,
        "nouns/odd.txt": b"?",
    }
    for key, body in objects.items():
        await store.put(key, body)
    entries = [
        Quarantined(key, "not-json", len(body))
        for key, body in objects.items()
        if key not in ("metadata/a.json", "entities/verbs/metadata/v.json")
    ]
    entries += [Quarantined("nouns/gone.json", "empty", 0), Quarantined("nouns/huge.json", "too-large", 1 << 40)]
    monkeypatch.setattr(kept_module, "MAX_KEPT_BYTES", 50)
    rows = {row.key: row async for row in TreeKept(store).keep(entries)}

    assert rows.keys() == {entry.key for entry in entries}
    assert rows["nouns/a.json"].body == b"<html>"
    assert (rows["nouns/a.json"].beside_key, rows["nouns/a.json"].beside) == ("metadata/a.json", b'{"name": "a"}')
    assert rows["entities/verbs/vectors/v.json"].beside == b'{"sourceId": "a"}'
    assert (rows["nouns/odd.txt"].body, rows["nouns/odd.txt"].beside_key) == (b"?", None)
    for key in ("nouns/big.json", "nouns/gone.json", "nouns/huge.json"):
        assert rows[key].body is None
    assert rows["nouns/huge.json"].size == 1 << 40

    monkeypatch.setattr(kept_module, "MAX_SHARD_BYTES", 20)
    bounded = [row async for row in TreeKept(store).keep(entries)]
    assert sum(row.kept_bytes for row in bounded) <= 20
    assert {row.key for row in bounded} == rows.keys()
    assert {row.body async for row in NothingKept().keep(entries)} == {None}


def test_what_belongs_to_an_object() -> None:
    assert "metadata/x/y.json" in beside_keys("nouns/x/y.json")
    assert beside_keys("verbs/v.json") == ("verb-metadata/v.json",)
    assert "nouns/a.json" in beside_keys("metadata/a.json")
    assert beside_keys("entities/verbs/metadata/v.json") == ("entities/verbs/vectors/v.json",)
    assert beside_keys("nouns/odd.txt") == beside_keys("anything") == ()
