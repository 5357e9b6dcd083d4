"""The composition root: the only place that makes clocks, ids, stores and channels."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import Settings, load_settings
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import BrainyError, InvalidRequestError
from brainy.ids import Ids
from brainy.locks.opening import open_locks
from brainy.rpc.channel import ChannelPool
from brainy.rpc.ready import ready_file as announced
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs, get_logger
from brainy_coordinator.control import Components
from brainy_coordinator.nodes import GrpcNodeCalls
from brainy_coordinator.server import CoordinatorServer

_log = get_logger(__name__)

app = typer.Typer(add_completion=False, help="The control plane of a Brainy cluster.")


@app.command()
def main(
    config: Annotated[str | None, typer.Option(help="TOML file; BRAINY_CONFIG if not given.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="s3://bucket/prefix, file:///directory; may be repeated.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="host:port to listen on; port 0 takes a free one.")] = None,
    advertise: Annotated[str | None, typer.Option(help="host:port by which others reach this process.")] = None,
    coordinator_id: Annotated[str | None, typer.Option(help="Name of this process; made up if empty.")] = None,
    min_nodes: Annotated[int | None, typer.Option(help="Nodes to wait for before the first placement.")] = None,
    shard_count: Annotated[int | None, typer.Option(help="Shards of a namespace that is adopted.")] = None,
    replication: Annotated[int | None, typer.Option(help="Copies of each shard, its owner's included.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="Vector length of a new, empty namespace.")] = None,
    node_ttl: Annotated[float | None, typer.Option(help="Seconds of silence after which a node is lost.")] = None,
    leader_lease: Annotated[float | None, typer.Option(help="Seconds a leadership lasts unrenewed.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Written once calls are answered.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console.")] = None,
) -> None:
    """Lead the cluster, or stand by for the one that does. SIGTERM and SIGINT end it gracefully."""
    try:
        settings = load_settings(
            config,
            overrides={
                "namespaces": ",".join(namespace) if namespace else None,
                "coordinator.listen": listen,
                "coordinator.advertise": advertise,
                "coordinator.coordinator_id": coordinator_id,
                "coordinator.min_nodes": min_nodes,
                "coordinator.shard_count": shard_count,
                "coordinator.replication": replication,
                "coordinator.dimensions": dimensions,
                "coordinator.node_ttl_seconds": node_ttl,
                "coordinator.leader_lease_seconds": leader_lease,
                "log_level": log_level,
                "log_format": log_format,
            },
        )
        uvloop.run(_serve(settings, ready_file))
    except BrainyError as error:
        print(f"brainy-coordinator: {error}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, InvalidRequestError) else 1) from error


async def _serve(settings: Settings, ready_file: Path | None) -> None:
    clock, ids = SystemClock(), Ids()
    coordinator_id = settings.coordinator.coordinator_id or f"coordinator-{ids.short()}"
    configure_logs(level=settings.log_level, form=settings.log_format, role="coordinator", coordinator=coordinator_id)
    if not settings.namespaces:
        raise InvalidRequestError("no namespace is given", remedy="pass --namespace or set namespaces")
    names = [Namespace.parse(text) for text in settings.namespaces]
    stores = {str(name): open_store(name, settings.store, clock=clock, ids=ids) for name in names}
    locks = {name: open_locks(settings.locks, store, clock, ids, scope=name) for name, store in stores.items()}
    pool = ChannelPool()
    elsewhere = Elsewhere(settings.store, clock=clock, ids=ids)
    components = Components(
        stores=stores,
        locks=locks,
        nodes=GrpcNodeCalls(pool, clock=clock),
        settings=settings.coordinator,
        clock=clock,
        ids=ids,
        elsewhere=elsewhere,
    )
    asked_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end.set)
    try:
        server = await CoordinatorServer.start(components, coordinator_id=coordinator_id)
        try:
            async with announced(ready_file, server.address):
                _log.info("coordinator_serving", address=server.address, namespaces=list(stores))
                await asked_to_end.wait()
        finally:
            await server.stop()
    finally:
        await pool.close()
        for provider in locks.values():
            await provider.close()
        for store in stores.values():
            await store.close()
        await elsewhere.close()
    _log.info("coordinator_stopped")
