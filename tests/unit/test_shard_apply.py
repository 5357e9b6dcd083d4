"""Applying the log to a shard: idempotence, refusals, what is remembered, and readers under way."""

from __future__ import annotations

import numpy as np
import pytest

from brainy.api.common.v1.common_pb2 import Position
from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import digest_of
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.records import Spec
from brainy.errors import CorruptDataError, InvalidRequestError, PreconditionError
from brainy_node.runtime.namespace import includes
from brainy_node.shard import requests as module
from brainy_node.shard.base import Base
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

SPEC = Spec(generation=1, dimensions=2, shard_count=1, source="empty")


def noun(name: str, x: float = 1.0, metadata: bytes | None = None) -> Noun:
    return Noun(id=name, vector=np.array([x, 1.0], "<f4").tobytes(), metadata=metadata)


def upsert(item: Noun, request_id: str = "") -> log_pb2.LogRecord:
    return log_pb2.LogRecord(upsert_noun=noun_to_proto(item), request_id=request_id)


def batch(first: int, *records: log_pb2.LogRecord, **more) -> log_pb2.LogBatch:
    return log_pb2.LogBatch(**{"generation": 1, "shard": 0, "first_position": first, "records": records, **more})


def base_of(path, nouns, verbs=(), position=0, spec=SPEC) -> Base:
    with BaseWriter(path, spec=spec, shard=0) as writer:
        writer.add_nouns(nouns)
        writer.add_verbs(verbs)
        writer.finish(position=position, threads=1)
    return Base.open(path)


@pytest.fixture
def shard(tmp_path):
    verbs = [Verb(id="v", source_id="a", target_id="b", type="likes")]
    return Shard.open(base_of(tmp_path / "base", [noun("a"), noun("b", 2.0)], verbs), SPEC, threads=1)


def test_applying_twice_changes_nothing_more(shard):
    one = batch(1, upsert(noun("c", 3.0)), log_pb2.LogRecord(delete_noun="a"), epoch=4, source_cursor={0: 9})
    shard.apply(one)
    before = (shard.applied, shard.digest(), shard.statistics(), shard.tail_records, shard.source_cursor, shard.epoch)
    shard.apply(one)
    # A slot that overlaps what is applied brings only its new records.
    assert before == (shard.applied, shard.digest(), shard.statistics(), 2, {0: 9}, 4)
    shard.apply(batch(2, log_pb2.LogRecord(delete_noun="a"), upsert(noun("a", 5.0)), source_cursor={0: 3, 1: 1}))
    assert (shard.applied, shard.source_cursor) == (3, {0: 9, 1: 1})
    assert [item.id for item in shard.get_nouns(["a", "b", "c"])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "wrong", [batch(3, upsert(noun("c"))), batch(1, generation=2), batch(1, upsert(noun("c")), shard=1)]
)
def test_gaps_and_other_logs_are_refused_whole(shard, wrong):
    digest = shard.digest()
    with pytest.raises(CorruptDataError):
        shard.apply(wrong)
    assert (shard.applied, shard.digest()) == (0, digest)


def test_deleting_what_is_not_there_is_harmless(shard):
    digest = shard.digest()
    shard.apply(batch(1, log_pb2.LogRecord(delete_noun="nobody"), log_pb2.LogRecord(delete_verb="nothing")))
    assert (shard.digest(), shard.applied) == (digest, 2)


def test_a_request_is_answered_with_the_last_of_its_first_records(shard, tmp_path, monkeypatch):
    shard.apply(batch(1, upsert(noun("c"), "r1"), upsert(noun("d"), "r1"), upsert(noun("e"), "r2")))
    shard.apply(batch(4, upsert(noun("c"), "r1")))
    assert [shard.position_of(request) for request in ("r1", "r2", "r3", "")] == [2, 3, None, None]
    shard.swap_base(
        base_of(
            tmp_path / "new",
            [noun(name, 2.0 if name == "b" else 1.0) for name in "abcde"],
            [Verb(id="v", source_id="a", target_id="b", type="likes")],
            position=4,
        )
    )
    assert shard.position_of("r1") == 2
    monkeypatch.setattr(module, "REMEMBERED_REQUESTS", 3)
    shard.apply(batch(5, *(upsert(noun("c"), f"s{i}") for i in range(3))))
    assert [shard.position_of(request) for request in ("r1", "r2", "s0", "s2")] == [None, None, 5, 7]


def test_a_base_that_does_not_fit_is_refused_and_the_old_one_goes_on(shard, tmp_path):
    shard.apply(batch(1, upsert(noun("c", 3.0))))
    for number, (nouns, position, spec, error) in enumerate(
        [
            ([noun("a"), noun("b", 2.0)], 2, SPEC, PreconditionError),
            (
                [noun("a"), noun("b", 2.0), noun("c", 3.0)],
                1,
                SPEC.model_copy(update={"metric": "ip"}),
                PreconditionError,
            ),
            ([noun("a"), noun("b", 2.0), noun("c", 4.0)], 1, SPEC, CorruptDataError),
        ]
    ):
        other = base_of(tmp_path / str(number), nouns, position=position, spec=spec)
        with pytest.raises(error):
            shard.swap_base(other)
    assert shard.search(np.array([[3.0, 1.0]], np.float32), 1).ids == ["c"]
    assert shard.tail_records == 1


def test_readers_under_way_see_the_moment_they_began(shard, tmp_path):
    shard.apply(batch(1, upsert(noun("c", 3.0, b'"old"'))))
    nouns, verbs = shard.scan_nouns(), shard.find_verbs("a", None, None)
    hits = shard.search(np.array([[3.0, 1.0]], np.float32), 3)
    shard.apply(
        batch(
            2, log_pb2.LogRecord(delete_noun="a"), upsert(noun("c", 3.0, b'"new"')), log_pb2.LogRecord(delete_verb="v")
        )
    )
    shard.swap_base(base_of(tmp_path / "new", [noun("b", 2.0), noun("c", 3.0, b'"new"')], position=4))
    assert sorted(item.id for part in nouns for item in part) == ["a", "b", "c"]
    assert [verb.id for part in verbs for verb in part] == ["v"]
    assert dict(zip(hits.ids, shard.metadata_of(hits), strict=True)) == {"a": b"", "b": b"", "c": b'"old"'}
    assert sorted(item.id for part in shard.scan_nouns() for item in part) == ["b", "c"]
    assert [part for part in shard.find_verbs("a", None, None) if part] == []


def test_items_can_be_read_without_their_vectors(shard):
    verb = Verb(id="w", source_id="b", target_id="a", type="owns", vector=b"\0\0\0\0", raw_vector=b"[0]")
    shard.apply(batch(1, upsert(noun("c", 3.0, b"{}")), log_pb2.LogRecord(upsert_verb=verb_to_proto(verb))))
    for item in (
        *shard.get_nouns(["a", "c"], include_vectors=False),
        *shard.get_verbs(["v", "w"], include_vectors=False),
    ):
        assert (item.vector, item.raw_vector) == (b"", None)
    assert [item.vector for part in shard.scan_nouns(include_vectors=False) for item in part] == [b""] * 3
    assert [v.vector for part in shard.find_verbs(None, None, None, include_vectors=False) for v in part] == [b""] * 2


def test_a_query_of_other_dimensions_is_refused(shard):
    with pytest.raises(InvalidRequestError) as raised:
        shard.search(np.ones((1, 3), np.float32), 1)
    assert raised.value.reason == "INVALID_DIMENSION"


def test_a_shard_without_dimensions_finds_nothing_until_they_are_decided(tmp_path):
    undecided = SPEC.model_copy(update={"dimensions": 0})
    shard = Shard.open(base_of(tmp_path / "base", [], spec=undecided), undecided, threads=1)
    query = np.array([[1.0, 1.0]], np.float32)
    nothing = shard.search(query, 3)
    assert (nothing.ids, nothing.counts.tolist(), shard.metadata_of(nothing)) == ([], [0], [])
    shard.use_spec(SPEC)
    shard.apply(batch(1, upsert(noun("a", metadata=b"{}"))))
    found = shard.search(query, 3)
    assert (found.ids, shard.metadata_of(found)) == (["a"], [b"{}"])


@pytest.mark.parametrize("metric", ["cos", "l2sq", "ip"])
@pytest.mark.parametrize("dimensions", [0, 2])
def test_nouns_taken_in_together_are_as_if_one_by_one(tmp_path, metric, dimensions):
    spec = SPEC.model_copy(update={"metric": metric, "dimensions": dimensions})
    base = base_of(tmp_path / "base", [noun("a"), noun("b", 2.0), noun("c", 7.0)] if dimensions else [], spec=spec)
    odd = [
        Noun(id="none"),
        Noun(id="zero", vector=bytes(8)),
        Noun(id="long", vector=bytes(12)),
        Noun(id="nan", vector=np.array([np.nan, 1], "<f4").tobytes(), raw_vector=b"[null,1]"),
        Noun(id="huge", vector=np.array([3e38, 3e38], "<f4").tobytes()),
        noun("gone", 4.0, b'{"deleted":true,"noun":"thing"}'),
        noun("made", 5.0, b'{"createdBy":{"augmentation":"x"}}'),
        Noun(id="a", vector=np.array([9, 1], "<f4").tobytes(), metadata=b"null", attributes=b"{}"),
    ]
    plain = [noun(f"n{number}", float(number), b'{"noun":"thing"}') for number in range(300)]
    again = [noun(f"n{number}", -1.0 - number) for number in range(0, 40, 2)]
    records = [
        *map(upsert, odd + plain),
        log_pb2.LogRecord(delete_noun="n7"),
        log_pb2.LogRecord(delete_noun="b"),
        *map(upsert, [*again, noun("n7", 3.0), noun("none", 6.0), *again[:9], *odd]),
    ]
    together, single = Shard.open(base, spec, threads=1), Shard.open(base, spec, threads=1)
    together.apply(batch(1, *records))
    for position, record in enumerate(records, 1):
        single.apply(batch(position, record))
    assert together.applied == single.applied == len(records)
    assert (
        together.digest()
        == single.digest()
        == digest_of((item.id, item.digest()) for part in single.scan_nouns() for item in part)
    )
    assert together.statistics() == single.statistics()
    assert sorted(together.unindexed()) == sorted(single.unindexed())
    names = [*(item.id for item in odd + plain), "b", "c"]
    assert together.get_nouns(names) == single.get_nouns(names)
    if dimensions:
        queries = np.array([[1.0, 1.0], [-3.0, 2.0], [200.0, 1.0]], np.float32)
        one, other = (each.search(queries, 20, include_soft_deleted=True) for each in (together, single))
        assert one.ids == other.ids
        assert one.distances.tolist() == other.distances.tolist()


def test_a_cursor_is_of_one_generation_and_outlives_a_fold(tmp_path):
    spec = SPEC.model_copy(update={"source": "0"})
    shard = Shard.open(base_of(tmp_path / "base", [noun("a")], spec=spec), spec, threads=1)
    advance = log_pb2.LogRecord(advance=log_pb2.Advance())
    assert shard.source_generation is None
    # Batches of older software do not say whose positions they are: those of the generation this one was made of.
    shard.apply(batch(1, advance, source_cursor={0: 7}))
    assert (shard.source_generation, shard.source_cursor) == (0, {0: 7})
    shard.apply(batch(2, advance, source_cursor={0: 3, 1: 4}, source_generation=2))
    assert (shard.source_generation, shard.source_cursor) == (2, {0: 3, 1: 4})
    # A repeat of what was applied before it followed another changes nothing.
    shard.apply(batch(1, advance, source_cursor={0: 7}))
    shard.apply(batch(3, advance, source_cursor={1: 9}, source_generation=2))
    assert (shard.source_generation, shard.source_cursor) == (2, {0: 3, 1: 9})
    with BaseWriter(tmp_path / "fold", spec=spec, shard=0) as writer:
        writer.finish(position=3, source_cursor=shard.source_cursor, source_generation=2, threads=1)
    again = Shard.open(Base.open(tmp_path / "fold"), spec, threads=1)
    assert (again.source_generation, again.source_cursor) == (2, {0: 3, 1: 9})


def test_a_replica_says_whether_it_includes_what_a_session_saw(tmp_path):
    spec = SPEC.model_copy(update={"source": "0", "shard_count": 2})
    shard = Shard.open(base_of(tmp_path / "base", [], spec=spec), spec, threads=1)
    advance = log_pb2.LogRecord(advance=log_pb2.Advance())

    def seen(generation: int, number: int, position: int) -> bool:
        return includes(shard, [Position(generation=generation, shard=number, position=position)])

    shard.apply(batch(1, advance, source_cursor={0: 7}))
    assert [seen(1, 0, 1), seen(1, 0, 2), seen(1, 1, 99)] == [True, False, True]
    assert [seen(0, 0, 7), seen(0, 0, 8), seen(0, 1, 99)] == [True, False, True]
    # Of a newer generation nothing is included before it was followed.
    assert not seen(2, 0, 1)
    shard.apply(batch(2, advance, source_cursor={0: 5}, source_generation=2))
    assert [seen(2, 0, 5), seen(2, 0, 6), seen(2, 1, 99)] == [True, False, True]
    # What lies further back was included before; what was never followed was not.
    assert [seen(0, 0, 8), seen(3, 0, 1)] == [True, False]
    shard.apply(batch(3, advance, source_cursor={0: 1}, source_generation=4))
    assert seen(3, 0, 1)
