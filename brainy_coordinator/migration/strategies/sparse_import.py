"""Sparse import: what is elsewhere, without its vectors; the texts are embedded on their way in.

Before, steps, after: those of the strategy that brings the same data with their vectors.
"""

from __future__ import annotations

from brainy_coordinator.migration.strategies.dedicated_namespace import DedicatedNamespace


class SparseImport(DedicatedNamespace):
    """Texts and metadata to generation 1 of this namespace."""
