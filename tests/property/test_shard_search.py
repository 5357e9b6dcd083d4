"""A shard against a dictionary: whatever is written, deleted, replaced and folded, both say the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.digest import digest_of
from brainy.bucket.items import Noun, Verb, noun_to_proto, unindexed_reason, verb_to_proto
from brainy.bucket.records import Spec
from brainy_node.shard import metric as distances
from brainy_node.shard.base import Base
from brainy_node.shard.facts import facts_of
from brainy_node.shard.shard import Shard
from brainy_node.shard.writer import BaseWriter

DIMENSIONS = 4


def spec_of(metric: str, scalar_kind: str = "f32", dimensions: int = DIMENSIONS) -> Spec:
    return Spec.model_validate(
        {
            "generation": 3,
            "dimensions": dimensions,
            "metric": metric,
            "scalar_kind": scalar_kind,
            "shard_count": 2,
            "source": "empty",
        }
    )


class Model:
    """What the shard must be equal to: two dictionaries, and their copies at every position."""

    def __init__(self) -> None:
        self.nouns: dict[str, Noun] = {}
        self.verbs: dict[str, Verb] = {}
        self.history: list[tuple[dict[str, Noun], dict[str, Verb]]] = [({}, {})]

    def apply(self, operation: Noun | Verb | tuple[str, str] | None) -> log_pb2.LogRecord:
        record = log_pb2.LogRecord(request_id=f"r{len(self.history)}")
        if isinstance(operation, Noun):
            self.nouns[operation.id] = operation
            record.upsert_noun.CopyFrom(noun_to_proto(operation))
        elif isinstance(operation, Verb):
            self.verbs[operation.id] = operation
            record.upsert_verb.CopyFrom(verb_to_proto(operation))
        elif operation is None:
            record.advance.SetInParent()
        elif operation[0] == "noun":
            self.nouns.pop(operation[1], None)
            record.delete_noun = operation[1]
        else:
            self.verbs.pop(operation[1], None)
            record.delete_verb = operation[1]
        self.history.append((dict(self.nouns), dict(self.verbs)))
        return record

    def base(self, root: Path, spec: Spec, position: int) -> Base:
        nouns, verbs = self.history[position]
        directory = Path(tempfile.mkdtemp(dir=root))
        with BaseWriter(directory, spec=spec, shard=1) as writer:
            writer.add_nouns(list(nouns.values()))
            writer.add_verbs(list(verbs.values()))
            writer.finish(position=position, source_cursor={0: position}, threads=1)
        return Base.open(directory)


# Few ids and few values, so that replacing, deleting and ties happen all the time.
noun_ids = st.integers(0, 11).map(lambda i: f"n{i}")
component = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
vectors = st.one_of(
    st.lists(component, min_size=DIMENSIONS, max_size=DIMENSIONS),
    st.sampled_from([[], [0.0] * DIMENSIONS, [1.0], [float("nan"), 1.0, 1.0, 1.0], [float("inf")] * DIMENSIONS]),
).map(lambda values: np.asarray(values, "<f4").tobytes())
documents = st.sampled_from(
    [
        None,
        b"null",
        b'"text"',
        b"{broken",
        b'{"noun":"person","createdBy":{"augmentation":"github"}}',
        b'{"nounType":"thing","createdBy":"someone"}',
        b'{"deleted":true,"noun":"person"}',
        b'{"deleted":"true"}',
    ]
)
nouns = st.builds(Noun, id=noun_ids, vector=vectors, metadata=documents, attributes=st.sampled_from([None, b"{}"]))
verbs = st.builds(
    Verb,
    id=st.integers(0, 5).map(lambda i: f"v{i}"),
    source_id=noun_ids,
    target_id=noun_ids,
    type=st.sampled_from(["owns", "likes", ""]),
    weight=st.sampled_from([None, 0.0, 0.25]),
    vector=st.sampled_from([b"", b"\0\0\x80?"]),
    metadata=documents,
    attributes=st.sampled_from([None, b'{"createdBy":{"augmentation":"slack"}}', b'{"createdBy":{"version":"1"}}']),
)
operations = st.lists(
    st.one_of(
        nouns,
        nouns,
        verbs,
        st.tuples(st.just("noun"), noun_ids),
        st.tuples(st.just("verb"), st.integers(0, 5).map(lambda i: f"v{i}")),
        st.none(),
        st.floats(0.0, 1.0).map(lambda share: ("swap", share)),
    ),
    max_size=40,
)


def check(shard: Shard, model: Model, k: int) -> None:
    assert {noun.id: noun for batch in shard.scan_nouns() for noun in batch} == model.nouns
    visible = {n.id for n in model.nouns.values() if not facts_of(n.metadata).soft_deleted}
    assert sorted(n.id for batch in shard.scan_nouns(include_soft_deleted=False) for n in batch) == sorted(visible)
    everything = [f"n{i}" for i in range(12)]
    assert shard.get_nouns(everything) == [model.nouns[i] for i in everything if i in model.nouns]
    every_verb = [f"v{i}" for i in range(6)]
    assert shard.get_verbs(every_verb) == [model.verbs[i] for i in every_verb if i in model.verbs]
    for source, target, kind in (
        (None, None, None),
        ("n1", None, None),
        (None, "n2", None),
        (None, None, "owns"),
        ("n3", "n4", None),
        ("n1", None, "likes"),
    ):
        found = [verb for batch in shard.find_verbs(source, target, kind) for verb in batch]
        assert len(found) == len({verb.id for verb in found})
        assert {verb.id: verb for verb in found} == {
            verb.id: verb
            for verb in model.verbs.values()
            if source in (None, verb.source_id) and target in (None, verb.target_id) and kind in (None, verb.type)
        }
    items = [*model.nouns.values(), *model.verbs.values()]
    assert shard.digest() == digest_of((item.id, item.digest()) for item in items)
    facts = [facts_of(noun.metadata) for noun in model.nouns.values()]
    unindexed = {
        noun.id: reason.value
        for noun in model.nouns.values()
        if (reason := unindexed_reason(noun.vector, DIMENSIONS, shard.spec.metric))
    }
    figures = shard.statistics()
    assert (figures.nouns, figures.verbs) == (len(model.nouns), len(model.verbs))
    assert figures.soft_deleted == sum(fact.soft_deleted for fact in facts)
    assert figures.unindexed == len(unindexed)
    assert dict(shard.unindexed()) == unindexed
    assert figures.nouns_by_service == Counter(fact.service for fact in facts)
    assert figures.nouns_by_type == Counter(fact.type for fact in facts)
    assert figures.verbs_by_type == Counter(verb.type for verb in model.verbs.values())
    assert figures.verbs_by_service == Counter(service_of(verb) for verb in model.verbs.values())
    documented = [fact for noun, fact in zip(model.nouns.values(), facts, strict=True) if noun.metadata is not None]
    assert figures.metadata_by_service == Counter(fact.service for fact in documented)
    check_search(shard, model, unindexed, k)


def service_of(verb: Verb) -> str:
    if verb.metadata is not None and b"github" in verb.metadata:
        return "github"
    return "slack" if verb.attributes is not None and b"slack" in verb.attributes else ""


def check_search(shard: Shard, model: Model, unindexed: dict[str, str], k: int) -> None:
    queries = np.array([[1, 0.5, 0, 0], [-1, 2, 0.25, 1], [3, 3, 3, 3]], np.float32)
    for soft in (False, True):
        eligible = [
            noun
            for noun in model.nouns.values()
            if noun.id not in unindexed and (soft or not facts_of(noun.metadata).soft_deleted)
        ]
        matrix = np.array([np.frombuffer(noun.vector, "<f4") for noun in eligible]).reshape(-1, DIMENSIONS)
        hits = shard.search(queries, k, exact=True, include_soft_deleted=soft)
        near = shard.search(queries, k, include_soft_deleted=soft)
        expected = [
            sorted(
                zip(
                    distances.measure(shard.spec.metric, matrix, q).tolist(),
                    (n.id for n in eligible),
                    strict=True,
                )
            )[:k]
            for q in queries
        ]
        flat = [pair for part in expected for pair in part]
        assert hits.counts.tolist() == [len(part) for part in expected]
        assert list(zip(hits.distances.tolist(), hits.ids, strict=True)) == flat
        assert shard.metadata_of(hits) == [model.nouns[item_id].metadata or b"" for item_id in hits.ids]
        # So few rows that the graph, too, finds them all; its float32 may turn near-ties around.
        assert near.counts.tolist() == hits.counts.tolist()
        np.testing.assert_allclose(near.distances, hits.distances, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    operations=operations,
    metric=st.sampled_from(["cos", "l2sq", "ip"]),
    k=st.sampled_from([1, 3, 20]),
    batch=st.integers(1, 7),
)
def test_a_shard_equals_its_model(operations, metric, k, batch):
    spec = spec_of(metric)
    with tempfile.TemporaryDirectory() as root:
        model = Model()
        shard = Shard.open(model.base(Path(root), spec, 0), spec, threads=1)
        waiting: list[log_pb2.LogRecord] = []

        def flush() -> None:
            if waiting:
                shard.apply(
                    log_pb2.LogBatch(
                        generation=3,
                        shard=1,
                        epoch=7,
                        first_position=shard.applied + 1,
                        records=waiting,
                        source_cursor={0: len(model.history) - 1},
                    )
                )
                waiting.clear()

        for operation in operations:
            if isinstance(operation, tuple) and operation[0] == "swap":
                flush()
                low = shard.base.position
                position = low + round(operation[1] * (shard.applied - low))
                shard.swap_base(model.base(Path(root), spec, position))
                assert shard.tail_records == shard.applied - position
                check(shard, model, k)
                continue
            waiting.append(model.apply(operation))
            if len(waiting) >= batch:
                flush()
        flush()
        check(shard, model, k)
        assert shard.applied == len(model.history) - 1
        assert all(shard.position_of(f"r{position}") == position for position in range(1, len(model.history)))
        assert shard.source_cursor.get(0, 0) == shard.applied


@pytest.mark.parametrize(
    ("metric", "scalar_kind"), [("cos", "f32"), ("cos", "bf16"), ("l2sq", "f16"), ("ip", "f32"), ("cos", "i8")]
)
def test_approximate_search_finds_what_exact_search_finds(metric, scalar_kind, tmp_path):
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(40, 32))
    points = (centres[rng.integers(0, 40, 2400)] + 0.4 * rng.normal(size=(2400, 32))).astype("<f4")
    queries = (centres[rng.integers(0, 40, 100)] + 0.4 * rng.normal(size=(100, 32))).astype("<f4")
    spec = spec_of(metric, scalar_kind, 32)
    with BaseWriter(tmp_path / "base", spec=spec, shard=1) as writer:
        writer.add_nouns([Noun(id=f"n{i}", vector=points[i].tobytes()) for i in range(2000)])
        writer.finish(position=0, threads=2)
    shard = Shard.open(Base.open(tmp_path / "base"), spec)
    records = [
        log_pb2.LogRecord(upsert_noun=noun_to_proto(Noun(id=f"n{i}", vector=points[i].tobytes())))
        for i in range(2000, 2400)
    ]
    # A whole neighbourhood goes, which is what makes a plain over-fetch come back short.
    gone = np.argsort(distances.measure(metric, points[:2000], queries[0]))[:150]
    records += [log_pb2.LogRecord(delete_noun=f"n{i}") for i in gone]
    records += [
        log_pb2.LogRecord(
            upsert_noun=noun_to_proto(
                Noun(id=f"n{i}", vector=points[i].tobytes(), metadata=orjson.dumps({"deleted": True}))
            )
        )
        for i in range(0, 2000, 7)
    ]
    shard.apply(log_pb2.LogBatch(generation=3, shard=1, first_position=1, records=records))
    exact = shard.search(queries, 10, exact=True)
    found = shard.search(queries, 10)
    assert found.counts.tolist() == [10] * 100
    true = np.array(exact.ids).reshape(100, 10)
    got = np.array(found.ids).reshape(100, 10)
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(true, got, strict=True)]) / 10
    assert recall >= 0.95
    alone = [shard.search(query[None, :], 10) for query in queries[:20]]
    assert np.mean([len(set(a.ids) & set(b)) for a, b in zip(alone, true, strict=False)]) / 10 >= 0.95
    assert not {f"n{i}" for i in gone} & set(found.ids)
