"""Reading segments and building the bare index, in a process of its own; for ``copying``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from usearch.index import Index  # noqa: TID251 - measured against, so bare


def main() -> None:
    """Arguments: output, threads, metric, scalar kind, connectivity, expansion, segments."""
    out, threads, metric, scalar, connectivity, expansion, *paths = sys.argv[1:]
    index: Index | None = None
    rows = 0
    for path in paths:
        column = pq.read_table(Path(path)).column("vector").combine_chunks()
        matrix = column.flatten().to_numpy().reshape(len(column), -1)
        if index is None:
            index = Index(
                ndim=matrix.shape[1],
                metric=metric,
                dtype=scalar,
                connectivity=int(connectivity),
                expansion_add=int(expansion),
            )
        index.add(np.arange(rows, rows + len(matrix), dtype=np.uint64), matrix, threads=int(threads))
        rows += len(matrix)
    if index is not None:
        index.save(out)


if __name__ == "__main__":
    main()
