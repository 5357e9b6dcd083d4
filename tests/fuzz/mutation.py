"""What accidents, people and other programs do to objects."""

from __future__ import annotations

import json
import random  # noqa: TID251 - seeded
from collections.abc import Callable
from typing import Any

from brainy.errors import InvalidRequestError
from brainy.store.keys import check_key
from tests.fuzz.corpus import Bucket

#: JSON texts put where something else is expected.
_VALUES = (
    "null", "true", "0", "-0.0", "1e400", "-1e400", "1e-320", "9007199254740993", "1" + "0" * 400, '""', '"x"', "[]",
    "{}", '"\\ud800"', '"\\u0000"', '["a", null]', "[null, 1]", "[[1, 2]]", "[true, 0.5]", '{"0": 1}', "NaN",
    '[1e39, -1e39]', "[0, 0]", '"person/x"', "42", '{"seconds": "x", "nanoseconds": 1e400}', "[" * 300 + "]" * 300,
    '{"a":' * 990 + "1" + "}" * 990, "[" * 5000 + "]" * 5000, '"' + "é" * 600 + '"', '"' + "x" * 1100 + '"',
)  # fmt: skip
_FIELDS = (
    "id", "vector", "connections", "level", "metadata", "data", "embedding", "sourceId", "targetId", "source", "target",
    "type", "verb", "weight", "createdAt", "createdBy", "deleted", "noun", "nounType", "autoCreated",
)  # fmt: skip
_BODIES = (
    b"", b" \n", b"null", b" null ", b"[]", b"{}", b"0", b'"text"', b"\xef\xbb\xbf", b"<html>503</html>", b"{", b"\x00",
    b"\xff\xfe{\x00}\x00", b"[" * 100_000, b'{"a":' * 20_000, b'{"id":"a","vector":[1],"id":"b"}', b"NaN",
)  # fmt: skip


def mutate(bucket: Bucket, chance: random.Random) -> None:
    """Damage a bucket at some places."""
    for _ in range(chance.randint(0, max(1, len(bucket) // 3))):
        if bucket:
            key = chance.choice(sorted(bucket))
            chance.choice(_KINDS)(bucket, key, chance)


def _flip(bucket: Bucket, key: str, chance: random.Random) -> None:
    body = bytearray(bucket[key])
    for _ in range(chance.randint(1, 4)):
        if body:
            body[chance.randrange(len(body))] = chance.randrange(256)
    bucket[key] = bytes(body)


def _cut(bucket: Bucket, key: str, chance: random.Random) -> None:
    bucket[key] = bucket[key][: chance.randint(0, len(bucket[key]))]


def _replace(bucket: Bucket, key: str, chance: random.Random) -> None:
    bucket[key] = chance.choice(_BODIES)


def _wrap(bucket: Bucket, key: str, chance: random.Random) -> None:
    before, after = chance.choice(((b"[", b"]"), (b'{"data":', b"}"), (b"\xef\xbb\xbf", b""), (b"\n ", b" \n")))
    bucket[key] = before + bucket[key] + after


def _encode(bucket: Bucket, key: str, chance: random.Random) -> None:
    text = bucket[key].decode("utf-8", "replace")
    bucket[key] = text.encode(chance.choice(("utf-16", "utf-16-le", "latin-1", "utf-8-sig")), "replace")


def _swap(bucket: Bucket, key: str, chance: random.Random) -> None:
    other = chance.choice(sorted(bucket))
    bucket[key], bucket[other] = bucket[other], bucket[key]


def _copy(bucket: Bucket, key: str, chance: random.Random) -> None:
    bucket[chance.choice(sorted(bucket))] = bucket[key]


def _remove(bucket: Bucket, key: str, chance: random.Random) -> None:
    del bucket[key]


def _field(bucket: Bucket, key: str, chance: random.Random) -> None:
    try:
        fields: Any = json.loads(bucket[key])
    except (ValueError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    name = chance.choice((*fields, *_FIELDS))
    what = chance.randrange(5)
    if what == 0:
        fields.pop(name, None)
    elif what == 1:
        fields = {chance.choice(("\ud800", "", "é", *_FIELDS)): value for value in fields.values()} | fields
    elif what == 2 and isinstance(fields.get("vector"), list) and fields["vector"]:
        fields["vector"][chance.randrange(len(fields["vector"]))] = "@here"
    else:
        fields.pop(name, None)
        fields = {name: "@here"} | fields if what == 3 else fields | {name: "@here"}
    try:
        text = json.dumps(fields, ensure_ascii=chance.random() < 0.8, indent=chance.choice((None, 2)))
        bucket[key] = text.replace('"@here"', chance.choice(_VALUES)).encode()
    except (UnicodeEncodeError, RecursionError):
        return


def _rename(bucket: Bucket, key: str, chance: random.Random) -> None:
    stem = key.removesuffix(".json")
    other = chance.choice(sorted(bucket))
    folder, name = key[: key.rfind("/") + 1], key.rpartition("/")[2]
    new = chance.choice(
        (
            stem, key + ".json", key.upper(), stem + "/", stem + "/sub.json", stem + ".json.bak", stem + " .json",
            stem.replace("e", "e\u0301") + ".json", stem + "\U0001f600.json", stem + "\n.json", "../" + key,
            folder + "x" * (1019 - len(folder.encode())) + ".json", folder + other.rpartition("/")[2],
            other[: other.rfind("/") + 1] + name, "nouns/person/" + name, key.replace("/", "/person/", 1),
            key.replace("/", "//", 1), stem[:-1] + "\uffff.json",
        )
    )  # fmt: skip
    try:
        check_key(new)
    except InvalidRequestError:
        return
    body = bucket[key]
    if chance.random() < 0.6:
        del bucket[key]
    bucket[new] = body


_KINDS: tuple[Callable[[Bucket, str, random.Random], None], ...] = (
    _flip, _cut, _replace, _wrap, _encode, _swap, _swap, _copy, _remove,
    _field, _field, _field, _field, _rename, _rename,
)  # fmt: skip
