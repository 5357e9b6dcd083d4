"""Stands in for a coordinator or node process: takes the same arguments, serves the fake cluster."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from sdk_cluster_fake import FakeCluster


def announce(ready_file: Path, address: str) -> None:
    draft = ready_file.with_suffix(".tmp")
    draft.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    draft.rename(ready_file)


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--namespace", "--listen", "--ready-file", "--node-id", "--data-dir"):
        parser.add_argument(name)
    parser.add_argument("--coordinator", action="append")
    options = parser.parse_args()
    if "unwilling" in options.namespace:
        sys.exit("this role is unwilling")
    stop = asyncio.Event()
    if "stubborn" in options.namespace:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    cluster = FakeCluster()
    _, address = await cluster.serve(int(options.listen.rpartition(":")[2]))
    announce(Path(options.ready_file), address)
    await stop.wait()
    await cluster.close()


asyncio.run(main())
