"""Holding what a cluster answers against what a recorded bucket is known to hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainy.sdk.client import AsyncBrainy


def entries(part: Any) -> dict[str, dict[str, Any]]:
    """Truth files list items as an object by id or as a list."""
    return part if isinstance(part, dict) else {item["id"]: item for item in part}


def as_float32(vector: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in vector], dtype=np.float32)


async def assert_holds(client: AsyncBrainy, truth: dict[str, Any]) -> None:
    """Every noun, vector, metadata and verb of the truth comes back, and nothing else does."""
    nouns, verbs = entries(truth["nouns"]), entries(truth["verbs"])

    scanned = {noun.id: noun async for noun in client.scan(include_soft_deleted=True)}
    assert scanned.keys() == nouns.keys()
    fetched = await client.get_many(list(nouns))
    assert fetched.keys() == nouns.keys()
    for noun_id, expected in nouns.items():
        for found in (scanned[noun_id], fetched[noun_id]):
            assert found.vector is not None, noun_id
            np.testing.assert_array_equal(found.vector, as_float32(expected["vector"]), err_msg=noun_id)
            if "metadata" in expected:
                assert found.metadata == expected["metadata"], noun_id

    found_verbs = {verb.id: verb async for verb in client.scan_verbs(include_vectors=True)}
    assert found_verbs.keys() == verbs.keys()
    for verb_id, expected in verbs.items():
        verb = found_verbs[verb_id]
        assert (verb.source, verb.target) == (expected["sourceId"], expected["targetId"]), verb_id
        assert verb.type == expected["type"], verb_id
        if "weight_stored" in expected:
            assert verb.weight == expected["weight_stored"], verb_id
        if "metadata_stored" in expected:
            assert verb.metadata == expected["metadata_stored"], verb_id
        if expected.get("vector"):
            assert verb.vector is not None, verb_id
            np.testing.assert_array_equal(verb.vector, as_float32(expected["vector"]), err_msg=verb_id)

    gone = [*truth.get("deleted_nouns", []), *truth.get("zombie_nouns", [])]
    assert await client.get_many([noun_id for noun_id in gone if noun_id not in nouns]) == {}
