"""Which cluster a command talks to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.environment import cache_directory
from brainy.config.settings import load_settings
from brainy.errors import InvalidRequestError, NotFoundError
from brainy.ids import Ids
from brainy.sdk.auto import AutoOptions, create_auto_brainy_async
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster, default_directory
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store

T = TypeVar("T")

NamespaceArgument = Annotated[
    str, typer.Argument(metavar="NS", help="file:///directory, s3://bucket/prefix or bucket/prefix.")
]
OptionalNamespace = Annotated[
    str | None,
    typer.Argument(
        metavar="[NS]",
        help="Namespace whose cluster on this machine is meant; may be left out if only one runs.",
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; may be left out if the cluster serves only one."),
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option("--endpoint", "-e", metavar="HOST:PORT", help="A node to ask; may be repeated."),
]
CoordinatorOption = Annotated[
    list[str] | None,
    typer.Option("--coordinator", "-c", metavar="HOST:PORT", help="A coordinator to ask; may be repeated."),
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option("--dir", help="State directory of the local cluster, instead of one in the user's cache."),
]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""
    return asyncio.run(work)


def connect(
    namespace: str | None,
    endpoints: list[str] | None = None,
    coordinators: list[str] | None = None,
    directory: Path | None = None,
) -> AsyncBrainy:
    """Return a client: of the addresses given, else of BRAINY_ENDPOINTS/BRAINY_COORDINATORS, else of the cluster
    that ``brainy up`` started for the namespace on this machine. Call it inside the event loop.

    Raises:
        NotFoundError: no such cluster runs.
    """
    if not endpoints and not coordinators and directory is None:
        known = load_settings()
        endpoints, coordinators = list(known.endpoints), list(known.coordinators)
    if endpoints or coordinators:
        return AsyncBrainy(endpoints or (), coordinators=coordinators or (), namespace=namespace or "")
    return local(namespace, directory).client()


async def serving(
    namespace: str,
    endpoints: list[str] | None = None,
    coordinators: list[str] | None = None,
    directory: Path | None = None,
) -> AsyncBrainy:
    """Return a client of the cluster that serves a namespace; where none runs, start one that ends with the client.

    Raises:
        UnavailableError: it did not start; the message quotes its log.
    """
    if not endpoints and not coordinators and directory is None:
        known = load_settings()
        endpoints, coordinators = list(known.endpoints), list(known.coordinators)
    options = AutoOptions(endpoints=endpoints or (), coordinators=coordinators or ())
    if directory is not None:
        options["state_directory"] = directory
    return await create_auto_brainy_async(namespace, **options)


def local(namespace: str | None, directory: Path | None = None) -> LocalCluster:
    """Return the cluster that runs on this machine for a namespace, or the only one.

    Raises:
        NotFoundError: none runs.
        InvalidRequestError: several run and none was named.
    """
    if directory is not None or namespace is not None:
        place = directory or default_directory(namespace or "")
        cluster = LocalCluster.attach(place)
        if cluster is None:
            raise NotFoundError(
                "no local cluster runs here",
                remedy=f"start one: brainy up {namespace or 'NS'}",
                directory=place,
            )
        return cluster
    found = [LocalCluster.attach(path.parent) for path in sorted(cache_directory().glob("*/cluster.json"))]
    running = [cluster for cluster in found if cluster is not None]
    if not running:
        raise NotFoundError(
            "no local cluster runs", remedy="start one with brainy up NS, or name one with --endpoint HOST:PORT"
        )
    if len(running) > 1:
        raise InvalidRequestError(
            "several local clusters run",
            remedy="name the namespace",
            namespaces=" ".join(str(cluster.namespace) for cluster in running),
        )
    return running[0]


def bucket(namespace: str) -> ObjectStore:
    """Open the store of a namespace, without any cluster.

    Raises:
        NotFoundError: the directory of a ``file://`` namespace does not exist.
    """
    parsed = Namespace.parse(namespace)
    if parsed.scheme == "file" and not Path(parsed.root).is_dir():
        raise NotFoundError("no such directory", reason="UNKNOWN_NAMESPACE", remedy="check the path", namespace=parsed)
    return open_store(parsed, load_settings().store, clock=SystemClock(), ids=Ids())
