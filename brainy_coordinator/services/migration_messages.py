"""Migrations on the wire: between the values of this package and the protos."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import timestamp_pb2

from brainy.api.coordinator.v1 import migration_pb2
from brainy.errors import InvalidRequestError
from brainy.traffic.limits import RollbackLimits, limits_to_proto
from brainy.traffic.serving import figures_to_proto
from brainy_coordinator.migration.quality import QualityWish
from brainy_coordinator.migration.reconciler import Progress
from brainy_coordinator.migration.record import Event, MigrationRecord, Request, SourceWish, Strategy
from brainy_coordinator.migration.state import State
from brainy_coordinator.migration.waves import Wave, WaveState
from brainy_coordinator.services.copy_messages import copy_message
from brainy_coordinator.services.membership import duration
from brainy_coordinator.services.quality_messages import found_message, wish_message
from brainy_coordinator.services.source_messages import check_strategy, source_message
from brainy_coordinator.services.target_messages import target_wish

DEFAULT_PAUSE_CAP_SECONDS = 3.0
_LONGEST_PAUSE_CAP_SECONDS = 60.0
_MOST_SHARDS = 4096

_STRATEGIES: Mapping[int, Strategy] = {
    migration_pb2.STRATEGY_IN_PLACE_UPGRADE: "in_place_upgrade",
    migration_pb2.STRATEGY_ROLLING: "rolling",
    migration_pb2.STRATEGY_BLUE_GREEN: "blue_green",
    migration_pb2.STRATEGY_COORDINATED: "coordinated",
    migration_pb2.STRATEGY_BACKUP_RESTORE: "backup_restore",
    migration_pb2.STRATEGY_SPARSE_IMPORT: "sparse_import",
    migration_pb2.STRATEGY_DEDICATED_NAMESPACE: "dedicated_namespace",
}
#: Strategies as the protos number them.
STRATEGY_NUMBERS: Mapping[Strategy, migration_pb2.Strategy.ValueType] = {
    "in_place_upgrade": migration_pb2.STRATEGY_IN_PLACE_UPGRADE,
    "rolling": migration_pb2.STRATEGY_ROLLING,
    "blue_green": migration_pb2.STRATEGY_BLUE_GREEN,
    "coordinated": migration_pb2.STRATEGY_COORDINATED,
    "backup_restore": migration_pb2.STRATEGY_BACKUP_RESTORE,
    "sparse_import": migration_pb2.STRATEGY_SPARSE_IMPORT,
    "dedicated_namespace": migration_pb2.STRATEGY_DEDICATED_NAMESPACE,
}


def state_number(state: State | None) -> migration_pb2.MigrationState.ValueType:
    """Return a state as the protos number it."""
    if state is None:
        return migration_pb2.MIGRATION_STATE_UNSPECIFIED
    return migration_pb2.MigrationState.Value(f"MIGRATION_STATE_{state.name}")


def request_value(
    *,
    namespace: str,
    strategy: int,
    target: migration_pb2.TargetSpec,
    source_generation: int,
    target_generation: int,
    request_id: str = "",
    requested_by: str = "",
    pause_cap_seconds: float = DEFAULT_PAUSE_CAP_SECONDS,
    quarantine_limit: int = 0,
    writers_stopped: bool = False,
    require_backup: str = "",
    keep_way_back: bool = False,
    hold_before_switch: bool = False,
    observe_seconds: float = 0.0,
    max_unavailable: int = 0,
    bake_seconds: float = 0.0,
    quality: QualityWish | None = None,
    rollback_if: RollbackLimits | None = None,
    source: SourceWish | None = None,
) -> Request:
    """Return what a caller asks for.

    Raises:
        InvalidRequestError: no strategy, or a number out of bounds.
    """
    known = _STRATEGIES.get(strategy)
    if known is None:
        raise InvalidRequestError(
            "a migration needs a strategy", remedy="choose in-place upgrade, rolling, blue-green or coordinated"
        )
    check_strategy(known, source)
    if known == "blue_green" and not target.pool:
        raise InvalidRequestError(
            "blue-green needs the pool of the nodes that shall hold the target",
            remedy="start nodes with a label (node.pool) and name it: brainy migrate start --pool",
        )
    if not 0.0 < pause_cap_seconds <= _LONGEST_PAUSE_CAP_SECONDS:
        raise InvalidRequestError(
            "pause_cap is out of bounds", remedy="0 to 60 s, 0 excluded", pause_cap=pause_cap_seconds
        )
    if target.shard_count > _MOST_SHARDS:
        raise InvalidRequestError("too many shards", remedy=f"at most {_MOST_SHARDS}", shards=target.shard_count)
    if observe_seconds < 0.0 or (observe_seconds and not keep_way_back):
        raise InvalidRequestError(
            "a time to observe needs a way back",
            remedy="ask for keep_way_back, or leave the time out",
            observe=observe_seconds,
        )
    if (max_unavailable or bake_seconds) and known != "rolling":
        raise InvalidRequestError(
            "only a rolling migration has waves", remedy="leave max_unavailable and bake out", strategy=known
        )
    if bake_seconds < 0.0:
        raise InvalidRequestError("a time to bake is not negative", bake=bake_seconds)
    if rollback_if is not None and not keep_way_back:
        raise InvalidRequestError(
            "rolling back by itself needs a way back",
            remedy="ask for keep_way_back, or leave the limits out",
            rollback_if=", ".join(rollback_if.texts),
        )
    return Request(
        request_id=request_id,
        namespace=namespace,
        strategy=known,
        source_generation=source_generation,
        target_generation=target_generation,
        target=target_wish(target),
        requested_by=requested_by,
        pause_cap_seconds=pause_cap_seconds,
        quarantine_limit=quarantine_limit,
        writers_stopped=writers_stopped,
        require_backup=require_backup,
        keep_way_back=keep_way_back,
        hold_before_switch=hold_before_switch,
        observe_seconds=observe_seconds,
        max_unavailable=max_unavailable,
        bake_seconds=bake_seconds,
        quality=quality,
        rollback_if=rollback_if,
        source=source,
    )


def migration_message(record: MigrationRecord, progress: Progress | None = None) -> migration_pb2.Migration:
    """Return a migration as the protos carry it; without ``progress`` only what the history says."""
    progress = progress or Progress()
    copy = copy_message(record, progress.copy) if progress.copy is not None else None
    return migration_pb2.Migration(
        id=record.id,
        namespace=record.request.namespace,
        strategy=STRATEGY_NUMBERS[record.request.strategy],
        state=state_number(record.state),
        source_generation=record.source,
        target_generation=record.target,
        items_copied=max(progress.copied, record.items_copied),
        items_total=max(progress.total, record.items_total),
        lag=progress.lag,
        adopted_nodes=progress.adopted,
        write_pause=duration(record.write_pause_seconds),
        digest_equal=record.digest_equal,
        message=progress.message or record.reason,
        story=[_event_message(event) for event in record.story],
        plan_id=record.request.plan_id,
        keep_way_back=record.request.keep_way_back,
        held=record.held,
        paused=record.paused,
        waits_for=progress.waits_for,
        copy=copy,
        observe=duration(record.request.observe_seconds) if record.request.observe_seconds else None,
        waves=[_wave_message(wave) for wave in progress.waves or _baked(record)],
        postponed=_postponed_message(record, progress),
        quality=found_message(record.quality),
        quality_wanted=wish_message(record.request.quality),
        quality_accepted=record.quality_accepted,
        rollback_if=limits_to_proto(record.request.rollback_if),
        served=figures_to_proto(progress.served) if progress.served is not None else None,
        served_before=figures_to_proto(record.served_before) if record.served_before is not None else None,
        observed=duration(max(progress.observed_seconds, record.observed_seconds)),
        source=source_message(record.request.source),
    )


def _baked(record: MigrationRecord) -> list[Wave]:
    return [Wave(nodes=nodes, state=WaveState.DONE) for nodes in record.waves]


def _wave_message(wave: Wave) -> migration_pb2.MigrationWave:
    return migration_pb2.MigrationWave(
        nodes=wave.nodes,
        state=migration_pb2.MigrationWave.State.Value(f"STATE_{wave.state.name}"),
        baked=duration(wave.baked_seconds) if wave.state is WaveState.BAKING else None,
        complaint=wave.complaint,
    )


def _postponed_message(record: MigrationRecord, progress: Progress) -> migration_pb2.PostponedSwitch | None:
    if record.postponed is None or record.state.is_terminal:
        return None
    left = record.postponed.seconds if progress.postponed is None else progress.postponed
    return migration_pb2.PostponedSwitch(
        remaining=duration(left), reason=record.postponed.reason, by=record.postponed.by
    )


def _event_message(event: Event) -> migration_pb2.MigrationEvent:
    at = timestamp_pb2.Timestamp()
    at.FromNanoseconds(int(event.at * 1e9))
    message = migration_pb2.MigrationEvent(
        sequence=event.sequence,
        at=at,
        to=state_number(event.to_state),
        trigger=event.trigger.value,
        by=event.by,
        leader_epoch=event.leader_epoch,
        detail=event.detail,
        quality=found_message(event.quality),
    )
    # "from" is a word of Python, so the field cannot be named in the call.
    setattr(message, "from", state_number(event.from_state))
    return message
