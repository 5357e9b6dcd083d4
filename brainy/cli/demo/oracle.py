"""What must be in the namespace: the sample, and after it every acknowledged operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from brainy.bucket import items
from brainy.bucket.digest import MultisetDigest
from brainy.sdk.values import Noun, Verb

#: A value as it is compared: the item's digest, or None for a deleted one.
Value = bytes | None


def noun_value(noun: Noun) -> bytes:
    """Hash a noun as the cluster does: exact float32 bytes, metadata byte for byte."""
    vector = b"" if noun.vector is None else noun.vector.tobytes()
    return items.Noun(id=noun.id, vector=vector, metadata=noun.metadata_json, attributes=noun.attributes_json).digest()


def verb_value(verb: Verb) -> bytes:
    """Hash a verb as the cluster does."""
    return items.Verb(
        id=verb.id,
        source_id=verb.source,
        target_id=verb.target,
        type=verb.type,
        weight=verb.weight,
        vector=b"" if verb.vector is None else verb.vector.tobytes(),
        metadata=verb.metadata_json,
        attributes=verb.attributes_json,
    ).digest()


@dataclass(slots=True)
class Differences:
    """How a scan differs from what must be there; ids, so that a failure can be looked into."""

    #: Acknowledged and not there.
    missing: list[str] = field(default_factory=list)
    #: There with another value than the last acknowledged.
    stale: list[str] = field(default_factory=list)
    #: Deleted, acknowledged, and there again.
    resurrected: list[str] = field(default_factory=list)
    #: There, and nobody wrote it.
    phantom: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Of all kinds."""
        return len(self.missing) + len(self.stale) + len(self.resurrected) + len(self.phantom)


class Oracle:
    """The last acknowledged value of every id. Each id has one writer, so "last" is well defined.

    A call whose outcome is unknown leaves both values possible until the next acknowledged one.
    """

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}
        self._possible: dict[str, set[Value]] = {}

    def acknowledged(self, item_id: str, value: Value) -> None:
        """An operation was confirmed; None means a deletion."""
        self._values[item_id] = value
        self._possible.pop(item_id, None)

    def unknown(self, item_id: str, value: Value) -> None:
        """An operation was not confirmed: it may or may not have happened."""
        possible = self._possible.setdefault(item_id, {self._values.get(item_id)})
        possible.add(value)

    def deleted(self) -> frozenset[str]:
        """Ids whose deletion was the last thing acknowledged."""
        return frozenset(
            item_id for item_id, value in self._values.items() if value is None and item_id not in self._possible
        )

    def check(self, found: Mapping[str, bytes]) -> Differences:
        """Compare with everything a scan found, by id."""
        differences = Differences()
        for item_id in sorted(self._values.keys() | self._possible.keys() | found.keys()):
            allowed = self._possible.get(item_id) or {self._values.get(item_id)}
            actual = found.get(item_id)
            if actual in allowed:
                continue
            if actual is None:
                differences.missing.append(item_id)
            elif item_id not in self._values and item_id not in self._possible:
                differences.phantom.append(item_id)
            elif allowed == {None}:
                differences.resurrected.append(item_id)
            else:
                differences.stale.append(item_id)
        return differences

    def digest(self) -> MultisetDigest:
        """Sum of everything that must be there, where nothing is unknown."""
        digest = MultisetDigest()
        for item_id, value in self._values.items():
            if value is not None:
                digest.add(item_id, value)
        return digest


def sum_of(found: Mapping[str, bytes]) -> MultisetDigest:
    """Sum of what a scan found."""
    digest = MultisetDigest()
    for item_id, value in found.items():
        digest.add(item_id, value)
    return digest


def sample_faults(
    nouns: Iterable[Noun], verbs: Iterable[Verb], truth: Mapping[str, Any], *, without: frozenset[str]
) -> list[str]:
    """Compare with what Brainy itself says it wrote: ids of items that are missing or differ in any float32 or
    in metadata. ``without`` names nouns that the traffic replaced or deleted.
    """
    faults = []
    read_nouns = {noun.id: noun for noun in nouns}
    for item_id, written in truth["nouns"].items():
        if item_id in without:
            continue
        noun = read_nouns.get(item_id)
        if noun is None or not _same_vector(noun, written["vector"]) or noun.metadata != written["metadata"]:
            faults.append(item_id)
    read_verbs = {verb.id: verb for verb in verbs}
    for item_id, written in truth["verbs"].items():
        verb = read_verbs.get(item_id)
        same = (
            verb is not None
            and (verb.source, verb.target, verb.type) == (written["sourceId"], written["targetId"], written["type"])
            and verb.weight == written["weight_stored"]
            and _same_vector(verb, written["vector"])
            and verb.metadata == written["metadata_stored"]
        )
        if not same:
            faults.append(item_id)
    return faults


def _same_vector(item: Noun | Verb, written: list[float]) -> bool:
    read = b"" if item.vector is None else item.vector.tobytes()
    return read == np.array(written, dtype="<f4").tobytes()


def metadata_bytes(metadata: object) -> bytes:
    """Return the bytes the client sends for a document."""
    return orjson.dumps(metadata)
