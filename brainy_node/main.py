"""The composition root of a node: the only place that makes clocks, ids, stores, channels and processes."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import Settings, load_settings
from brainy.errors import BrainyError, InvalidRequestError
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy.rpc.ready import ready_file as announced
from brainy.store.opening import open_store
from brainy.telemetry.logs import configure_logs, get_logger
from brainy_node.builder.client import BuilderClient
from brainy_node.node import Node
from brainy_node.runtime.foreground import Foreground
from brainy_node.runtime.namespace import HostedNamespace
from brainy_node.runtime.namespaces import HostedNamespaces

#: Containers more than before, from which on the youngest are looked through, and passes until older ones are too.
#: A batch of writes makes thousands that stay: at the interpreter's 700 a seventh of its time went into looking.
COLLECT_EVERY = (10_000, 20, 20)

_log = get_logger(__name__)

app = typer.Typer(add_completion=False, help="The data plane of a Brainy cluster.")


@app.command()
def main(
    config: Annotated[str | None, typer.Option(help="TOML file; BRAINY_CONFIG if not given.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="s3://bucket/prefix, file:///directory; may be repeated.")
    ] = None,
    node_id: Annotated[str | None, typer.Option(help="Name of this node; made up if empty.")] = None,
    listen: Annotated[str | None, typer.Option(help="host:port to listen on; port 0 takes a free one.")] = None,
    advertise: Annotated[str | None, typer.Option(help="host:port by which others reach this process.")] = None,
    coordinator: Annotated[list[str] | None, typer.Option(help="host:port of a coordinator; may be repeated.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Local cache of bases; safe to delete while down.")] = None,
    pool: Annotated[str | None, typer.Option(help="Label: which generations this node may hold.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Written once calls are answered.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console.")] = None,
) -> None:
    """Serve shards. SIGTERM and SIGINT drain and end it."""
    try:
        settings = load_settings(
            config,
            overrides={
                "namespaces": ",".join(namespace) if namespace else None,
                "node.node_id": node_id,
                "node.listen": listen,
                "node.advertise": advertise,
                "node.coordinators": ",".join(coordinator) if coordinator else None,
                "node.data_dir": str(data_dir) if data_dir else None,
                "node.pool": pool,
                "log_level": log_level,
                "log_format": log_format,
            },
        )
        uvloop.run(_serve(settings, ready_file))
    except BrainyError as error:
        print(f"brainy-node: {error}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, InvalidRequestError) else 1) from error


async def _serve(settings: Settings, ready_file: Path | None) -> None:
    clock, ids = SystemClock(), Ids()
    node_id = settings.node.node_id or f"node-{ids.short()}"
    incarnation = ids.uuid()
    configure_logs(level=settings.log_level, form=settings.log_format, role="node", node=node_id)
    if not settings.namespaces:
        raise InvalidRequestError("no namespace is given", remedy="pass --namespace or set namespaces")
    if not settings.node.data_dir:
        raise InvalidRequestError("no data directory is given", remedy="pass --data-dir or set node.data_dir")
    data_dir = Path(settings.node.data_dir)
    peers = ChannelPool()
    builder = BuilderClient(settings)
    foreground = Foreground(clock)
    namespaces = HostedNamespaces(
        [
            HostedNamespace(
                name,
                store=open_store(name, settings.store, clock=clock, ids=ids),
                settings=settings,
                node_id=node_id,
                incarnation=incarnation,
                data_dir=data_dir,
                builder=builder,
                peers=peers,
                clock=clock,
                ids=ids,
                foreground=foreground,
            )
            for name in map(Namespace.parse, settings.namespaces)
        ]
    )
    node = Node(
        node_id=node_id,
        incarnation=incarnation,
        namespaces=namespaces,
        peers=peers,
        settings=settings.node,
        clock=clock,
        ids=ids,
        foreground=foreground,
        embedding=settings.embedding,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.drain)
    try:
        async with node.serving() as address, announced(ready_file, address):
            gc.freeze()  # what was imported stays, and need not be looked through again
            gc.set_threshold(*COLLECT_EVERY)
            _log.info("node_serving", address=address, namespaces=list(settings.namespaces))
            await node.drained()
    finally:
        await peers.close()
    _log.info("node_stopped")
