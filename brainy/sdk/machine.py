"""What this machine has for a cluster of local processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

#: Where Linux says how much memory a container may use.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Cores and memory this process may use."""

    cores: int
    memory_bytes: int

    @classmethod
    def here(cls) -> Self:
        """Look: affinity and a container's limit count, not only what is built in."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(cores=cores, memory_bytes=min([psutil.virtual_memory().total, *_container_limits()]))


def _container_limits() -> list[int]:
    limits = []
    for path in _LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text):
            limits.append(int(text))
    return limits
