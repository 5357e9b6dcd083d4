"""Jobs and answers of the builder survive the trip between processes."""

from __future__ import annotations

import pytest

from brainy import errors
from brainy.bucket.records import Spec
from brainy_node.builder.job import Built, Done, Failed, Job, Line, Progress

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.BrainyError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_raised_again_as_what_it_was(kind):
    original = kind("went wrong", reason="FENCED", remedy="stop", data_safe=False, key="a/b", count=3)
    line = Failed.of(original).model_dump_json()
    answer = Line.validate_json(line)
    assert isinstance(answer, Failed)
    again = answer.exception()
    assert type(again) is kind
    assert (again.message, again.reason, again.remedy, again.data_safe, again.fields) == (
        "went wrong",
        "FENCED",
        "stop",
        False,
        {"key": "a/b", "count": "3"},
    )


def test_a_foreign_error_is_internal():
    again = Failed.of(KeyError("x")).exception()
    assert (type(again), again.reason) == (errors.BrainyError, "INTERNAL")
    assert "KeyError" in again.fields["cause"]
    assert type(Failed(error="Namespace", message="m", reason="INTERNAL").exception()) is errors.BrainyError


def test_values_read_back_as_written():
    spec = Spec(generation=2, dimensions=4, shard_count=3, source="1")
    job = Job(kind="fill", namespace="s3://bucket/app", spec=spec, shards=(0, 2), output="/data", epochs={0: 7, 2: 8})
    assert Job.model_validate_json(job.model_dump_json()) == job
    for line in (Progress(shard=1, done=3), Done(built=(Built(shard=1, directory="/d", position=9, published=True),))):
        assert Line.validate_json(line.model_dump_json()) == line
