"""Builders give way to the process that serves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from brainy.clock import SystemClock
from brainy_node.builder.courtesy import Appetite, index_threads, keep_fed

PROGRAM = """
import os, threading
from brainy_node.builder.courtesy import give_way
before = os.getpriority(os.PRIO_PROCESS, 0)
give_way()
seen = []
thread = threading.Thread(target=lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
thread.start()
thread.join()
print(before, os.getpriority(os.PRIO_PROCESS, 0), seen[0], os.sched_getscheduler(0) == os.SCHED_IDLE)
"""


def test_a_builder_and_its_threads_are_below_the_server() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, own, thread, idle = output.split()
    assert int(own) == int(thread) == min(19, int(before) + 10)
    assert idle == "True"


def test_an_index_is_built_with_a_core_left_over() -> None:
    assert index_threads(3) == 3
    assert index_threads(0) >= 1


def test_a_builder_that_starves_is_lifted_for_a_while() -> None:
    appetite = Appetite()
    assert [appetite.lift(0.0, 1.0) for _ in range(2)] == [False, True]
    held = [appetite.lift(1.5, 1.0) for _ in range(Appetite.LIFTED_SAMPLES)]
    assert held == [True] * (Appetite.LIFTED_SAMPLES - 1) + [False]
    assert not appetite.lift(0.0, 1.0)  # looked at afresh


def test_a_builder_that_waits_or_works_is_left_alone() -> None:
    appetite = Appetite()
    waiting_for_the_store = [appetite.lift(0.0, 0.4) for _ in range(10)]
    working_on_a_full_machine = [appetite.lift(0.8, 1.0) for _ in range(10)]
    now_and_then = [appetite.lift(share, 1.0) for share in (0.0, 0.5, 0.0, 0.5, 0.0)]
    assert not any(waiting_for_the_store + working_on_a_full_machine + now_and_then)


SPIN = "while True: pass"
GIVEN_WAY = f"from brainy_node.builder.courtesy import give_way\ngive_way()\nprint('ready', flush=True)\n{SPIN}"


@pytest.mark.long
async def test_a_real_builder_that_starves_gets_its_share() -> None:
    with ExitStack() as started:

        def start(program: str) -> subprocess.Popen[bytes]:
            process = started.enter_context(subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE))
            started.callback(process.kill)
            return process

        builder = start(GIVEN_WAY)
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"ready\n"
        assert os.sched_getscheduler(builder.pid) == os.SCHED_IDLE
        for _ in range(2 * (os.cpu_count() or 1)):
            start(SPIN)
        fed = asyncio.create_task(keep_fed(builder.pid, SystemClock(), every_seconds=0.3))
        async with asyncio.timeout(60):
            while os.sched_getscheduler(builder.pid) != os.SCHED_BATCH and not fed.done():
                await asyncio.sleep(0.05)
        assert os.sched_getscheduler(builder.pid) == os.SCHED_BATCH
        builder.kill()
        builder.wait()
        await asyncio.wait_for(fed, 30)
