"""Where bases are built and where finished ones lie on local disk.

    <output>/s<shard>/<020d position>-<nonce>/    a finished base; the newest sorts last
    <output>/.building/<pid>-<nonce>/s<shard>/    being built by the process <pid>

A base is built elsewhere and moved into place whole, so whoever looks under ``s<shard>`` never meets a base that is
unfinished, or finished but not yet decided on (a fill whose manifest another node may win).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil

from brainy.ids import Ids

_BUILDING = ".building"


class Workspace:
    """The directories of one job. Use it with ``with``: what was not settled is removed."""

    def __init__(self, output: Path, ids: Ids) -> None:
        self._output = output
        self._ids = ids
        self._root = output / _BUILDING / f"{os.getpid()}-{ids.short()}"

    def __enter__(self) -> Workspace:
        _clear_abandoned(self._output)
        self._root.mkdir(parents=True)
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def stage(self, name: str) -> Path:
        """Return a fresh, empty directory to build in."""
        directory = self._root / f"{name}-{self._ids.short()}"
        directory.mkdir()
        return directory

    def settle(self, staged: Path, *, shard: int, position: int) -> Path:
        """Move a finished base to its place; atomic, so a crash leaves it either there or removed later."""
        place = shard_directory(self._output, shard) / f"{position:020d}-{self._ids.short()}"
        place.parent.mkdir(parents=True, exist_ok=True)
        return staged.rename(place)


def shard_directory(output: Path, shard: int) -> Path:
    """Directory of a shard's finished bases."""
    return output / f"s{shard}"


def sweep(output: Path, keep: Iterable[Path]) -> list[Path]:
    """Remove finished bases that are not in ``keep`` and what crashed builders left; returns what was removed.

    Files that are still mapped live on until they are let go. Call it only while no job for ``output`` is under
    way whose result is not yet in ``keep``.
    """
    kept = {path.resolve() for path in keep}
    removed = [entry for entry in sorted(output.glob("s*/*")) if entry.is_dir() and entry.resolve() not in kept]
    for entry in removed:
        shutil.rmtree(entry, ignore_errors=True)
    return removed + _clear_abandoned(output)


def _clear_abandoned(output: Path) -> list[Path]:
    abandoned = [
        entry
        for entry in sorted((output / _BUILDING).glob("*-*"))
        if not psutil.pid_exists(int(entry.name.partition("-")[0]))
    ]
    for entry in abandoned:
        shutil.rmtree(entry, ignore_errors=True)
    return abandoned
