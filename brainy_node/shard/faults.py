"""Whether the process had to read mapped files from disk."""

from __future__ import annotations

import resource


def reads_from_disk() -> int:
    """Return the process's major page faults: reads of mapped files that were not in memory.

    Those of all threads, because the index searches with threads of its own. What another thread reads meanwhile
    is counted too, so the share of searches without a read comes out too low at worst.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
