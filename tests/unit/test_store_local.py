"""What is special about the directory store: names, foreign files, ETags, what is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.errors import PermissionDeniedError, UnavailableError
from brainy.store.base import PutState
from brainy.store.directory_files import translate
from brainy.store.filenames import directory_part, file_part, key_path, plain_path
from brainy.store.local import LocalStore

PARTS = st.text(
    st.sampled_from("ab.%25DFLW0é/") | st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    max_size=12,
) | st.text("x%é.", min_size=80, max_size=300)
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(lambda key: key and key[0] != "/")


def decoded(path: str) -> str:
    """Read a path back the way the listing does."""
    *parents, name = path.split("/")
    key = ""
    for parent in parents:
        part = directory_part(parent)
        assert part is not None
        key += part[0] + ("/" if part[1] else "")
    last = file_part(name)
    assert last is not None
    return key + last


@settings(deadline=None)
@given(KEYS)
def test_every_key_has_a_name_a_file_system_can_hold(key: str) -> None:
    path = key_path(key)
    assert decoded(path) == key
    for name in path.split("/"):
        assert name not in ("", ".", "..")
        assert len(name.encode()) <= 255


@settings(deadline=None)
@given(KEYS, KEYS)
def test_a_file_is_never_another_keys_directory(first: str, second: str) -> None:
    one, two = key_path(first), key_path(second)
    assert not two.startswith(one + "/")
    assert (one == two) == (first == second)


@pytest.mark.parametrize(
    "key",
    [
        "nouns/b85c0d28-70e9-4bd5-8cd1-4e16b26d1e6d.json",
        "nouns/50% & more+é.json",
        "cluster/generations/1/change-log/0/00000000000000000001.log",
        "nouns/a%2Fb.json",
    ],
)
def test_ordinary_keys_are_their_own_path(key: str) -> None:
    assert key_path(key) == key
    assert plain_path(key) is None


async def keys_of(store: LocalStore, prefix: str = "") -> list[str]:
    return [item.key async for page in store.list(prefix) for item in page]


async def test_files_of_other_tools_are_objects(tmp_path: Path) -> None:
    for key in ("nouns/a.json", "nouns/d.json/e.json", "locks/statistics-flush"):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(key.encode())
    store = LocalStore(tmp_path)
    keys = ["locks/statistics-flush", "nouns/a.json", "nouns/d.json/e.json"]
    assert await keys_of(store) == keys
    assert await keys_of(store, "nouns/d.json/") == keys[2:]
    for key in keys:
        found = await store.get(key)
        assert found is not None
        assert found.body == key.encode()
        assert (await store.put_if_absent(key, b"")).state is PutState.LOST
        assert (await store.put_if_match(key, b"new", "stale")).state is PutState.LOST
        assert (await store.put_if_match(key, b"new", found.etag)).won
    assert await keys_of(store) == keys
    for key in keys:
        await store.put(key, b"newer")
        found = await store.get(key)
        assert found is not None
        assert found.body == b"newer"
        await store.delete(key)
        assert await store.get(key) is None
    assert await keys_of(store) == []


async def test_an_empty_or_missing_directory_is_empty(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "not" / "there")
    assert await keys_of(store) == []
    assert await store.get("a.json") is None
    await store.delete("a.json")
    await store.put("a.json", b"1")
    assert (tmp_path / "not" / "there" / "a.json").read_bytes() == b"1"


async def test_etags_never_repeat(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, durable=False)
    etags = {await store.put("same.json", b"same") for _ in range(500)}
    assert len(etags) == 500


async def test_the_working_area_is_invisible_and_kept_tidy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.put("a.json", b"1")
    await store.put_if_absent("a.json", b"2")
    await store.put_if_absent("b.json", b"2")
    assert await keys_of(store) == ["a.json", "b.json"]
    left = [path.name for path in (tmp_path / ".store%W").iterdir()]
    assert all(name.startswith("lock-") for name in left)
    crashed = tmp_path / ".store%W" / "left-by-a-crash%W"
    crashed.write_bytes(b"half")
    running = tmp_path / ".store%W" / "still-written%W"
    running.write_bytes(b"half")
    os.utime(crashed, (1e9, 1e9))
    assert await keys_of(store) == ["a.json", "b.json"]
    await LocalStore(tmp_path).put("c.json", b"3")
    assert not crashed.exists()
    assert running.exists()


async def test_a_reader_keeps_the_object_it_opened(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.put("a.json", b"old")
    with (tmp_path / "a.json").open("rb") as reader:
        await store.put("a.json", b"new and longer")
        assert reader.read() == b"old"


async def test_trouble_of_the_file_system_is_typed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        await LocalStore(tmp_path / "file").put("a.json", b"1")
    assert isinstance(translate(PermissionError(13, "no"), "a"), PermissionDeniedError)
    assert isinstance(translate(OSError(30, "read-only"), "a"), PermissionDeniedError)
    full = translate(OSError(28, "full"), "a")
    assert "free some space" in str(full)


async def test_names_that_are_not_unicode_are_nobodys_key(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.json")).write_bytes(b"")
    store = LocalStore(tmp_path)
    await store.put("a.json", b"1")
    assert await keys_of(store) == ["a.json"]
