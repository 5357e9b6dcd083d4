"""The offline model."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from brainy.embedding import minilm
from brainy.embedding.base import is_embedder
from brainy.embedding.minilm import BATCH_TEXTS, MAX_TOKENS, MiniLmEmbedder, open_minilm, pooled
from brainy.embedding.opening import embedder_for, open_embedder
from brainy.errors import CorruptDataError, PreconditionError
from tests.corpus import PARAPHRASES


@pytest.fixture(scope="module")
def model() -> MiniLmEmbedder:
    return open_minilm()


def test_identity(model: MiniLmEmbedder) -> None:
    assert is_embedder(model)
    assert (model.identity.model, model.identity.dimensions) == ("all-MiniLM-L6-v2", 384)
    assert model.identity.revision.startswith("int8-")
    assert open_embedder("minilm") is model
    assert embedder_for(None, 384) is embedder_for(model.identity, 384) is embedder_for(None, 0) is model


def test_vectors_are_those_of_the_original() -> None:
    # The original's own tokens of this text, and what its authors print for it, to what 8 bits keep.
    model = open_minilm()
    assert model._tokenizer.encode("This is an example sentence").ids == [101, 2023, 2003, 2019, 2742, 6251, 102]
    (row,) = model.embed(["This is an example sentence"])
    np.testing.assert_allclose(row[:3], [0.0676569, 0.0634959, 0.0487131], atol=0.01)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


def test_paraphrases_are_nearest(model: MiniLmEmbedder) -> None:
    said = model.embed([first for first, _ in PARAPHRASES])
    again = model.embed([second for _, second in PARAPHRASES])
    assert (again @ said.T).argmax(axis=1).tolist() == list(range(len(PARAPHRASES)))


def test_company_and_order_do_not_matter(model: MiniLmEmbedder) -> None:
    texts = [first * (1 + n % 4) for n, (first, _) in enumerate(PARAPHRASES * 4)]
    assert len(texts) > BATCH_TEXTS
    together = model.embed(texts)
    alone = np.concatenate([model.embed([text]) for text in texts[:12]])
    np.testing.assert_allclose(together[:12], alone, atol=0.02)
    assert np.einsum("ij,ij->i", together[:12], alone).min() > 0.999


def test_batches_have_little_padding_and_a_bound(model: MiniLmEmbedder) -> None:
    texts = ["word " * (1 + n % 200) for n in range(300)] + ["huge " * 100_000, "w", "", "x" * 100_000]
    seen: list[int] = []
    padding = tokens = 0
    for rows, inputs in model.batches(texts):
        seen.extend(rows.tolist())
        mask = inputs["attention_mask"]
        assert mask.shape[1] <= MAX_TOKENS
        assert mask.size <= 8192
        assert len(rows) <= BATCH_TEXTS
        assert (inputs["input_ids"][:, 0] == 101).all()
        tokens += int(mask.sum())
        padding += int(mask.size - mask.sum())
    assert sorted(seen) == list(range(len(texts)))
    assert padding < tokens / 5


def test_odd_texts_have_vectors(model: MiniLmEmbedder) -> None:
    vectors = model.embed(["\x00", "�", "😀", "北京", "[SEP] [CLS]", "a" * 5000, "́"])
    assert np.isfinite(vectors).all()
    assert model.embed([]).shape == (0, 384)


def test_pooling_leaves_out_padding() -> None:
    hidden = np.array([[[3.0, 0.0], [0.0, 3.0], [99.0, 99.0]], [[0.0, 5.0], [7.0, 7.0], [7.0, 7.0]]], dtype=np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(pooled(hidden, mask), [[0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PreconditionError) as caught:
        open_minilm.__wrapped__()
    assert "brainy-cluster[embed]" in caught.value.remedy
    assert caught.value.fields["module"] == "onnxruntime"


def test_another_edition_of_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_SHA256", "0" * 64)
    with pytest.raises(CorruptDataError, match="another one"):
        open_minilm.__wrapped__()
