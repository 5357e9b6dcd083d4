"""The demonstration, as a user runs it: real processes, a real kill, the oracle's verdict."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["directory", "s3"])
def test_demo_loses_nothing(store):
    ended = subprocess.run(
        [sys.executable, "-m", "brainy.cli.main", "demo", "--store", store, "--json"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert report["good"]
    assert report["lost"] == 0
    assert report["failed"] == 0
    assert report["migration_state"] == "SUCCEEDED"
    assert report["killed_node"]
    assert report["counters"]["searches"] > 50
    assert report["counters"]["writes"] > 50
    assert report["recall_at_10"] >= 0.95
