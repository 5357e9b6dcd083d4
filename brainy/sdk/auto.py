"""One call that gives a working client: embedded on a directory or bucket, or connected to a cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from brainy.config.settings import load_settings
from brainy.errors import InvalidRequestError
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster, default_directory
from brainy.sdk.loop_thread import LOOP
from brainy.sdk.sync import Brainy

if TYPE_CHECKING:
    from brainy.embedding.opening import EmbedderLike

_DEFAULT_DIRECTORY = "brainy-data"
#: Few, large parts search fastest; more of them fill and fold in parallel.
_ITEMS_PER_SHARD = 250_000
_SHARDS = (4, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """How to reach an S3 bucket. What is left empty comes from the usual AWS variables and files."""

    bucket_name: str
    #: Key prefix inside the bucket.
    prefix: str = ""
    region: str = ""
    #: URL of an S3-compatible server; empty for AWS.
    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    @property
    def namespace(self) -> str:
        """The bucket and prefix as a URI."""
        return f"s3://{self.bucket_name}/{self.prefix}".rstrip("/")

    def settings(self) -> dict[str, str]:
        """Variables for the processes of an embedded cluster."""
        values = {
            "BRAINY_STORE__REGION": self.region,
            "AWS_REGION": self.region,
            "BRAINY_STORE__ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }
        return {name: value for name, value in values.items() if value}


class AutoOptions(TypedDict, total=False):
    """Options of ``create_auto_brainy`` and its asynchronous twin."""

    #: An S3 bucket, the guide's spelling ``bucket/app/v2`` included.
    bucket_name: str
    #: Region of ``bucket_name``.
    region: str
    #: Bucket, server and credentials in one.
    s3_config: S3Config
    #: ``host:port`` of nodes of a running cluster.
    endpoints: Sequence[str] | str
    #: ``host:port`` of its coordinators.
    coordinators: Sequence[str] | str
    #: How many nodes to start when embedded; 1 by default.
    nodes: int
    #: Length of the vectors of a new namespace; the first write decides otherwise.
    dimensions: int
    #: Number of nouns expected. Sets the shard count of a namespace that no cluster has served before: one per
    #: 250,000, between 4 and 64.
    expected_dataset_size: int
    #: Refuse every call that would change something.
    read_only: bool
    #: What texts are embedded with; see ``AsyncBrainy.embedder``.
    embedder: EmbedderLike | None
    #: State of the embedded cluster; a directory of the user's cache by default.
    state_directory: Path | str


def create_auto_brainy(namespace: str | None = None, **options: Unpack[AutoOptions]) -> Brainy:
    """Return a client that works, starting what it needs.

    With ``endpoints`` or ``coordinators`` (or ``BRAINY_ENDPOINTS``, ``BRAINY_COORDINATORS``) it connects to
    that cluster. Otherwise, if a cluster for the namespace runs on this machine (``brainy up``), it connects to
    that; else it starts a coordinator and nodes as child processes, which end with ``close`` or with this
    process.

    Args:
        namespace: ``file:///directory``, ``s3://bucket/prefix`` or ``bucket/prefix``. Without any place
            given, the directory ``brainy-data`` below the working directory.
        **options: see ``AutoOptions``.

    Raises:
        InvalidRequestError: options that exclude each other, or an illegal namespace.
        UnavailableError: the embedded cluster did not start; the message quotes its log.
    """
    return Brainy(LOOP.run(create_auto_brainy_async(namespace, **options)))


async def create_auto_brainy_async(namespace: str | None = None, **options: Unpack[AutoOptions]) -> AsyncBrainy:
    """Return an asynchronous client; otherwise as ``create_auto_brainy``."""
    client = await _open(namespace, **options)
    client.embedder = options.get("embedder")
    return client


async def _open(
    namespace: str | None,
    *,
    bucket_name: str | None = None,
    region: str = "",
    s3_config: S3Config | None = None,
    endpoints: Sequence[str] | str = (),
    coordinators: Sequence[str] | str = (),
    nodes: int = 1,
    dimensions: int = 0,
    expected_dataset_size: int = 0,
    read_only: bool = False,
    state_directory: Path | str | None = None,
    embedder: EmbedderLike | None = None,  # the caller sets it, whatever kind of client this returns
) -> AsyncBrainy:
    places = [place for place in (namespace, bucket_name, s3_config) if place]
    if len(places) > 1:
        raise InvalidRequestError("namespace, bucket_name and s3_config each name a place", remedy="give one of them")
    if region and not bucket_name:
        raise InvalidRequestError("region belongs to bucket_name", remedy="use s3_config=S3Config(region=...)")
    if bucket_name:
        s3_config = S3Config(bucket_name=bucket_name, region=region)
    place = s3_config.namespace if s3_config else namespace
    if not endpoints and not coordinators and not places:
        known = load_settings()
        endpoints, coordinators = known.endpoints, known.coordinators
    if endpoints or coordinators:
        return AsyncBrainy(endpoints, coordinators=coordinators, namespace=place or "", read_only=read_only)
    if place is None:
        place = _default_place()
    directory = Path(state_directory) if state_directory else default_directory(place)
    running = LocalCluster.attach(directory)
    if running:
        return running.client(read_only=read_only)
    cluster = LocalCluster(
        place,
        nodes=nodes,
        directory=directory,
        settings={
            **(s3_config.settings() if s3_config else {}),
            **_namespace_settings(dimensions, expected_dataset_size),
        },
    )
    await cluster.start()
    return cluster.client(read_only=read_only, on_close=cluster.stop)


def _default_place() -> str:
    return f"file://{Path(_DEFAULT_DIRECTORY).resolve()}"


def _namespace_settings(dimensions: int, expected_dataset_size: int) -> dict[str, str]:
    if dimensions < 0 or expected_dataset_size < 0:
        raise InvalidRequestError(
            "dimensions and expected_dataset_size cannot be negative", remedy="leave them out, or give positive numbers"
        )
    settings = {}
    if dimensions:
        settings["BRAINY_COORDINATOR__DIMENSIONS"] = str(dimensions)
    if expected_dataset_size:
        low, high = _SHARDS
        shards = min(max(math.ceil(expected_dataset_size / _ITEMS_PER_SHARD), low), high)
        settings["BRAINY_COORDINATOR__SHARD_COUNT"] = str(shards)
    return settings
