"""Building a shard's index at the job's pace, and saying how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from brainy.bucket.records import Spec
from brainy_node.builder.context import Context
from brainy_node.builder.job import Progress
from brainy_node.shard import index

#: Rows at a time: so soon a new rate counts, and progress is told.
_ROWS: Final = 2048


class PacedIndex:
    """Builds one index from nothing; ``make`` is an ``IndexMaker``."""

    def __init__(self, context: Context, spec: Spec, shard: int) -> None:
        self._context = context
        self._spec = spec
        self._shard = shard
        self._total = 0

    def make(self, target: Path, matrix: index.Matrix, keys: index.Keys) -> int:
        """Write the index over ``matrix[keys]`` to ``target``."""
        self._total = len(keys)
        self.added(0)
        index.build(target, matrix, keys, self._spec, self._context.job.threads, pacer=self)
        return 0

    def next_rows(self, most: int) -> int:
        """See ``index.Pacer``."""
        rows = self._context.pace.portion(min(most, _ROWS))
        self._context.pace.turn_in_thread(rows)
        return rows

    def added(self, rows: int) -> None:
        """See ``index.Pacer``."""
        self._context.report(Progress(shard=self._shard, stage="indexing", done=rows, total=self._total))
