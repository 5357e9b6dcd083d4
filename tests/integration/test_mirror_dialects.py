"""Every recorded bucket, item by item: read, rendered in its own dialect, and read again by a reader of its version."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from brainy.bucket.items import Noun, Verb
from brainy.legacy.dialect.dialects import DIALECTS, Dialect
from brainy.legacy.dialect.entries import Place
from brainy.legacy.dialect.rendering import Bounds, Rendered, render_noun, render_verb
from brainy.legacy.keys import Kind, parse
from brainy.legacy.living import living_dialect
from brainy.legacy.objects import build_noun, build_verb, open_object
from brainy.legacy.values import compact, dump_json
from brainy.store.memory import MemoryStore
from brainy.testing.brainy_reader import BrainyReader
from brainy.testing.clock import ManualClock
from brainy.testing.fixtures import fixtures_root, load_fixture, read_objects, read_truth

ROOT = fixtures_root()
DIALECT_OF = {
    "v0.20.0": "flat-one-piece",
    "v0.30.0": "flat-one-piece",
    "v0.36.0": "flat-split",
    "v0.36.0-native512": "flat-split",
    "v0.46.0": "flat-split",
    "v0.46.0-distributed": "flat-split",
    "v0.46.0-writeonly": "flat-split",
    "v0.48.1": "entity",
    "v0.57.0": "entity",
    "v0.62.3": "entity",
    "v1.1.1": "entity",
}

pytestmark = pytest.mark.skipif(
    ROOT is None, reason="the recorded buckets are not here (set BRAINY_FIXTURES to their directory)"
)


def place(number: int) -> Place:
    return Place(shard=0, position=number, milliseconds=1_800_000_000_000)


class Recorded:
    """The items of a recorded bucket, and the objects they came from.

    With ``doubles`` vectors are kept as they were stored, as a backup keeps them; otherwise as they are served.
    """

    def __init__(self, folder: Path, dialect: Dialect, *, doubles: bool) -> None:
        self.bodies = {item.key: item.body for item in read_objects(folder)}
        keys = dialect.keys
        self.nouns: list[Noun] = []
        self.verbs: list[Verb] = []
        for key, body in self.bodies.items():
            parsed = parse(key)
            if parsed.tree != keys.tree or parsed.kind not in (Kind.NOUN, Kind.VERB):
                continue
            item_id, fields = open_object(body)
            beside = self.bodies.get(f"{keys.companions(parsed.kind)}{item_id}.json")
            raw: dict[str, Any] = {"raw_vector": dump_json(fields["vector"])} if doubles else {}
            if parsed.kind is Kind.NOUN:
                noun = build_noun(item_id, fields, None if beside is None else compact(beside))
                self.nouns.append(dataclasses.replace(noun, **raw))
            else:
                verb = build_verb(item_id, fields, beside)
                self.verbs.append(dataclasses.replace(verb, **raw))


async def carry_out(store: MemoryStore, rendered: Rendered) -> None:
    for write in rendered.writes:
        if write.body is None:
            await store.delete(write.key)
        else:
            await store.put(write.key, write.body)
    for entry in rendered.entries:
        await store.put(entry.key, entry.body, user_metadata=entry.user_metadata)


@pytest.mark.parametrize("folder", DIALECT_OF)
async def test_what_is_rendered_is_read_as_the_same_item(folder: str) -> None:
    assert ROOT is not None
    dialect = DIALECTS[DIALECT_OF[folder]]
    version = folder.removeprefix("v").partition("-")[0]
    before, after = MemoryStore(ManualClock()), MemoryStore(ManualClock())
    await load_fixture(before, ROOT / folder)
    assert await living_dialect(before) is dialect
    recorded = Recorded(ROOT / folder, dialect, doubles=True)
    assert recorded.nouns
    rendered = [render_noun(dialect, noun, place(at), Bounds()) for at, noun in enumerate(recorded.nouns)]
    rendered += [render_verb(dialect, verb, place(at), Bounds()) for at, verb in enumerate(recorded.verbs, 10_000)]
    for one in rendered:
        assert not any(limit.withheld for limit in one.limits)
        await carry_out(after, one)
        for write in one.writes:
            was = recorded.bodies.get(write.key)
            if was is None:
                assert write.body is None, write.key
                continue
            assert said(write.body) == said(was), write.key

    old, new = BrainyReader(before, version), BrainyReader(after, version)
    nouns, verbs = await new.nouns(), await new.verbs()
    assert nouns == {
        name: dataclasses.replace(noun, level=nouns[name].level) for name, noun in (await old.nouns()).items()
    }
    assert verbs == await old.verbs()
    truth = read_truth(ROOT / folder)
    assert set(nouns) >= set(truth["nouns"])
    assert set(verbs) >= set(truth["verbs"])


def said(body: bytes | None) -> Any:
    """What an object says but for the graph, and for the second names of what a verb of 0.20 says once."""
    assert body is not None
    value = json.loads(body)
    if isinstance(value, dict) and "vector" in value:
        value.pop("connections", None)
        value.pop("level", None)
    if isinstance(value, dict) and "sourceId" in value:
        value.setdefault("source", value["sourceId"])
        value.setdefault("target", value["targetId"])
        value.setdefault("verb", value["type"])
    return value


@pytest.mark.parametrize("folder", DIALECT_OF)
async def test_what_is_rendered_reads_back_as_the_item_it_was_made_from(folder: str) -> None:
    assert ROOT is not None
    dialect = DIALECTS[DIALECT_OF[folder]]
    recorded = Recorded(ROOT / folder, dialect, doubles=False)
    store = MemoryStore(ManualClock())
    for at, noun in enumerate(recorded.nouns):
        await carry_out(store, render_noun(dialect, noun, place(at), Bounds()))
        own = await store.get(f"{dialect.keys.nouns}{noun.id}.json")
        beside = await store.get(f"{dialect.keys.noun_metadata}{noun.id}.json")
        assert own is not None
        _, fields = open_object(own.body)
        assert build_noun(noun.id, fields, None if beside is None else compact(beside.body)) == noun
    for at, verb in enumerate(recorded.verbs):
        await carry_out(store, render_verb(dialect, verb, place(at), Bounds()))
        own = await store.get(f"{dialect.keys.verbs}{verb.id}.json")
        beside = await store.get(f"{dialect.keys.verb_metadata}{verb.id}.json")
        assert own is not None
        _, fields = open_object(own.body)
        assert build_verb(verb.id, fields, None if beside is None else beside.body) == verb
