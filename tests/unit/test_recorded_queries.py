"""Which queries a front door remembers, and in what parts they are asked again."""

from __future__ import annotations

import numpy as np

from brainy.ids import Ids
from brainy_node.router.recorded import RecordedQueries


def asked(recorded: RecordedQueries, count: int, dimensions: int = 2) -> None:
    for number in range(count):
        recorded.note("ns", np.full((1, dimensions), number, np.float32))


def test_parts_are_disjoint_and_end() -> None:
    recorded = RecordedQueries(ids=Ids(), capacity=20)
    asked(recorded, 20)
    asked(recorded, 1, dimensions=3)
    parts = [recorded.sample("ns", 5, dimensions=2, part=part)[:, 0].tolist() for part in range(4)]
    assert sorted(value for part in parts for value in part) == list(range(20))
    assert len(recorded.sample("ns", 5, dimensions=2, part=4)) == 0
    assert recorded.sample("other", 5, dimensions=2).shape == (0, 2)


def test_nothing_is_remembered_where_nothing_shall_be() -> None:
    recorded = RecordedQueries(ids=Ids(), capacity=0)
    asked(recorded, 100)
    assert recorded.count("ns") == 0
    assert recorded.sample("ns", 5, dimensions=2).shape == (0, 2)
