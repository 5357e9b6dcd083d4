"""The oracle of the demonstration: it must find what is wrong, or its praise is worth nothing."""

from __future__ import annotations

import copy

import numpy as np
import orjson
import pytest

from brainy.cli.demo.oracle import Oracle, noun_value, sample_faults, sum_of, verb_value
from brainy.cli.demo.report import Report
from brainy.samples import sample_truth
from brainy.sdk.values import Noun, Verb


@pytest.fixture
def oracle():
    made = Oracle()
    made.acknowledged("kept", b"1")
    made.acknowledged("replaced", b"old")
    made.acknowledged("replaced", b"new")
    made.acknowledged("deleted", b"x")
    made.acknowledged("deleted", None)
    return made


def test_what_was_acknowledged_passes(oracle):
    found = {"kept": b"1", "replaced": b"new"}
    assert oracle.check(found).count == 0
    assert oracle.digest() == sum_of(found)
    assert oracle.deleted() == {"deleted"}


def test_every_kind_of_loss_is_named(oracle):
    found = {"replaced": b"old", "deleted": b"x", "stranger": b"?"}
    differences = oracle.check(found)
    assert differences.missing == ["kept"]
    assert differences.stale == ["replaced"]
    assert differences.resurrected == ["deleted"]
    assert differences.phantom == ["stranger"]
    assert differences.count == 4


def test_unconfirmed_operation_allows_both_outcomes(oracle):
    oracle.unknown("kept", None)
    oracle.unknown("fresh", b"f")
    assert oracle.check({"replaced": b"new"}).count == 0
    assert oracle.check({"replaced": b"new", "kept": b"1", "fresh": b"f"}).count == 0
    assert oracle.check({"replaced": b"new", "kept": b"2"}).stale == ["kept"]
    assert "kept" not in oracle.deleted()
    oracle.acknowledged("kept", None)
    assert oracle.check({"replaced": b"new", "kept": b"1"}).resurrected == ["kept"]


@pytest.fixture
def sample():
    truth = sample_truth()
    nouns = [
        Noun(
            id=noun_id,
            vector=np.array(noun["vector"], dtype="<f4"),
            metadata_json=None if noun["metadata"] is None else orjson.dumps(noun["metadata"]),
        )
        for noun_id, noun in truth["nouns"].items()
    ]
    verbs = [
        Verb(
            id=verb_id,
            source=verb["sourceId"],
            target=verb["targetId"],
            type=verb["type"],
            weight=verb["weight_stored"],
            vector=np.array(verb["vector"], dtype="<f4"),
            metadata_json=None if verb["metadata_stored"] is None else orjson.dumps(verb["metadata_stored"]),
        )
        for verb_id, verb in truth["verbs"].items()
    ]
    return nouns, verbs, truth


def test_true_sample_has_no_faults(sample):
    assert sample_faults(*sample, without=frozenset()) == []


def test_one_bit_of_one_vector_is_a_fault(sample):
    nouns, verbs, truth = sample
    vector = nouns[7].vector.copy()
    vector[3] = np.nextafter(vector[3], np.float32(10))
    nouns[7] = Noun(id=nouns[7].id, vector=vector, metadata_json=nouns[7].metadata_json)
    assert sample_faults(nouns, verbs, truth, without=frozenset()) == [nouns[7].id]
    assert sample_faults(nouns, verbs, truth, without=frozenset({nouns[7].id})) == []


def test_missing_verb_and_changed_metadata_are_faults(sample):
    nouns, verbs, truth = sample
    gone = verbs.pop()
    truth = copy.deepcopy(truth)
    truth["nouns"][nouns[0].id]["metadata"] = {"other": 1}
    assert sample_faults(nouns, verbs, truth, without=frozenset()) == [nouns[0].id, gone.id]


def test_values_tell_items_apart():
    vector = np.ones(2, dtype=np.float32)
    assert noun_value(Noun(id="a", vector=vector)) != noun_value(Noun(id="a", vector=vector, metadata_json=b"null"))
    one = Verb(id="v", source="a", target="b", type="t")
    assert verb_value(one) != verb_value(Verb(id="v", source="b", target="a", type="t"))


def test_report_is_good_only_if_everything_is():
    report = Report(store="directory", namespace="file:///x", seed=1, nodes=3)
    assert not report.good
    report.migration_state = "SUCCEEDED"
    report.cluster_digest_equal = report.scan_digest_equal = True
    assert report.good
    report.counters.failed = 1
    assert not report.good
    report.counters.failed = 0
    report.after_restart = 1
    assert report.lost == 1
    assert not report.good
