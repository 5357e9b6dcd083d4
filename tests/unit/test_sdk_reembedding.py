"""Another model as clients and operators name it."""

from __future__ import annotations

import pytest

from brainy.cli.embedding_options import model_of
from brainy.embedding.minilm import DIMENSIONS, MODEL, REVISION
from brainy.errors import InvalidRequestError
from brainy.sdk.migration import TargetSpec, target_to_proto
from brainy.sdk.reembedding import Reembedding
from brainy_coordinator.services.target_messages import target_message, target_wish
from tests.embedding_endpoint import embedding_endpoint


def test_models_are_named_as_everywhere() -> None:
    found = model_of("minilm", 3)
    assert found is not None
    assert (found.identity.model, found.identity.dimensions, found.identity.revision) == (MODEL, DIMENSIONS, REVISION)
    assert (found.endpoint, found.without_text_limit) == ("", 3)
    with embedding_endpoint() as endpoint:
        asked = Reembedding.of(f"{endpoint.url}#words-5")
        assert (asked.identity, asked.endpoint) == (endpoint.identity("words-5"), endpoint.url)
    assert model_of("", 0) is None
    with pytest.raises(InvalidRequestError, match="nothing is embedded"):
        model_of("", 3)
    with pytest.raises(InvalidRequestError, match="no such embedder"):
        model_of("word2vec", 0)


def test_a_target_goes_to_the_coordinator_and_back_as_it_was() -> None:
    wanted = TargetSpec(
        shard_count=3,
        expansion_add=200,
        expansion_search=100,
        partitioning="hash",
        dimensions=DIMENSIONS,
        embedding=Reembedding.of("minilm", without_text_limit=3),
    )
    sent = target_to_proto(wanted)
    assert target_message(target_wish(sent)) == sent
    plain = target_to_proto(None)
    assert target_message(target_wish(plain)) == plain
    assert target_wish(plain).embedding is None
    sent.embedding.endpoint = "file:///etc"
    with pytest.raises(InvalidRequestError, match="http"):
        target_wish(sent)
