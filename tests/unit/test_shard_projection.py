"""The digest without vectors: what it sees, and that it stays right while records are applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import MultisetDigest, digest_of
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.projection import Projection
from brainy.bucket.records import Spec
from brainy.embedding.projection import projected_hash
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

SPEC = Spec(generation=1, dimensions=2, shard_count=1, source="empty", metric="l2sq")
MODEL = EmbeddingIdentity(model="new", dimensions=2)
WILL, IS, ASIDE = Projection(embedding=MODEL, expected=True), Projection(embedding=MODEL), Projection()


def noun(name: str, *vector: float, text: str | None = None, more: int = 0) -> Noun:
    metadata = None if text is None else orjson.dumps({"text": text, "more": more})
    return Noun(id=name, vector=np.array(vector, "<f4").tobytes(), metadata=metadata)


def test_the_expected_side_equals_the_one_that_was_embedded() -> None:
    before = [noun("a", 1, 2, 3, text="one"), noun("b", 4, 5), noun("c", text="three")]
    after = [noun("a", 7, 8, text="one"), noun("b"), noun("c", 1, 1, text="three")]

    def hashes(projection: Projection, nouns: list[Noun]) -> list[bytes]:
        return [projected_hash(projection, each, len(each.vector)) for each in nouns]

    assert hashes(WILL, before) == hashes(IS, after)
    assert hashes(IS, before)[0] != hashes(IS, after)[0], "one that was not embedded is seen"
    assert hashes(IS, before)[1] == hashes(IS, after)[1], "without a text there is nothing to embed"
    assert hashes(ASIDE, before) == hashes(ASIDE, after)
    assert hashes(WILL, before) != hashes(ASIDE, before)
    other = Projection(embedding=MODEL.model_copy(update={"revision": "2"}))
    assert hashes(other, after)[0] != hashes(IS, after)[0]
    changed = [noun("a", 7, 8, text="one", more=1), noun("a2", 7, 8, text="one"), noun("a", 7, 8, text="other")]
    assert hashes(IS, after)[0] not in hashes(IS, changed)


def base_of(directory: Path, nouns: list[Noun], verbs: list[Verb], position: int = 0) -> Base:
    with BaseWriter(directory, spec=SPEC, shard=0) as writer:
        writer.add_nouns(nouns)
        writer.add_verbs(verbs)
        writer.finish(position=position, threads=1)
    return Base.open(directory)


def recounted(shard: Shard, projection: Projection) -> MultisetDigest:
    nouns = [each for batch in shard.scan_nouns() for each in batch]
    verbs = [each for batch in shard.find_verbs(None, None, None) for each in batch]
    digest = digest_of((each.id, projected_hash(projection, each, len(each.vector))) for each in nouns)
    digest.merge(digest_of((each.id, each.digest()) for each in verbs))
    return digest


_IDS = st.sampled_from("abcdefghijkl")
_TEXTS = st.none() | st.sampled_from(["", "one", "two"])
_NOUNS = st.builds(
    lambda name, length, text: noun(name, *[1.0] * length, text=text), _IDS, st.sampled_from([0, 2, 3]), _TEXTS
)
_RECORDS = st.one_of(
    _NOUNS.map(lambda each: log_pb2.LogRecord(upsert_noun=noun_to_proto(each))),
    _IDS.map(lambda name: log_pb2.LogRecord(delete_noun=name)),
    st.tuples(_IDS, _IDS).map(
        lambda two: log_pb2.LogRecord(
            upsert_verb=verb_to_proto(Verb(id=two[0], source_id="a", target_id=two[1], type="likes"))
        )
    ),
    _IDS.map(lambda name: log_pb2.LogRecord(delete_verb=name)),
    st.just(log_pb2.LogRecord(advance=log_pb2.Advance())),
)


@settings(max_examples=15, deadline=None)
@given(
    data=st.data(),
    first=st.lists(_NOUNS, max_size=12, unique_by=lambda each: each.id),
    batches=st.lists(st.lists(_RECORDS, min_size=1, max_size=20), min_size=3, max_size=5),
    projection=st.sampled_from([WILL, IS, ASIDE]),
)
def test_it_is_kept_with_every_record_whenever_it_was_counted(
    data: st.DataObject,
    first: list[Noun],
    batches: list[list[log_pb2.LogRecord]],
    projection: Projection,
    tmp_path_factory: object,
) -> None:
    directory = tmp_path_factory.mktemp("shard")  # type: ignore[attr-defined]
    verbs = [Verb(id="a", source_id="a", target_id="b", type="likes")]
    shard = Shard.open(base_of(directory / "base", first, verbs), SPEC, threads=1)
    begin, count = (data.draw(st.integers(0, len(batches))) for _ in range(2))
    steps = None
    for number in range(len(batches) + 1):
        if number == begin:
            steps = shard.project(projection)
            kept = shard.projected()
            assert kept is not None
            assert kept[1] is None
        if steps is not None and number == max(begin, count):
            for _ in steps:
                pass
        if number < len(batches):
            batch = log_pb2.LogBatch(generation=1, shard=0, first_position=shard.applied + 1, records=batches[number])
            shard.apply(batch)
        if number == len(batches) - 1:
            # A fold in between changes what lies where, not what is held.
            contents = shard.contents()
            nouns = [contents.base.noun(row) for row in contents.rows] + [each for each, _ in contents.nouns]
            kept_verbs = [contents.base.verb(row) for row in contents.verb_rows] + [each for each, _ in contents.verbs]
            folded = base_of(directory / "folded", nouns, kept_verbs, position=shard.applied)
            if steps is not None and number >= max(begin, count):
                shard.swap_base(folded)
    kept = shard.projected()
    assert kept is not None
    assert kept == (projection, recounted(shard, projection), shard.applied)
    shard.project(None)
    assert shard.projected() is None


def test_bounds_are_those_of_what_can_be_searched(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", [noun("a", 3, 4), noun("b", 0, 0), noun("c", 1, 1, 1)], [])
    shard = Shard.open(base, SPEC, threads=1)
    bounds = shard.vector_bounds()
    assert (bounds.count, bounds.zeros, bounds.largest) == (2, 1, 5.0)
    records = [log_pb2.LogRecord(upsert_noun=noun_to_proto(each)) for each in (noun("b", 1, 1), noun("d", -70_000, 0))]
    shard.apply(log_pb2.LogBatch(generation=1, shard=0, first_position=1, records=records))
    bounds = shard.vector_bounds()
    assert (bounds.count, bounds.zeros, bounds.largest) == (3, 0, 70_000.0)
    # Long, with small components: only then are they looked at.
    long = base_of(tmp_path / "long", [noun("a", 50_000, 50_000), noun("b", 61_000, 0)], [])
    assert Shard.open(long, SPEC, threads=1).vector_bounds().largest == 61_000.0
