"""The door: what a call must satisfy before anything is done for it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from brainy.api.common.v1 import common_pb2
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.items import MAX_METADATA_BYTES, are_plain, check_id
from brainy.bucket.records import Spec
from brainy.errors import InvalidRequestError
from brainy.rpc.options import MAX_MESSAGE_BYTES

MAX_K = 10_000
#: Hits of one answer: with ids of UUID length they fit a message.
MAX_HITS = 1_000_000
#: Payload of one write: leaves room for what forwarding adds.
MAX_WRITE_BYTES = MAX_MESSAGE_BYTES - (8 << 20)

_NOTHING_WRITTEN = "correct the item; nothing was written"
# orjson reads an integer beyond 64 bits as a float; such documents are few, and take the exact, slower way.
_LONG_INTEGER = re.compile(rb"(?<![.0-9])[0-9]{19,}")


def check_k(k: int, queries: int) -> None:
    """Refuse a ``k`` outside 1..10,000, or one that asks for more hits than an answer can hold."""
    if not 1 <= k <= MAX_K:
        raise InvalidRequestError("k is out of range", reason="INVALID_K", remedy="ask for 1 to 10,000 neighbours", k=k)
    if k * queries > MAX_HITS:
        raise InvalidRequestError(
            "one answer cannot hold so many hits",
            reason="BATCH_TOO_LARGE",
            remedy="send fewer queries at once or ask for a smaller k",
            k=k,
            queries=queries,
            limit=MAX_HITS,
        )


def check_count(count: int, limit: int, what: str) -> None:
    """Refuse a call with more items than one call may have."""
    if count > limit:
        raise InvalidRequestError(
            f"too many {what} in one call",
            reason="BATCH_TOO_LARGE",
            remedy="split the call; nothing was written",
            count=count,
            limit=limit,
        )


def check_ids(ids: Sequence[str], limit: int) -> None:
    """Refuse an id that cannot exist, naming its index, and more ids than one call may have."""
    check_count(len(ids), limit, "ids")
    for index, item_id in enumerate(ids):
        _check_id(item_id, index, "id")


def query_matrix(vectors: bytes, dimensions: int, spec: Spec) -> npt.NDArray[np.float32]:
    """View the bytes of a request as its query matrix, n x dimensions, without a copy.

    Raises:
        InvalidRequestError: INVALID_DIMENSION names both lengths; INVALID_VECTOR the query's index.
    """
    if dimensions <= 0 or (spec.dimensions and dimensions != spec.dimensions):
        raise _wrong_dimension(dimensions, spec.dimensions)
    if not vectors or len(vectors) % (4 * dimensions):
        raise InvalidRequestError(
            "the matrix is not a whole number of float32 queries",
            reason="INVALID_DIMENSION",
            remedy="send n x dimensions little-endian float32 values, row by row",
            bytes=len(vectors),
            dimensions=dimensions,
        )
    matrix: npt.NDArray[np.float32] = np.frombuffer(vectors, dtype="<f4").reshape(-1, dimensions)
    bad = _first_bad(matrix, spec.metric)
    if bad is not None:
        raise InvalidRequestError(
            f"a query vector {bad[1]}", reason="INVALID_VECTOR", remedy="correct the query", index=bad[0]
        )
    return matrix


def check_nouns(nouns: Sequence[common_pb2.Noun], spec: Spec, limit: int) -> tuple[list[common_pb2.Noun], int]:
    """Return the nouns as they will be stored (metadata compact) and their dimensions (0 if there are none).

    While the namespace has no dimensions yet (``spec.dimensions`` 0), the first noun's count for all.

    Raises:
        InvalidRequestError: the first item that is wrong, by index. Nothing was written.
    """
    check_count(len(nouns), limit, "nouns")
    dimensions = spec.dimensions
    size = 0
    for index, noun in enumerate(nouns):
        _check_id(noun.id, index, "id")
        if noun.HasField("raw_vector") or not noun.vector:
            raise _invalid_vector(index, noun.id, "is missing: write float32 components")
        if not dimensions and len(noun.vector) % 4 == 0:
            dimensions = len(noun.vector) // 4
        if len(noun.vector) != 4 * dimensions:
            raise _wrong_dimension(len(noun.vector) / 4, dimensions, index=index, item_id=noun.id)
        size += len(noun.vector) + len(noun.metadata) + len(noun.attributes) + len(noun.id)
    _check_size(size)
    if nouns:
        joined = nouns[0].vector if len(nouns) == 1 else b"".join([noun.vector for noun in nouns])
        bad = _first_bad(np.frombuffer(joined, dtype="<f4").reshape(len(nouns), dimensions), spec.metric)
        if bad is not None:
            raise _invalid_vector(bad[0], nouns[bad[0]].id, bad[1])
    stored = []
    for index, noun in enumerate(nouns):
        copy = common_pb2.Noun(id=noun.id, vector=noun.vector)
        _copy_documents(noun, copy, index)
        stored.append(copy)
    return stored, dimensions


def check_stored_nouns(nouns: Sequence[common_pb2.Noun], limit: int) -> None:
    """Refuse nouns that no namespace can have held. What only cannot be indexed is fine; nothing is altered.

    Raises:
        InvalidRequestError: the first item that is wrong, by index. Nothing was written.
    """
    check_count(len(nouns), limit, "nouns")
    size = 0
    plain = are_plain([noun.id for noun in nouns])
    for index, noun in enumerate(nouns):
        if not plain:
            _check_id(noun.id, index, "id")
        size += _check_stored(noun, index)
    _check_size(size)


def check_stored_verbs(verbs: Sequence[common_pb2.Verb], limit: int) -> None:
    """Refuse verbs that no namespace can have held; as ``check_stored_nouns``. A type may be empty."""
    check_count(len(verbs), limit, "verbs")
    size = 0
    plain = are_plain([name for verb in verbs for name in (verb.id, verb.source_id, verb.target_id)])
    for index, verb in enumerate(verbs):
        if not plain:
            _check_id(verb.id, index, "id")
            _check_id(verb.source_id, index, "source_id")
            _check_id(verb.target_id, index, "target_id")
        if verb.HasField("weight") and not math.isfinite(verb.weight):
            raise InvalidRequestError(
                "a weight is not finite", remedy=_NOTHING_WRITTEN, index=index, id=verb.id, weight=verb.weight
            )
        size += _check_stored(verb, index)
    _check_size(size)


def check_expected(expected: Sequence[bytes], items: int) -> None:
    """Refuse conditions that are not one SHA-256, or nothing, for each item."""
    if expected and (len(expected) != items or any(len(digest) not in (0, 32) for digest in expected)):
        raise InvalidRequestError(
            "expected must name one SHA-256, or nothing, for each item",
            remedy="correct the call; nothing was written",
            items=items,
            expected=len(expected),
        )


def check_verbs(verbs: Sequence[common_pb2.Verb], spec: Spec, limit: int) -> list[common_pb2.Verb]:
    """Return the verbs as they will be stored (metadata compact). A verb needs no vector.

    Raises:
        InvalidRequestError: the first item that is wrong, by index. Nothing was written.
    """
    check_count(len(verbs), limit, "verbs")
    size = 0
    stored = []
    for index, verb in enumerate(verbs):
        _check_id(verb.id, index, "id")
        _check_id(verb.source_id, index, "source_id")
        _check_id(verb.target_id, index, "target_id")
        _check_id(verb.type, index, "type", reason="INVALID_ARGUMENT")
        if verb.HasField("weight") and not math.isfinite(verb.weight):
            raise InvalidRequestError(
                "a weight is not finite", remedy=_NOTHING_WRITTEN, index=index, id=verb.id, weight=verb.weight
            )
        if verb.HasField("raw_vector"):
            raise _invalid_vector(index, verb.id, "is not float32")
        if verb.vector:
            if len(verb.vector) % 4 or (spec.dimensions and len(verb.vector) != 4 * spec.dimensions):
                raise _wrong_dimension(len(verb.vector) / 4, spec.dimensions, index=index, item_id=verb.id)
            if not np.isfinite(np.frombuffer(verb.vector, dtype="<f4")).all():
                raise _invalid_vector(index, verb.id, "has a component that is not finite")
        size += len(verb.vector) + len(verb.metadata) + len(verb.attributes) + len(verb.id)
        copy = common_pb2.Verb(
            id=verb.id,
            source_id=verb.source_id,
            target_id=verb.target_id,
            type=verb.type,
            weight=verb.weight if verb.HasField("weight") else None,
            vector=verb.vector,
        )
        _copy_documents(verb, copy, index)
        stored.append(copy)
    _check_size(size)
    return stored


def check_same_dimension(dimensions: int, spec: Spec) -> None:
    """Refuse vectors of another length than the namespace has got meanwhile."""
    if dimensions != spec.dimensions:
        raise _wrong_dimension(dimensions, spec.dimensions, index=0)


def check_embedded_length(embedding: EmbeddingIdentity, dimensions: int) -> None:
    """Refuse a model that cannot have made the vectors of the namespace."""
    if embedding.dimensions != dimensions:
        raise _wrong_dimension(embedding.dimensions, dimensions)


def compact_json(document: bytes) -> bytes:
    """Return JSON without insignificant whitespace: the order of keys and the values of numbers are kept.

    Raises:
        ValueError: not RFC 8259 JSON in UTF-8.
    """
    value = orjson.loads(document)
    if _LONG_INTEGER.search(document):
        return json.dumps(json.loads(document), ensure_ascii=False, separators=(",", ":")).encode()
    return orjson.dumps(value)


def _copy_documents(
    item: common_pb2.Noun | common_pb2.Verb, copy: common_pb2.Noun | common_pb2.Verb, index: int
) -> None:
    if item.HasField("metadata"):
        copy.metadata = _document(item.metadata, "metadata", index, item.id)
    if item.HasField("attributes"):
        body = _document(item.attributes, "attributes", index, item.id)
        if not body.startswith(b"{"):
            raise _invalid_document("attributes", index, item.id, "not a JSON object")
        copy.attributes = body


def _check_stored(item: common_pb2.Noun | common_pb2.Verb, index: int) -> int:
    """Check all but the ids; returns the bytes of what it carries."""
    vector, metadata, attributes = item.vector, item.metadata, item.attributes
    size = len(item.id) + len(vector) + len(metadata) + len(attributes)
    if len(vector) % 4:
        raise _invalid_vector(index, item.id, "is not a whole number of float32 values")
    if item.HasField("raw_vector"):
        size += len(item.raw_vector)
        _check_json(item.raw_vector, "raw_vector", index, item.id)
        if not item.raw_vector.startswith(b"["):
            raise _invalid_document("raw_vector", index, item.id, "not a JSON array")
    # A document that is there but empty is no JSON; one that is not there is fine.
    if metadata or item.HasField("metadata"):
        _check_json(metadata, "metadata", index, item.id)
    if attributes or item.HasField("attributes"):
        _check_json(attributes, "attributes", index, item.id)
        if not attributes.startswith(b"{"):
            raise _invalid_document("attributes", index, item.id, "not a JSON object")
    return size


def _check_json(body: bytes, what: str, index: int, item_id: str) -> None:
    # No bound of its own: Brainy stores larger documents than clients may write, and those come back too.
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        # Lone surrogates and deep nesting are JSON too, and Brainy stores them.
        try:
            json.loads(body.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise _invalid_document(what, index, item_id, str(error)) from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _document(body: bytes, what: str, index: int, item_id: str) -> bytes:
    if len(body) > MAX_METADATA_BYTES:
        raise _invalid_document(what, index, item_id, f"{len(body)} bytes, over 1 MiB")
    try:
        return compact_json(body)
    except (ValueError, RecursionError) as error:
        raise _invalid_document(what, index, item_id, str(error)) from error


def _first_bad(matrix: npt.NDArray[np.float32], metric: str) -> tuple[int, str] | None:
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        return int(np.argmin(finite)), "has a component that is not finite"
    if metric == "cos":
        directed = matrix.any(axis=1)
        if not directed.all():
            return int(np.argmin(directed)), "is zero, which has no direction under cosine"
    return None


def _check_id(item_id: str, index: int, what: str, *, reason: str = "INVALID_ID") -> None:
    try:
        check_id(item_id)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{what}: {error.message}",
            reason=reason,
            remedy=error.remedy,
            index=index,
            id=item_id[:64],
        ) from None


def _check_size(size: int) -> None:
    if size > MAX_WRITE_BYTES:
        raise InvalidRequestError(
            "the items of one call are too large",
            reason="BATCH_TOO_LARGE",
            remedy="split the call; nothing was written",
            bytes=size,
            limit=MAX_WRITE_BYTES,
        )


def _wrong_dimension(got: float, wanted: int, index: int = 0, item_id: str = "") -> InvalidRequestError:
    return InvalidRequestError(
        f"a vector has {got:g} dimensions, the namespace has {wanted}",
        reason="INVALID_DIMENSION",
        remedy=f"send vectors of {wanted} dimensions; nothing was written" if wanted else "send whole vectors",
        dimensions=f"{got:g}",
        namespace_dimensions=wanted,
        index=index,
        id=item_id[:64],
    )


def _invalid_vector(index: int, item_id: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a vector {what}", reason="INVALID_VECTOR", remedy=_NOTHING_WRITTEN, index=index, id=item_id[:64]
    )


def _invalid_document(what: str, index: int, item_id: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{what} cannot be stored: {why}",
        reason="INVALID_METADATA",
        remedy=_NOTHING_WRITTEN,
        index=index,
        id=item_id[:64],
    )
