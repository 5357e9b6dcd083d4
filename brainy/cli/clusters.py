"""``brainy up``, ``down``, ``status`` and ``drain``: a cluster and its nodes."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.output import JsonOption, Output, current, facts, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    NamespaceArgument,
    NamespaceOption,
    OptionalNamespace,
    connect,
    local,
    run,
)
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.values import NamespaceInfo, NodeInfo


def up(
    namespace: NamespaceArgument,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="How many nodes to start.")] = 3,
    coordinators: Annotated[
        int, typer.Option(min=1, max=9, help="How many coordinators to start; one leads, the others stand by.")
    ] = 1,
    shards: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Shards of a namespace not served before.")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Vector length of a new namespace; else the first write decides.")
    ] = None,
    directory: DirectoryOption = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C stops the cluster.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the nodes to serve.")] = 300.0,
    json: JsonOption = False,
) -> None:
    """Start coordinators and nodes on this machine for a namespace."""
    settings = {}
    if shards is not None:
        settings["BRAINY_COORDINATOR__SHARD_COUNT"] = str(shards)
    if dimensions is not None:
        settings["BRAINY_COORDINATOR__DIMENSIONS"] = str(dimensions)
    cluster = LocalCluster(
        namespace,
        nodes=nodes,
        coordinators=coordinators,
        directory=directory,
        settings=settings,
        leashed=foreground,
    )
    run(_up(cluster, current(), foreground=foreground, timeout=timeout))


async def _up(cluster: LocalCluster, output: Output, *, foreground: bool, timeout: float) -> None:
    interrupted = asyncio.Event()
    if foreground:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    with output.progress(f"starting {cluster.namespace}"):
        await cluster.start(timeout_seconds=timeout)
    async with cluster.client() as brainy:
        damaged = _damaged(await brainy.nodes())
    found = {
        "namespace": str(cluster.namespace),
        "coordinator": cluster.coordinator,
        "coordinators": cluster.coordinator_addresses,
        "endpoints": cluster.endpoints,
        "directory": str(cluster.directory),
        "damaged": damaged,
        "pids": {process.name: process.record.pid for process in cluster.processes},
    }

    def human(console: Console) -> None:
        facts(
            console,
            {
                "namespace": cluster.namespace,
                "coordinator" if len(cluster.coordinators) == 1 else "coordinators": "  ".join(
                    cluster.coordinator_addresses
                ),
                "nodes": "  ".join(cluster.endpoints),
                "logs": cluster.directory / "logs",
                "stop it with": "Ctrl-C" if foreground else f"brainy down {cluster.namespace}",
            },
        )

    output.result(found, human)
    for shard, why in damaged.items():
        output.remark(f"[yellow]shard {shard} is not served:[/] {escape(why)}")
    if foreground:
        await interrupted.wait()
        output.remark("stopping")
        await cluster.stop()


def _damaged(nodes: list[NodeInfo]) -> dict[str, str]:
    """Shard -> why it does not answer."""
    return {
        f"{replica.generation}/{replica.shard}": f"{replica.message} [{replica.reason}]"
        for node in nodes
        for replica in node.replicas
        if replica.reason
    }


def down(namespace: OptionalNamespace = None, directory: DirectoryOption = None, json: JsonOption = False) -> None:
    """Stop the cluster that runs on this machine for a namespace. Only its own processes are ended."""
    cluster = local(namespace, directory)
    stopped = [process.name for process in cluster.processes if process.alive()]
    run(cluster.stop())
    found = {"namespace": str(cluster.namespace), "stopped": stopped}
    current().result(found, lambda console: console.print(f"stopped {', '.join(stopped)} of {cluster.namespace}"))


def status(
    namespace: OptionalNamespace = None,
    directory: DirectoryOption = None,
    coordinator: CoordinatorOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a cluster serves, and how its nodes and shards are."""
    namespaces, nodes = run(_status(namespace, directory, coordinator))
    found = {
        "namespaces": [{**asdict(info), "quarantined": _quarantined(info, nodes)} for info in namespaces],
        "nodes": [asdict(node) for node in nodes],
    }
    current().result(found, lambda console: _show(console, namespaces, nodes))


async def _status(
    namespace: str | None, directory: DirectoryOption, coordinators: list[str] | None
) -> tuple[list[NamespaceInfo], list[NodeInfo]]:
    async with connect(namespace, None, coordinators, directory) as brainy:
        return await brainy.namespaces(), await brainy.nodes()


def _quarantined(info: NamespaceInfo, nodes: list[NodeInfo]) -> int:
    """Objects that the generation in service could not read; each shard's as its owner counts them."""
    return sum(
        replica.quarantined
        for node in nodes
        for replica in node.replicas
        if replica.namespace == info.namespace
        and replica.generation == info.active_generation
        and replica.role == "owner"
    )


def _show(console: Console, namespaces: list[NamespaceInfo], nodes: list[NodeInfo]) -> None:
    served = table(
        None, "namespace", "generation#", "writes to#", "phase", "replicas ready#", "quarantined#", "migration"
    )
    for info in namespaces:
        served.add_row(
            escape(info.namespace),
            str(info.active_generation),
            str(info.write_generation),
            info.phase,
            f"{info.replicas_ready}/{info.replicas_wanted}",
            f"{_quarantined(info, nodes):,}",
            info.migration_id or "-",
        )
    console.print(served)
    console.print()
    members = table(None, "node", "pool", "state", "address", "silent s#", "MiB#", "shards")
    for node in nodes:
        shards = " ".join(
            f"g{replica.generation}/{replica.shard}{'*' if replica.role == 'owner' else ''}"
            f"{'' if replica.state == 'ready' else ':' + replica.state}"
            for replica in sorted(node.replicas, key=lambda each: (each.generation, each.shard))
        )
        members.add_row(
            escape(node.node_id),
            escape(node.pool) or "-",
            node.state,
            node.address,
            f"{node.silent_seconds:.1f}",
            str(node.memory_bytes >> 20),
            shards,
        )
    console.print(members)
    console.print("[dim]* owner; state only where not ready[/]")
    for info in namespaces:
        if info.problem is not None:
            where = " ".join(f"{name}={value}" for name, value in info.problem.fields.items())
            console.print(f"\n[bold red]{escape(info.namespace)} is not served:[/]", soft_wrap=True)
            console.print(escape(f"  {info.problem.message} {where} [{info.problem.reason}]"), soft_wrap=True)
            console.print(f"  [bold]what to do:[/] {escape(info.problem.remedy)}", soft_wrap=True)
    for node in nodes:
        for replica in node.replicas:
            if replica.reason:
                where = f"{node.node_id} g{replica.generation}/{replica.shard}"
                console.print(f"\n[bold red]{escape(where)} does not answer:[/] [dim]({replica.reason})[/]")
                console.print(f"  {escape(replica.message)}", soft_wrap=True)


def add_nodes(
    namespace: OptionalNamespace = None,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="How many nodes to start.")] = 1,
    pool: Annotated[str, typer.Option(help="Label of the new nodes; they hold only generations that name it.")] = "",
    directory: DirectoryOption = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for each to serve.")] = 120.0,
    json: JsonOption = False,
) -> None:
    """Start more nodes for a cluster that runs on this machine."""
    cluster = local(namespace, directory)
    started = run(_add_nodes(cluster, nodes, pool, timeout))
    current().result(
        {"namespace": str(cluster.namespace), "pool": pool, "nodes": started},
        lambda console: console.print("\n".join(f"{escape(name)} at {where}" for name, where in started.items())),
    )


async def _add_nodes(cluster: LocalCluster, count: int, pool: str, timeout: float) -> dict[str, str]:
    started = {}
    for _ in range(count):
        node = await cluster.start_node(pool=pool, timeout_seconds=timeout)
        started[node.name] = node.address
    return started


def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of the node, as brainy status shows it.")],
    namespace: NamespaceOption = None,
    directory: DirectoryOption = None,
    coordinator: CoordinatorOption = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for it to be gone.")] = 120.0,
    json: JsonOption = False,
) -> None:
    """Take a node out of service: its shards move to the others, then it exits. Reads and writes go on."""
    run(_drain(node, namespace, directory, coordinator, timeout))
    current().result({"node": node, "state": "left"}, lambda console: console.print(f"{escape(node)} has left"))


async def _drain(
    node: str, namespace: str | None, directory: DirectoryOption, coordinators: list[str] | None, timeout: float
) -> None:
    async with connect(namespace, None, coordinators, directory) as brainy:
        await brainy.wait_until_drained(node, timeout_seconds=timeout)
