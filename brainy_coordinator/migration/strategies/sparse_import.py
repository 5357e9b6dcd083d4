"""Sparse import: what is elsewhere, without its vectors; the texts are embedded on their way in.

Before: as of a backup or of a tree with its vectors; the target names a model that every node has at hand, and nobody
changes the data meanwhile.
Steps: 1. the target's owners read the data and embed each noun's text; a noun without one has no vector, and is
counted; 2. the coordinator reads the data too and sums up what will be there, vectors left out (``Projection``);
3. owners sum up what is there under the same projection, before writes are stopped; 4. the cut-over compares the two.
After: as after every migration; the namespace records the model.
If it crashes at any step: as every migration; a shard that was published is not embedded again.
"""

from __future__ import annotations

from brainy_coordinator.migration.strategies.dedicated_namespace import DedicatedNamespace


class SparseImport(DedicatedNamespace):
    """Texts and metadata to generation 1 of this namespace."""
