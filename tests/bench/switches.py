"""``python -m tests.bench.switches``: 200 blue-green switches and five cycles there and back, under load.

On SeaweedFS, between two pools of two nodes each: a blue-green migration keeps its way back and is rolled back and
promoted in turns. Each turn is a switch as any other: writes stopped, final positions, digests compared, one swap of
``routing.json``, the waiting writes go on at the other pool. Then the same five times there and back with a rolling
migration on three nodes, to another shard count. At the end everything that is served is held against what was
acknowledged. Exits 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import TargetSpec
from tests.bench.bucket import BUCKET, running_server
from tests.bench.figures import Report
from tests.bench.offered import Offer
from tests.bench.switching import show, turn_again_and_again

_POOL = "green"
_NODES = 2
_CYCLES = 5


async def measure(report: Report, directory: Path, server: dict[str, str], *, switches: int, writes: int) -> None:
    """Both runs."""
    offer = Offer(writes=writes, nouns=max(5_000, 20 * writes))
    cluster = LocalCluster(f"s3://{BUCKET}/blue-green", nodes=_NODES, directory=directory / "pools", settings=server)
    async with cluster:
        for _ in range(_NODES):
            await cluster.start_node(pool=_POOL)
        result = await turn_again_and_again(
            cluster,
            offer,
            turns=switches,
            target=TargetSpec(pool=_POOL),
            strategy="blue-green",
            rest_seconds=0.5,
            say=report.say,
        )
    show(report, "blue-green", offer, result)
    cluster = LocalCluster(f"s3://{BUCKET}/rolling", nodes=3, directory=directory / "rolling", settings=server)
    async with cluster:
        result = await turn_again_and_again(
            cluster,
            offer,
            # Forward once more than back.
            turns=2 * _CYCLES + 1,
            target=TargetSpec(shard_count=3),
            strategy="rolling",
            rest_seconds=1.0,
            say=report.say,
        )
    show(report, f"{_CYCLES} cycles, rolling", offer, result)


def main() -> int:
    """Measure, print, say whether every bar was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.switches", description=__doc__)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--writes", type=int, default=400, help="nouns offered a second")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as name, running_server(Path(name) / "s3") as server:
        directory, environment = Path(name) / "cluster", server.environment
        asyncio.run(measure(report, directory, environment, switches=options.switches, writes=options.writes))
    report.show()
    if options.json:
        report.write(options.json, {"switches": options.switches, "writes": options.writes})
    return 1 if report.short else 0


if __name__ == "__main__":
    sys.exit(main())
