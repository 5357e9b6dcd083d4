"""Every strategy, from a tree and from a generation, one way and there and back, on an object server under load."""

from __future__ import annotations

from collections import Counter

import pytest

from brainy.testing.servers import S3Server
from tests.e2e.conftest import RunCluster, unexpected
from tests.e2e.stages import staged
from tests.e2e.strategies import ROWS, moved, moved_back_and_forth


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("way_back", [False, True], ids=["one-way", "there-and-back"])
@pytest.mark.parametrize("source", ["tree", "generation"])
@pytest.mark.parametrize("name", ROWS)
async def test_nothing_acknowledged_is_lost(
    name: str, source: str, way_back: bool, run_cluster: RunCluster, object_server: S3Server
) -> None:
    row = ROWS[name]
    if way_back and not row.way_back:
        pytest.skip(f"{name} keeps no way back")
    environment = object_server.environment
    async with staged(row, source, run_cluster, seed=len(name), settings=environment) as (stage, store):
        first = (await stage.client.get_statistics()).generation
        ended = await (moved_back_and_forth if way_back else moved)(row, stage)
        await stage.load.wrote()
        ledger = await stage.load.stop()
        served = await row.arrived(stage)
        verdict = await stage.load.judge(served, store)
        print(f"\n{name} from {source}, {'there and back' if way_back else 'one way'}: {ended.state}", end=" ")
        print(f"digest equal={ended.digest_equal} pause={ended.write_pause_seconds:.3f} s {ledger}; {verdict}")
        assert (ended.state, ended.strategy, ended.digest_equal) == ("SUCCEEDED", name, True), ended.message
        turns = Counter(event.trigger for event in ended.story)
        assert (turns["switched"], turns["rolled_back"], turns["copy_done"]) == ((2, 1, 1) if way_back else (0, 0, 1))
        assert (ledger.failed_writes, ledger.failed_reads) == ([], [])
        assert not ledger.seen, ledger.seen
        assert not verdict, verdict
        assert (await served.get_statistics()).generation == first + 1
        odd = unexpected(stage.cluster)
        assert not odd, odd[:2]
        # What happened is what was planned; rollbacks are told as disturbances.
        outcome = (await stage.client.get_migration(ended.id)).outcome
        assert outcome is not None
        assert (outcome.as_planned, outcome.remaining) == (True, 0), outcome.disturbances
