"""From a row of sparse data to an item that can be written, or a reason why not."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from brainy.api.common.v1 import common_pb2
from brainy.bucket.items import MAX_METADATA_BYTES, check_id
from brainy.embedding.text import text_of
from brainy.errors import InvalidRequestError
from brainy.sdk.encoding import encode_metadata, encode_vector
from brainy.sdk.sparse import Row, Unreadable

T = TypeVar("T", common_pb2.Noun, common_pb2.Verb)

_DEFAULT_VERB = "relatedTo"
_ID_SPACE = uuid.UUID("3b6f2f5e-6c1e-5d0a-9b53-0a8f0d9c7a11")


@dataclass(slots=True, kw_only=True)
class Prepared(Generic[T]):
    """An item that lacks at most its vector."""

    number: int
    item: T
    #: What to make the vector of; "" where the row brought one, or where a verb has no text.
    text: str

    @property
    def size(self) -> int:
        """Bytes it will take in a message, about."""
        return len(self.item.id) + len(self.item.metadata) + len(self.item.vector)


class RowReader:
    """Checks rows and gives those without an id one of their own.

    Such an id is made of what the row holds, and of how many equal rows came before it: the same data get the same ids
    however often, and wherever, they are imported.
    """

    def __init__(self) -> None:
        """Begin with the first row."""
        self._alike: Counter[bytes] = Counter()

    def noun(self, row: Row) -> Prepared[common_pb2.Noun]:
        """Return a noun to write.

        Raises:
            InvalidRequestError: why it cannot be; ``fields["id"]`` has its id where that is known.
        """
        fields = _object(row.value)
        metadata = _metadata(fields)
        vector = _vector(fields)
        noun_id = self._id(fields, b"noun", metadata, vector)
        try:
            text = "" if vector else text_of(fields.get("metadata"))
        except InvalidRequestError as error:
            error.fields["id"] = noun_id
            raise
        return Prepared(
            number=row.number,
            item=common_pb2.Noun(id=noun_id, vector=vector, metadata=metadata),
            text=text,
        )

    def verb(self, row: Row) -> Prepared[common_pb2.Verb]:
        """Return a verb to write. It needs no vector: without a text it gets none.

        Raises:
            InvalidRequestError: as ``noun``.
        """
        fields = _object(row.value)
        metadata = _metadata(fields)
        vector = _vector(fields)
        ends = _end(fields, "sourceId", "source"), _end(fields, "targetId", "target")
        said = fields.get("metadata")
        kinds = (fields.get("type"), fields.get("verb"), said.get("verb") if isinstance(said, Mapping) else None)
        kind = next((name for name in kinds if isinstance(name, str) and name), _DEFAULT_VERB)
        verb_id = self._id(fields, b"verb", metadata, vector, *(end.encode() for end in ends), kind.encode())
        try:
            text = "" if vector else text_of(said)
        except InvalidRequestError:
            text = ""
        verb = common_pb2.Verb(
            id=verb_id,
            source_id=ends[0],
            target_id=ends[1],
            type=kind,
            weight=_weight(fields),
            vector=vector,
            metadata=metadata,
        )
        return Prepared(number=row.number, item=verb, text=text)

    def _id(self, fields: Mapping[str, Any], kind: bytes, *parts: bytes | None) -> str:
        given = fields.get("id")
        if given is not None:
            if not isinstance(given, str):
                raise InvalidRequestError(
                    "the id is no string", reason="INVALID_ID", remedy="write it in quotes", type=type(given).__name__
                )
            check_id(given)
            return given
        state = hashlib.sha256(kind)
        for part in parts:
            state.update(len(part or b"").to_bytes(8, "little") + (part or b""))
        alike = state.digest()
        self._alike[alike] += 1
        return str(uuid.uuid5(_ID_SPACE, f"{alike.hex()}:{self._alike[alike]}"))


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Unreadable):
        raise InvalidRequestError("the line is not JSON", remedy="correct the line", cause=value.why)
    if not isinstance(value, Mapping):
        raise InvalidRequestError("the row is no object", remedy="write {id, metadata}", type=type(value).__name__)
    return value


def _metadata(fields: Mapping[str, Any]) -> bytes | None:
    encoded = encode_metadata(fields.get("metadata"))
    if encoded is not None and len(encoded) > MAX_METADATA_BYTES:
        raise InvalidRequestError(
            "metadata over 1 MiB", reason="INVALID_METADATA", remedy="shorten it", bytes=len(encoded)
        )
    return encoded


def _vector(fields: Mapping[str, Any]) -> bytes:
    given = fields.get("vector")
    if given is None or (isinstance(given, list | tuple) and not given):
        return b""
    return encode_vector(given)


def _weight(fields: Mapping[str, Any]) -> float | None:
    given = fields.get("weight")
    if given is None:
        return None
    try:
        if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
            return float(given)
    except OverflowError:
        pass  # an integer beyond any float
    raise InvalidRequestError("the weight is no finite number", remedy="correct the row", type=type(given).__name__)


def _end(fields: Mapping[str, Any], *names: str) -> str:
    end = next((fields[name] for name in names if fields.get(name) is not None), None)
    if not isinstance(end, str):
        raise InvalidRequestError(
            "an end of the verb is no id", reason="INVALID_ID", remedy="name both ends", field=names[0]
        )
    check_id(end)
    return end
