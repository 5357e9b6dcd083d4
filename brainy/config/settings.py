"""Settings of the roles: frozen values from a TOML file, overridden by the environment.

Order, last wins: defaults, the TOML file named by ``BRAINY_CONFIG`` (or ``--config``), ``BRAINY_*`` variables
(``BRAINY_NODE__NODE_ID`` is ``node.node_id``), explicit arguments. Settings are values; objects (store, clock,
ids) are built once in each role's ``main.py``. Credentials are not settings: they come from the usual AWS
variables and files.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from brainy.config.environment import debugging
from brainy.errors import InvalidRequestError


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


#: A list in TOML, comma-separated in the environment.
TextList = Annotated[tuple[str, ...], BeforeValidator(_split)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(_Section):
    """How to reach the object store."""

    #: S3 endpoint; empty for AWS itself, or AWS_ENDPOINT_URL(_S3).
    endpoint: str = ""
    region: str = ""
    request_timeout_seconds: float = 30.0
    #: Reads, unconditional writes and lists are retried this often; conditional writes never blindly.
    max_retries: int = 6


class LockSettings(_Section):
    """Where leases are kept."""

    #: store: in the namespace's bucket. redis: in Redis or Valkey, which keep waiters waiting less; tokens then
    #: still come from the bucket. Every process of a cluster names the same one.
    provider: Literal["store", "redis"] = "store"
    #: redis://host:6379/0, rediss:// or unix://; may hold credentials, so it is never logged.
    redis_url: str = ""
    redis_timeout_seconds: float = 2.0


class EmbeddingSettings(_Section):
    """How a client makes vectors out of texts when it asks an endpoint."""

    #: An OpenAI-style endpoint for namespaces whose recorded model is not the offline one.
    url: str = ""
    #: Sent as a bearer token, to the endpoint only. Never logged.
    api_key: SecretStr = SecretStr("")
    #: For one request.
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    #: A request that is refused for load (429), fails (5xx) or does not connect is sent so often.
    max_attempts: Annotated[int, Field(ge=1)] = 6
    #: Texts of one request; some servers take no more than 32.
    batch_texts: Annotated[int, Field(ge=1)] = 32
    #: Requests under way at once.
    concurrency: Annotated[int, Field(ge=1)] = 4


class CoordinatorSettings(_Section):
    """The control plane."""

    coordinator_id: str = ""
    listen: str = "127.0.0.1:7070"
    #: How clients and nodes reach this process; empty means the bound address.
    advertise: str = ""
    leader_lease_seconds: float = 10.0
    heartbeat_interval_seconds: float = 1.0
    #: A node silent for longer loses its shards.
    node_ttl_seconds: float = 6.0
    #: Wait for this many nodes before the first placement.
    min_nodes: int = 1
    shard_count: int = 4
    replication: int = 2
    tick_seconds: float = 0.2
    #: Vector length of a new, empty namespace; 0 lets the first write decide.
    dimensions: int = 0
    #: What the index of a namespace that no cluster served before keeps its vectors as: f16 and bf16 take half of
    #: f32, i8 a quarter. Stored vectors stay float32. Later generations are shaped by ``brainy migrate``.
    scalar_kind: Literal["f32", "f16", "bf16", "i8"] = "f32"
    #: How long a generation that is not served any more is kept before its objects are deleted, unless
    #: ``brainy migrate complete --retain`` or ``brainy generations`` says otherwise. Negative: for good.
    retain_seconds: float = 7 * 24 * 3600.0
    #: As ``node.log_retention_seconds`` of every node: no generation is deleted earlier, whatever is asked for.
    log_retention_seconds: Annotated[float, Field(gt=0)] = 3600.0


class NodeSettings(_Section):
    """The data plane."""

    node_id: str = ""
    listen: str = "127.0.0.1:0"
    advertise: str = ""
    #: Local disk for bases; a cache, safe to delete while the node is down.
    data_dir: str = ""
    #: Label of this node: it holds the shards of generations that name this pool (``brainy migrate start --pool``).
    #: Without one it holds those that name none.
    pool: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    coordinators: TextList = ("127.0.0.1:7070",)
    routing_poll_seconds: float = 2.0
    #: Fold the tail into a new base from this many records on, or from this share of the base.
    fold_records: int = 2000
    fold_share: float = 0.25
    #: Or from this many change-log objects on, because each is a read for whoever opens the shard next.
    fold_slots: int = 256
    #: Or from this many on once the shard has been idle for so long.
    fold_idle_slots: int = 8
    fold_idle_seconds: float = 10.0
    #: Keep change-log objects for so long after a checkpoint includes them. The same on every node, and far above
    #: the life of a signed request (15 minutes).
    log_retention_seconds: Annotated[float, Field(gt=0)] = 3600.0
    #: How often to look for change-log objects to delete.
    log_collection_seconds: Annotated[float, Field(gt=0)] = 60.0
    #: Writes that wait while a namespace drains, per node, and for how long.
    write_buffer_requests: int = 1000
    write_buffer_seconds: float = 10.0
    #: Where a namespace follows the Brainy processes that still write it (``brainy follow``): seconds from one
    #: reconcile pass to the next, and from one look at their change log to the next.
    follow_seconds: Annotated[float, Field(gt=0)] = 30.0
    follow_hint_seconds: Annotated[float, Field(gt=0)] = 1.0
    #: A copy into a new generation gives way to searches, but never falls below so many items a second: it must end.
    copy_floor_items_per_second: Annotated[float, Field(gt=0)] = 100.0
    max_batch_records: int = 10_000
    drain_seconds: float = 10.0
    #: How many candidates a search keeps (ef): more find more and take longer. 0 for what the generation says.
    expansion_search: Annotated[int, Field(ge=0, le=4096)] = 0
    #: Query vectors kept of each namespace, in memory only, to ask source and target of a migration; 0 for none.
    recorded_queries: Annotated[int, Field(ge=0, le=100_000)] = 256
    #: Where commits are mirrored into Brainy's tree (``brainy mirror``): how often its statistics are updated.
    mirror_statistics_seconds: Annotated[float, Field(gt=0)] = 30.0


class Settings(_Section):
    """Everything that can be written in the TOML file."""

    namespaces: TextList = ()
    #: Where clients find nodes (BRAINY_ENDPOINTS) and coordinators (BRAINY_COORDINATORS), host:port.
    endpoints: TextList = ()
    coordinators: TextList = ()
    log_level: str = "info"
    log_format: str = "json"
    store: StoreSettings = Field(default_factory=StoreSettings)
    locks: LockSettings = Field(default_factory=LockSettings)
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    coordinator: CoordinatorSettings = Field(default_factory=CoordinatorSettings)
    node: NodeSettings = Field(default_factory=NodeSettings)


def load_settings(
    path: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings from a file, the environment and explicit overrides (dotted keys).

    Raises:
        InvalidRequestError: the file is missing or no TOML, or a key or value is wrong; names it.
    """
    env = os.environ if environment is None else environment  # noqa: TID251 - the one place that may
    path = path or env.get("BRAINY_CONFIG")
    values: dict[str, Any] = {}
    if path:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidRequestError(
                "cannot read the configuration file",
                remedy="check the path in --config or BRAINY_CONFIG",
                file=path,
                cause=error,
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise InvalidRequestError(
                "the configuration file is not TOML", remedy="correct the line and start again", file=path, at=error
            ) from error
    for name, text in env.items():
        path_in = name.removeprefix("BRAINY_").lower().split("__")
        # Other programs have BRAINY_ variables too (Brainy's own BRAINY_ROLE); a path with "__" can only be ours.
        if name.startswith("BRAINY_") and (len(path_in) > 1 or path_in[0] in Settings.model_fields):
            _assign(values, path_in, text)
    if debugging(env):
        values["log_level"] = "debug"
    for dotted, value in (overrides or {}).items():
        if value is not None:
            _assign(values, dotted.split("."), value)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequestError(
            f"wrong setting: {first['msg'].lower()}",
            remedy="correct it and start again",
            key=".".join(str(part) for part in first["loc"]),
            file=path or "environment",
        ) from error


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value
