"""Seeds that must hold, seeds that once did not, and that a seed decides everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from brainy.config.environment import inherited
from tests.sim import cluster, owners
from tests.sim.levels import LEVELS
from tests.sim.planted import PLANTED

#: Seeds of the first level; a tenth of them of the slower one.
SEEDS = int(inherited().get("SIM_SEEDS") or 100)


def chunks(count: int, size: int) -> list[range]:
    """Cut into pieces that end within a test's time limit and can be spread over processes."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def name(seeds: range) -> str:
    """Name a piece."""
    return f"{seeds.start}-{seeds.stop - 1}"


REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))


def test_the_same_seed_gives_the_same_trace() -> None:
    first, again, other = owners.run(3), owners.run(3), owners.run(4)
    assert first.trace.lines() == again.trace.lines()
    assert first.trace.digest() != other.trace.digest()
    assert orjson.loads(first.trace.lines()[0])["seed"] == 3


@pytest.mark.parametrize("level", LEVELS)
def test_the_trace_is_the_same_in_another_interpreter(level: str) -> None:
    # Other addresses and another order of sets of text.
    program = f"from tests.sim.levels import LEVELS, quiet; quiet(); print(LEVELS[{level!r}](5).trace.digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**inherited(), "PYTHONHASHSEED": order},
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
        ).stdout
        for order in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("seeds", chunks(SEEDS, 100), ids=name)
def test_owners_and_their_log(seeds: range) -> None:
    acknowledged = 0
    for seed in seeds:
        outcome = owners.run(seed, clean_up=seed % 50 == 0)
        assert outcome.violations == (), f"owners seed {seed}"
        acknowledged += outcome.acknowledged
    # The world is hostile, not barren.
    assert acknowledged >= len(seeds) * 5


@pytest.mark.parametrize("seeds", chunks(SEEDS // 10, 20), ids=name)
def test_clusters_and_a_migration(seeds: range) -> None:
    struck = 0
    for seed in seeds:
        outcome = cluster.run(seed, clean_up=seed % 5 == 0)
        assert outcome.violations == (), f"cluster seed {seed}"
        assert outcome.acknowledged > 0
        struck += sum(name == "strike" for _, name, _ in outcome.trace.events)
    # Somebody was killed at the very moment at which a step was durable.
    assert struck or len(seeds) < 10


@pytest.mark.parametrize(
    ("bug", "rule"),
    [
        ("wall-clocks", "leases do not overlap"),
        ("no-read-back", "no acknowledged write is lost"),
        ("deleted-lock", "tokens rise"),
    ],
)
def test_planted_bugs_are_found(bug: str, rule: str) -> None:
    for seed in range(500):
        outcome = owners.run(seed, kit=PLANTED[bug], clean_up=seed % 50 == 0)
        if any(violation.startswith(rule) for violation in outcome.violations):
            return
    pytest.fail(f"500 seeds did not find {bug}")


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regressions(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    outcome = LEVELS[case["level"]](case["seed"])
    assert outcome.violations == ()
