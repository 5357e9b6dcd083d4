"""``brainy demo``."""

from __future__ import annotations

import enum
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from brainy.cli.demo.report import LiveView, Report, show
from brainy.cli.demo.scenario import Demonstration
from brainy.cli.demo.seaweedfs import seaweedfs
from brainy.cli.exits import Exit
from brainy.cli.output import JsonOption, Output, current
from brainy.cli.target import run
from brainy.clock import SystemClock
from brainy.errors import BrainyError

_BUCKET = "brainy-demo"


class Store(enum.Enum):
    """Where the demonstration's bucket lies."""

    DIRECTORY = "directory"
    S3 = "s3"


def demo(
    store: Annotated[Store, typer.Option(help="A directory, or SeaweedFS started for this.")] = Store.DIRECTORY,
    nodes: Annotated[int, typer.Option(min=2, max=8, help="How many nodes.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the traffic.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Keep bucket, logs and local disks.")] = False,
    json: JsonOption = False,
) -> None:
    """Serve a bucket written by Brainy, upgrade it under load with a node killed midway, and prove nothing is lost.

    Needs about a minute. Exit status 1 if anything was lost or failed.
    """
    output = current()
    directory = Path(tempfile.mkdtemp(prefix="brainy-demo-"))
    try:
        report = run(_demo(output, store, nodes, seed, directory))
    except BrainyError:
        output.remark(f"logs: {directory}")
        raise
    if keep or not report.good:
        output.remark(f"kept: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    output.result(
        {**asdict(report), "lost": report.lost, "failed": report.counters.failed, "good": report.good},
        lambda console: show(console, report),
    )
    if not report.good:
        raise typer.Exit(int(Exit.FAILED_RESULT))


async def _demo(output: Output, store: Store, nodes: int, seed: int, directory: Path) -> Report:
    clock = SystemClock()
    on_s3 = store is Store.S3
    report = Report(
        store=store.value,
        namespace=f"s3://{_BUCKET}/app/v1" if on_s3 else f"file://{directory}/bucket",
        seed=seed,
        nodes=nodes,
    )
    view = LiveView(output, report, clock)
    async with AsyncExitStack() as stack:
        stack.enter_context(view.shown())
        if on_s3:
            view.phase("starting SeaweedFS")
            await stack.enter_async_context(seaweedfs(directory / "seaweedfs", _BUCKET, clock=clock))
        await Demonstration(report, view, directory=directory, clock=clock).run()
    return report
