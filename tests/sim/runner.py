"""Many seeds over all cores: ``python -m tests.sim --level owners --seeds 20000``.

A seed that fails is printed, and its trace and a file for ``tests/sim/regressions`` are written to ``--output``.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from pathlib import Path

import orjson

from brainy.clock import SystemClock
from tests.sim.levels import LEVELS, quiet


def _play(job: tuple[str, int, str]) -> tuple[str, int, tuple[str, ...], float]:
    level, seed, output = job
    outcome = LEVELS[level](seed)
    if outcome.violations:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        outcome.trace.write(folder / f"{level}-{seed}.jsonl")
        case = {"level": level, "seed": seed, "found": outcome.violations[0]}
        (folder / f"{level}-{seed}.json").write_bytes(orjson.dumps(case, option=orjson.OPT_INDENT_2) + b"\n")
    return level, seed, outcome.violations, outcome.seconds


def _prepare() -> None:
    quiet()
    gc.freeze()


def main() -> int:
    """Play the seeds; 1 if any rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Play many simulations.")
    parser.add_argument("--level", choices=[*LEVELS, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=2000, help="how many; a tenth of them of each slower level")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--output", default="build/sim", help="where traces of failed seeds go")
    options = parser.parse_args()
    clock = SystemClock()
    started = clock.monotonic()
    jobs = [
        (level, seed, options.output)
        for place, level in enumerate(LEVELS)
        if options.level in ("all", level)
        for seed in range(
            options.first,
            options.first + (options.seeds if options.level != "all" or place == 0 else max(1, options.seeds // 10)),
        )
    ]
    failed = 0
    virtual = 0.0
    done = 0
    with multiprocessing.get_context("forkserver").Pool(options.jobs, initializer=_prepare) as pool:
        for level, seed, violations, seconds in pool.imap_unordered(_play, jobs, chunksize=8):
            virtual += seconds
            done += 1
            if done % 1000 == 0:
                print(f"{done} of {len(jobs)} seeds, {failed} failed", flush=True)
            if violations:
                failed += 1
                print(f"{level} seed {seed}: {len(violations)} violations, first: {violations[0]}", flush=True)
    took = clock.monotonic() - started
    print(
        f"{len(jobs)} seeds, {failed} failed, {virtual / 3600:.1f} simulated hours in {took:.0f} s "
        f"({len(jobs) / took:.1f} seeds/s)"
    )
    return 1 if failed else 0
