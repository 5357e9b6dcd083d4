"""Builders give way to the process that serves."""

from __future__ import annotations

import subprocess
import sys

from brainy_node.builder.courtesy import index_threads

PROGRAM = """
import os, threading
from brainy_node.builder.courtesy import give_way
before = os.getpriority(os.PRIO_PROCESS, 0)
give_way()
seen = []
thread = threading.Thread(target=lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
thread.start()
thread.join()
print(before, os.getpriority(os.PRIO_PROCESS, 0), seen[0], os.sched_getscheduler(0) == os.SCHED_BATCH)
"""


def test_a_builder_and_its_threads_are_below_the_server() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, own, thread, batch = output.split()
    assert int(own) == int(thread) == min(19, int(before) + 10)
    assert batch == "True"


def test_an_index_is_built_with_a_core_left_over() -> None:
    assert index_threads(3) == 3
    assert index_threads(0) >= 1
