"""``brainy migrate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli import copies
from brainy.cli.embedding_options import (
    DimensionsOption,
    EmbedOption,
    ExpansionAddOption,
    ExpansionSearchOption,
    PartitioningOption,
    WithoutTextOption,
    model_of,
)
from brainy.cli.exits import Exit
from brainy.cli.migration_view import follow, report
from brainy.cli.output import JsonOption, current, table
from brainy.cli.plan_view import show_plan
from brainy.cli.quality import (
    LatencyOption,
    OverlapOption,
    QualityOption,
    QueriesOption,
    RecallOption,
    thresholds_of,
)
from brainy.cli.quality import quality as measure_quality
from brainy.cli.sample_run import sample
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    NamespaceOption,
    OptionalNamespace,
    connect,
    run,
)
from brainy.cli.turns import IdArgument, add_to, by_whom
from brainy.errors import InvalidRequestError
from brainy.sdk.migration import Migration, Strategy, TargetSpec
from brainy.sdk.plans import MigrationPlan
from brainy.sdk.sources import SourceSpec
from brainy.traffic.limits import limits_of

app = typer.Typer(help="Plan, run and watch the change to the next generation.", no_args_is_help=True)

ShardsOption = Annotated[int, typer.Option(min=0, help="Shards of the target; 0 for as many as now.")]
MetricOption = Annotated[str, typer.Option(help="cos, l2sq or ip; as now if left out.")]
ScalarOption = Annotated[str, typer.Option(help="f32, f16, bf16 or i8 in the index; as now if left out.")]
ConnectivityOption = Annotated[int, typer.Option(min=0, help="Edges of an index node; 0 for as now.")]
PoolOption = Annotated[
    str, typer.Option(help="Label of the nodes that shall hold the target; blue-green needs one. As now if left out.")
]
QuarantineOption = Annotated[
    int, typer.Option(min=0, help="How many unreadable source objects are accepted; see brainy quarantine list.")
]
PauseOption = Annotated[float, typer.Option(min=0, help="Seconds writes may wait at the cut-over; 0 for the default.")]
WritersStoppedOption = Annotated[
    bool, typer.Option("--writers-stopped", help="Coordinated: your word that nobody writes until it has ended.")
]
BackupOption = Annotated[
    str, typer.Option(metavar="FILE", help="Backup that must be whole; its path as the coordinator sees it.")
]
WayBackOption = Annotated[
    bool,
    typer.Option("--keep-way-back", help="Let the source follow the target after the switch, until it is completed."),
]
HoldOption = Annotated[bool, typer.Option("--hold", help="Do not switch before brainy migrate promote.")]
ObserveOption = Annotated[
    float, typer.Option(min=0, help="With --keep-way-back: complete by itself after so many seconds; 0 for never.")
]
MaxUnavailableOption = Annotated[
    int, typer.Option(min=0, help="Rolling: how many nodes' reads move together, in one wave; 0 for one.")
]
BakeOption = Annotated[
    float,
    typer.Option(min=0, help="Rolling: seconds a wave must answer healthily before the next one, or the switch."),
]

RollbackIfOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIMIT",
        help="With --keep-way-back: roll back by itself if error-rate>0.01, p99>2x (or 250ms), write-p99>3x, "
        "overlap<0.9; worse for what suits most. May be repeated.",
    ),
]
MinCallsOption = Annotated[
    int, typer.Option(min=0, help="With --rollback-if: fewest calls that are judged; 0 for 100.")
]
FromOption = Annotated[
    str, typer.Option("--from", metavar="NS", help="Another namespace that moves into this one, which must be empty.")
]
FromBackupOption = Annotated[
    str,
    typer.Option(
        "--from-backup",
        metavar="FILE",
        help="A backup that this namespace, which must be empty, is made of: a path that all see, or s3://bucket/key.",
    ),
]
SparseOption = Annotated[
    bool,
    typer.Option(
        "--without-vectors",
        help="Of --from or --from-backup: leave the vectors behind; --embed names the model that makes new ones.",
    ),
]


@app.command()
def plan(
    namespace: OptionalNamespace = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="How nodes are moved; as the decision graph prefers if left out.")
    ] = None,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    pool: PoolOption = "",
    expansion_add: ExpansionAddOption = 0,
    expansion_search: ExpansionSearchOption = 0,
    dimensions: DimensionsOption = 0,
    partitioning: PartitioningOption = "",
    embed: EmbedOption = "",
    without_text: WithoutTextOption = 0,
    quarantine_limit: QuarantineOption = 0,
    pause_cap: PauseOption = 0.0,
    writers_stopped: WritersStoppedOption = False,
    require_backup: BackupOption = "",
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share by which the number of items may change until then; 0 for a tenth."),
    ] = 0.0,
    shared: Annotated[
        bool | None, typer.Option("--shared/--exclusive", help="Whether other processes use the bucket and prefix.")
    ] = None,
    downtime: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Seconds nobody may be able to write; inf for as long as it takes."),
    ] = None,
    old_writers: Annotated[
        bool | None,
        typer.Option("--old-writers/--no-old-writers", help="Whether Brainy processes go on writing meanwhile."),
    ] = None,
    rollback: Annotated[
        bool | None,
        typer.Option("--rollback/--no-rollback", help="Whether there must be a way back after the switch."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing at the store: the plan is not kept.")
    ] = False,
    keep_way_back: WayBackOption = False,
    hold: HoldOption = False,
    observe: ObserveOption = 0.0,
    max_unavailable: MaxUnavailableOption = 0,
    bake: BakeOption = 0.0,
    quality: QualityOption = False,
    min_overlap: OverlapOption = None,
    min_recall: RecallOption = None,
    max_latency_ratio: LatencyOption = None,
    quality_queries: QueriesOption = None,
    rollback_if: RollbackIfOption = None,
    min_calls: MinCallsOption = 0,
    from_namespace: FromOption = "",
    from_backup: FromBackupOption = "",
    without_vectors: SparseOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a migration would do, why and what it takes, and keep that as a plan. Changes nothing else.

    Exit status 4 if a check stands in its way.
    """
    target = TargetSpec(
        shard_count=shards,
        metric=metric,
        scalar_kind=scalar_kind,
        connectivity=connectivity,
        pool=pool,
        expansion_add=expansion_add,
        expansion_search=expansion_search,
        dimensions=dimensions,
        partitioning=partitioning,
        embedding=model_of(embed, without_text),
    )

    wanted = thresholds_of(quality, min_overlap, min_recall, max_latency_ratio, quality_queries)

    async def ask() -> MigrationPlan:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.plan_migration(
                strategy,
                target,
                quarantine_limit=quarantine_limit,
                pause_cap_seconds=pause_cap,
                writers_stopped=writers_stopped,
                require_backup=_seen_by_all(require_backup),
                item_tolerance=tolerance,
                dry_run=dry_run,
                requested_by=by_whom(),
                shared=shared,
                downtime_seconds=downtime,
                old_writers=old_writers,
                rollback=rollback,
                keep_way_back=keep_way_back,
                hold_before_switch=hold,
                observe_seconds=observe,
                max_unavailable=max_unavailable,
                bake_seconds=bake,
                quality=wanted,
                rollback_if=limits_of(rollback_if or (), min_calls=min_calls) or (),
                source=_source(from_namespace, from_backup, without_vectors),
            )

    found = run(ask())
    current().result(asdict(found), lambda console: show_plan(console, found))
    if not found.passes:
        raise typer.Exit(int(Exit.PRECONDITION))


@app.command()
def start(
    namespace: OptionalNamespace = None,
    plan_id: Annotated[
        str, typer.Option("--plan", metavar="ID", help="Execute this plan; what is wished for is the plan's then.")
    ] = "",
    confirm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Confirm what the plan asks for; may be repeated.")
    ] = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="How nodes are moved; rolling, or what --from calls for, if left out.")
    ] = None,
    shards: ShardsOption = 0,
    metric: MetricOption = "",
    scalar_kind: ScalarOption = "",
    connectivity: ConnectivityOption = 0,
    pool: PoolOption = "",
    expansion_add: ExpansionAddOption = 0,
    expansion_search: ExpansionSearchOption = 0,
    dimensions: DimensionsOption = 0,
    partitioning: PartitioningOption = "",
    embed: EmbedOption = "",
    without_text: WithoutTextOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fail where the real call would, and write nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--watch", "--wait", help="Stay until it has ended, or waits for somebody.")
    ] = False,
    pause_cap: PauseOption = 0.0,
    quarantine_limit: QuarantineOption = 0,
    writers_stopped: WritersStoppedOption = False,
    require_backup: BackupOption = "",
    keep_way_back: WayBackOption = False,
    hold: HoldOption = False,
    observe: ObserveOption = 0.0,
    max_unavailable: MaxUnavailableOption = 0,
    bake: BakeOption = 0.0,
    quality: QualityOption = False,
    min_overlap: OverlapOption = None,
    min_recall: RecallOption = None,
    max_latency_ratio: LatencyOption = None,
    quality_queries: QueriesOption = None,
    rollback_if: RollbackIfOption = None,
    min_calls: MinCallsOption = 0,
    from_namespace: FromOption = "",
    from_backup: FromBackupOption = "",
    without_vectors: SparseOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Start a migration. Reads and writes go on while it runs.

    Without --plan a plan is made, kept and executed, and what it asks to be confirmed counts as confirmed.
    """
    output = current()
    target = TargetSpec(
        shard_count=shards,
        metric=metric,
        scalar_kind=scalar_kind,
        connectivity=connectivity,
        pool=pool,
        expansion_add=expansion_add,
        expansion_search=expansion_search,
        dimensions=dimensions,
        partitioning=partitioning,
        embedding=model_of(embed, without_text),
    )
    wanted = thresholds_of(quality, min_overlap, min_recall, max_latency_ratio, quality_queries)
    source = _source(from_namespace, from_backup, without_vectors)
    wished = (
        source or pause_cap or quarantine_limit or require_backup or writers_stopped or keep_way_back or hold or observe
    )
    wished = wished or max_unavailable or bake
    if plan_id and (target != TargetSpec() or wished or wanted or rollback_if or min_calls):
        raise InvalidRequestError(
            "a plan says itself what is wished for", remedy="leave the other options out, or make another plan"
        )
    if confirm and not plan_id:
        raise InvalidRequestError("there is no plan to confirm", remedy="name it with --plan")

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if plan_id:
                begun = await brainy.execute_plan(
                    plan_id, confirm=confirm or (), validate_only=dry_run, requested_by=by_whom()
                )
            else:
                begun = await brainy.start_migration(
                    strategy,
                    target,
                    validate_only=dry_run,
                    requested_by=by_whom(),
                    pause_cap_seconds=pause_cap,
                    quarantine_limit=quarantine_limit,
                    writers_stopped=writers_stopped,
                    require_backup=_seen_by_all(require_backup),
                    keep_way_back=keep_way_back,
                    hold_before_switch=hold,
                    observe_seconds=observe,
                    max_unavailable=max_unavailable,
                    bake_seconds=bake,
                    quality=wanted,
                    rollback_if=limits_of(rollback_if or (), min_calls=min_calls) or (),
                    source=source,
                )
            return await follow(brainy, begun.id, output, at_rest=True) if wait and not dry_run else begun

    report(run(ask()), output, ended=wait and not dry_run)


def _source(namespace: str, backup: str, without_vectors: bool) -> SourceSpec | None:
    """Where the data come from; None for the namespace itself."""
    if not namespace and not backup:
        if without_vectors:
            raise InvalidRequestError(
                "nothing is named that could come without its vectors", remedy="add --from or --from-backup"
            )
        return None
    return SourceSpec(namespace=namespace, backup=_seen_by_all(backup), without_vectors=without_vectors)


def _seen_by_all(file: str) -> str:
    """Return a file that is here by its whole path, for the coordinator stands in another directory."""
    return str(Path(file).resolve()) if file and Path(file).exists() else file


@app.command()
def watch(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Show a migration until it has ended. Exit status 1 if it was aborted."""
    output = current()

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await follow(brainy, migration_id, output)

    report(run(ask()), output, ended=True)


@app.command()
def show(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print a migration and its story, held against its plan; or a plan, by its id."""

    async def ask() -> Migration | MigrationPlan:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if migration_id.startswith("p-"):
                return await brainy.get_plan(migration_id)
            return await brainy.get_migration(migration_id)

    found = run(ask())
    if isinstance(found, MigrationPlan):
        current().result(asdict(found), lambda console: show_plan(console, found))
    else:
        report(found, current(), ended=False)


@app.command("list")
def list_all(
    namespace: OptionalNamespace = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """List the migrations of a namespace."""

    async def ask() -> list[Migration]:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.list_migrations()

    found = run(ask())

    def human(console: Console) -> None:
        shown = table(None, "migration", "strategy", "state", "generations", "copied#")
        for migration in found:
            shown.add_row(
                escape(migration.id),
                migration.strategy,
                migration.state,
                f"{migration.source_generation} to {migration.target_generation}",
                f"{migration.items_copied:,}",
            )
        console.print(shown)

    current().result([asdict(migration) for migration in found], human)


@app.command()
def abort(
    migration_id: IdArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Undo a migration that has not cut over yet. Exit status 4 if it has."""

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.abort_migration(migration_id, requested_by=by_whom())

    report(run(ask()), current(), ended=False)


add_to(app)
app.command("quality")(measure_quality)
copies.add_to(app)
app.command("sample")(sample)
