"""One call that gives a working client: embedded on a directory or bucket, or connected to a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from brainy.config.environment import debugging
from brainy.config.settings import load_settings
from brainy.errors import InvalidRequestError
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster, default_directory
from brainy.sdk.loop_thread import LOOP
from brainy.sdk.machine import Machine
from brainy.sdk.sizing import Wishes, size
from brainy.sdk.sync import Brainy
from brainy.telemetry.logs import configure_library_logs, get_logger

if TYPE_CHECKING:
    from brainy.embedding.opening import EmbedderLike

_log = get_logger(__name__)
_DEFAULT_DIRECTORY = "brainy-data"


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
    """Options of ``create_auto_brainy`` and its asynchronous twin.

    Those that shape a cluster (nodes to auto_configure_environment) act when this call starts one; joining a cluster
    that runs already, it logs a warning that they were ignored.
    """

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
    #: Bytes for the processes of the embedded cluster together. Chooses what the index of a namespace that no cluster
    #: has served before keeps its vectors as (f32, f16 or i8: the widest that fits), and how many records wait in
    #: memory to be folded. A budget to plan by, not a limit: use a container's for that. Bases are mapped files, and
    #: what does not fit is read from disk.
    max_memory_usage: int
    #: Milliseconds a search may take. Chooses how many candidates the nodes keep while they search: 32 up to 50 ms,
    #: 64 up to 150, 128 up to 500, else 256. More find more of the true neighbours. No deadline.
    target_search_latency: float
    #: Asks that nodes tune themselves by what they measure. They do not do that yet: a warning is logged, and nothing
    #: else happens.
    learning_enabled: bool
    #: Let this machine's cores and memory (a container's, in one) decide how many nodes to start, unless ``nodes``
    #: does, and take half of its memory for ``max_memory_usage``, unless that is given.
    auto_configure_environment: bool
    #: Refuse every call that would change something, as ``set_read_only(True)``.
    read_only_mode: bool
    #: The same.
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

    ``BRAINY_DEBUG=true`` writes to standard error what was decided, and to the logs of embedded processes (in the
    state directory) everything they do.

    Raises:
        InvalidRequestError: options that exclude each other, or an illegal value or namespace.
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
    nodes: int = 0,
    dimensions: int = 0,
    expected_dataset_size: int = 0,
    max_memory_usage: int = 0,
    target_search_latency: float = 0.0,
    learning_enabled: bool = False,
    auto_configure_environment: bool = False,
    read_only_mode: bool = False,
    read_only: bool = False,
    state_directory: Path | str | None = None,
    embedder: EmbedderLike | None = None,  # the caller sets it, whatever kind of client this returns
) -> AsyncBrainy:
    configure_library_logs(debug=debugging())
    places = [place for place in (namespace, bucket_name, s3_config) if place]
    if len(places) > 1:
        raise InvalidRequestError("namespace, bucket_name and s3_config each name a place", remedy="give one of them")
    if region and not bucket_name:
        raise InvalidRequestError("region belongs to bucket_name", remedy="use s3_config=S3Config(region=...)")
    wishes = Wishes(
        dimensions=dimensions,
        expected_dataset_size=expected_dataset_size,
        max_memory_usage=max_memory_usage,
        target_search_latency=target_search_latency,
        nodes=nodes,
        machine=Machine.here() if auto_configure_environment else None,
    )
    sizing = size(wishes)
    if learning_enabled:
        _log.warning("learning_not_available", remedy="set target_search_latency to choose how thoroughly is searched")
    if bucket_name:
        s3_config = S3Config(bucket_name=bucket_name, region=region)
    place = s3_config.namespace if s3_config else namespace
    read_only = read_only or read_only_mode
    if not endpoints and not coordinators and not places:
        known = load_settings()
        endpoints, coordinators = known.endpoints, known.coordinators
    if endpoints or coordinators:
        _warn_of_ignored(wishes, "it is connected to by address")
        _log.debug("auto_brainy_connects", endpoints=endpoints, coordinators=coordinators, namespace=place)
        return AsyncBrainy(endpoints, coordinators=coordinators, namespace=place or "", read_only=read_only)
    if place is None:
        place = _default_place()
    directory = Path(state_directory) if state_directory else default_directory(place)
    running = LocalCluster.attach(directory)
    if running:
        _warn_of_ignored(wishes, "it runs already")
        _log.debug("auto_brainy_joins", namespace=place, coordinator=running.coordinator, nodes=len(running.nodes))
        return running.client(read_only=read_only)
    if not sizing.fits:
        _log.warning(
            "memory_budget_small",
            expected_dataset_size=expected_dataset_size,
            max_memory_usage=max_memory_usage,
            consequence="searches will read from disk",
        )
    _log.debug("auto_brainy_starts", namespace=place, directory=str(directory), nodes=sizing.nodes, **sizing.settings)
    cluster = LocalCluster(
        place,
        nodes=sizing.nodes,
        directory=directory,
        settings={**(s3_config.settings() if s3_config else {}), **sizing.settings},
    )
    await cluster.start()
    _log.debug("auto_brainy_serves", coordinator=cluster.coordinator, endpoints=cluster.endpoints)
    return cluster.client(read_only=read_only, on_close=cluster.stop)


def _warn_of_ignored(wishes: Wishes, why: str) -> None:
    said = {field.name: getattr(wishes, field.name) for field in fields(wishes)}
    said["auto_configure_environment"] = said.pop("machine")
    ignored = sorted(name for name, value in said.items() if value)
    if ignored:
        _log.warning("cluster_options_ignored", options=ignored, because=why)


def _default_place() -> str:
    return f"file://{Path(_DEFAULT_DIRECTORY).resolve()}"
