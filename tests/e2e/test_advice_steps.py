"""The steps that are advised, done as they stand: each command, one after the other, with real processes."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainy.config.environment import inherited
from brainy.samples import sample_truth
from brainy.sdk.local_cluster import LocalCluster
from tests.e2e.pages import put_sample


class Shell:
    """Runs commands in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = inherited(XDG_CACHE_HOME=str(directory / "cache"))

    def __call__(self, line: str) -> str:
        program, *words = shlex.split(line)
        assert program == "brainy"
        if "--" in words:
            # What it starts itself is found by the same name as here.
            words[words.index("--") + 1] = str(Path(sys.executable).with_name("brainy"))
        ended = subprocess.run(
            [sys.executable, "-m", "brainy.cli.main", *words],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        return ended.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    asyncio.run(put_sample(f"file://{tmp_path}/old"))
    yield Shell(tmp_path)
    for left in (tmp_path / "cache").glob("brainy/*/cluster.json"):
        cluster = LocalCluster.attach(left.parent)
        if cluster is not None:
            asyncio.run(cluster.stop(grace_seconds=5.0))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("strategy", "options", "ends_in"),
    [
        pytest.param(
            "backup-and-restore", ["--exclusive", "--no-old-writers", "--target"], "new", marks=pytest.mark.slow
        ),
        pytest.param(
            "dedicated-namespace",
            ["--isolate", "--shared", "--no-old-writers", "--downtime", "600", "--target"],
            "new",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "blue-green",
            ["--downtime", "600", "--separate-nodes", "--keep-source", "--target"],
            "new",
            marks=pytest.mark.long,
        ),
        pytest.param("blue-green", ["--shared", "--downtime", "0", "--old-writers"], "old", marks=pytest.mark.long),
        pytest.param("blue-green", ["--shared", "--downtime", "0", "--separate-nodes"], "old", marks=pytest.mark.long),
        pytest.param("coordinated", ["--shared", "--downtime", "600", "--old-writers"], "old", marks=pytest.mark.long),
        pytest.param("rolling", ["--shared", "--downtime", "1", "--no-old-writers"], "old", marks=pytest.mark.slow),
    ],
)
def test_the_steps_advised_are_done_as_they_stand(
    shell: Shell, strategy: str, options: list[str], ends_in: str
) -> None:
    old, new = (f"file://{shell.directory}/{name}" for name in ("old", "new"))
    more = [new] if options[-1] == "--target" else []
    told = shell(shlex.join(["brainy", "advise", old, *options, *more, "--nodes", "2", "--json"]))
    found = json.loads(told)
    assert found["advised"] == strategy
    for step in found["strategies"][0]["steps"]:
        if step["command"]:
            shell(step["command"])
    # Without a cluster: what the bucket holds now, by the manifests of the new generation.
    end = old if ends_in == "old" else new
    after = json.loads(shell(shlex.join(["brainy", "advise", end, "--json"])))
    truth = sample_truth()
    assert (after["found"]["state"], after["found"]["generation"]) == ("generation", 1)
    assert (after["found"]["nouns"], after["found"]["verbs"]) == (len(truth["nouns"]), len(truth["verbs"]))
