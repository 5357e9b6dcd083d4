"""create_auto_brainy on an empty directory: real processes behind the blocking client."""

from __future__ import annotations

import numpy as np
import pytest

from brainy import InvalidRequestError, LocalCluster, create_auto_brainy


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_data_outlives_the_cluster(tmp_path):
    place, state = f"file://{tmp_path}/data", tmp_path / "state"
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((200, 16)).astype("<f4")
    ids = [f"n{number}" for number in range(200)]
    with create_auto_brainy(place, state_directory=state, dimensions=16) as brainy:
        brainy.add_many(vectors, metadata=[{"n": number} for number in range(200)], ids=ids)
        brainy.add_verb("n0", "n1", "relatedTo", {"w": 1}, weight=0.5, id="v")
        brainy.delete("n199")
        assert [hit.id for hit in brainy.search(vectors[7], 1)] == ["n7"]
        with pytest.raises(InvalidRequestError):
            brainy.add([1.0, 2.0])
    assert LocalCluster.attach(state) is None
    with create_auto_brainy(place, state_directory=tmp_path / "elsewhere", nodes=2) as brainy:
        found = {noun.id: noun for noun in brainy.scan()}
        assert set(found) == set(ids[:199])
        for number, noun_id in enumerate(ids[:199]):
            assert found[noun_id].vector.tobytes() == vectors[number].tobytes()
            assert found[noun_id].metadata == {"n": number}
        verb = brainy.get_verb("v")
        assert (verb.source, verb.target, verb.weight, verb.metadata) == ("n0", "n1", 0.5, {"w": 1})
        assert [one.id for one in brainy.find_verbs(source="n0")] == ["v"]
        assert brainy.get_statistics().noun_count == 199
