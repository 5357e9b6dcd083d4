"""Filling a generation that another model embeds: every noun goes through it on the way from the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from brainy.dataset.base import ItemBatch
from brainy.dataset.transformed import Transform, TransformedSource
from brainy.embedding.reembedding import Reembedder, reembedder_at
from brainy_node.builder.job import Job
from brainy_node.builder.source import ChosenSource


def reembedded(chosen: ChosenSource, job: Job) -> ChosenSource:
    """Return the source as the job's generation takes it: itself, unless every vector is to be made anew.

    Reading it then raises EmbeddingMismatchError or PreconditionError where the model is not at hand here, and what the
    model raises.
    """
    spec = job.spec
    identity, reembedding = spec.embedding, spec.reembedding
    if identity is None or reembedding is None:
        return chosen

    @contextmanager
    def opening() -> Iterator[Transform]:
        with reembedder_at(identity, reembedding.endpoint, job.embedding_settings) as reembedder:
            yield lambda batch: _anew(batch, reembedder)

    return replace(chosen, source=TransformedSource(chosen.source, opening))


def _anew(batch: ItemBatch, reembedder: Reembedder) -> ItemBatch:
    return replace(batch, nouns=reembedder.nouns(batch.nouns)) if batch.nouns else batch
