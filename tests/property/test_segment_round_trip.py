"""Segments return exactly what was written."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.bucket.items import Noun, Verb
from brainy.bucket.segments import read_nouns, read_verbs, write_nouns, write_verbs

words = st.binary(min_size=4, max_size=4)  # any 32 bits: NaN payloads, infinities, denormals
vectors = st.lists(words, max_size=6).map(b"".join)
documents = st.none() | st.text(max_size=8).map(str.encode)
texts = st.text(min_size=1, max_size=12)
weights = st.none() | st.floats() | st.just(struct.unpack("<d", b"\1\0\0\0\0\0\xf8\x7f")[0])

nouns = st.builds(Noun, id=texts, vector=vectors, raw_vector=documents, metadata=documents, attributes=documents)
verbs = st.builds(
    Verb,
    id=texts,
    source_id=texts,
    target_id=texts,
    type=texts,
    weight=weights,
    vector=vectors,
    raw_vector=documents,
    metadata=documents,
    attributes=documents,
)


def weight_bits(verb: Verb) -> bytes | None:
    return None if verb.weight is None else struct.pack("<d", verb.weight)


@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.lists(nouns, max_size=5), max_size=4),
    dimensions=st.integers(0, 4),
    rows=st.integers(1, 9),
)
def test_nouns(items: list[list[Noun]], dimensions: int, rows: int) -> None:
    flat = [item for batch in items for item in batch]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "s.parquet")
        assert write_nouns(path, items, dimensions=dimensions) == len(flat)
        read = [item for batch in read_nouns(path, batch_rows=rows) for item in batch]
        assert read == flat
        assert [item for batch in read_nouns(path.read_bytes()) for item in batch] == flat


@settings(max_examples=40, deadline=None)
@given(items=st.lists(verbs, max_size=8), dimensions=st.integers(0, 4), rows=st.integers(1, 9))
def test_verbs(items: list[Verb], dimensions: int, rows: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "s.parquet")
        assert write_verbs(path, [items], dimensions=dimensions) == len(items)
        read = [item for batch in read_verbs(path, batch_rows=rows) for item in batch]
        assert [item.digest() for item in read] == [item.digest() for item in items]
        assert [weight_bits(item) for item in read] == [weight_bits(item) for item in items]
