"""``brainy follow``: whether the cluster takes over what Brainy processes still write, and how far it is."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from brainy.bucket.follow import FollowChoice, change_choice, read_choice
from brainy.bucket.namespace import Namespace
from brainy.cli.output import JsonOption, current, facts, table
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceArgument, bucket, connect, run
from brainy.clock import SystemClock, iso
from brainy.errors import NotFoundError
from brainy.ids import Ids
from brainy.sdk.values import NodeInfo, ShardReplica


def follow(
    namespace: NamespaceArgument,
    turn: Annotated[
        bool | None, typer.Option("--on/--off", help="Follow from now on, or no more. Kept in the bucket.")
    ] = None,
    directory: DirectoryOption = None,
    coordinator: CoordinatorOption = None,
    json: JsonOption = False,
) -> None:
    """Take over what Brainy processes go on writing into the tree; without an option, say how far that is."""
    choice = run(_choice(namespace, turn))
    nodes = run(_nodes(namespace, directory, coordinator))
    found = _found(str(Namespace.parse(namespace)), choice, nodes)
    current().result(found, lambda console: _show(console, found))


async def _choice(namespace: str, turn: bool | None) -> FollowChoice:
    store = bucket(namespace)
    try:
        if turn is None:
            return await read_choice(store)
        clock = SystemClock()
        return await change_choice(store, follow=turn, changed_at=iso(clock.wall()), clock=clock, ids=Ids())
    finally:
        await store.close()


async def _nodes(namespace: str, directory: DirectoryOption, coordinators: list[str] | None) -> list[NodeInfo] | None:
    try:
        async with connect(namespace, None, coordinators, directory) as brainy:
            return await brainy.nodes()
    except NotFoundError:
        return None  # the choice is the bucket's; no cluster need run


def _found(namespace: str, choice: FollowChoice, nodes: list[NodeInfo] | None) -> dict[str, Any]:
    # A node that is silent goes on ageing here.
    owners = [
        (node.node_id, _aged(replica, node.silent_seconds))
        for node in nodes or ()
        for replica in node.replicas
        if replica.namespace == namespace and replica.following is not None
    ]
    followings = [replica.following for _, replica in owners if replica.following is not None]
    lags = [each.lag_seconds for each in followings]
    known = [lag for lag in lags if lag is not None]
    return {
        "namespace": namespace,
        "follow": choice.follow,
        "mirror": choice.mirror,
        "cluster_runs": nodes is not None,
        # Of all shards; null until each has made a pass that left nothing open.
        "lag_seconds": max(known) if known and len(known) == len(lags) else None,
        "open_items": sum(each.open_items for each in followings),
        "passes": min((each.passes for each in followings), default=0),
        "applied": sum(each.applied for each in followings),
        "conflicts": sum(each.conflicts for each in followings),
        "unreadable": sum(each.unreadable for each in followings),
        "last_error": next((each.last_error for each in followings if each.last_error), ""),
        "shards": [
            {"generation": replica.generation, "shard": replica.shard, "node": node, **asdict(replica.following)}
            for node, replica in sorted(owners, key=lambda each: (each[1].generation, each[1].shard))
            if replica.following is not None
        ],
    }


def _aged(replica: ShardReplica, seconds: float) -> ShardReplica:
    following = replica.following
    if following is None or following.lag_seconds is None:
        return replica
    return replace(replica, following=replace(following, lag_seconds=following.lag_seconds + seconds))


def _show(console: Console, found: dict[str, Any]) -> None:
    lag = found["lag_seconds"]
    facts(
        console,
        {
            "namespace": escape(found["namespace"]),
            "follows": "yes" if found["follow"] else "no",
            "mirrors": found["mirror"] or "no",
            "lag": "unknown" if lag is None else f"{lag:.1f} s",
            "open items": f"{found['open_items']:,}",
            "applied": f"{found['applied']:,}",
            "own words kept": f"{found['conflicts']:,}",
            "unreadable": f"{found['unreadable']:,}",
            "last error": escape(found["last_error"]) or "none",
        },
    )
    if found["shards"]:
        shown = table(None, "shard", "node", "stage", "lag s#", "passes#", "applied#")
        for each in found["shards"]:
            lag = each["lag_seconds"]
            shown.add_row(
                f"g{each['generation']}/{each['shard']}",
                escape(each["node"]),
                each["stage"],
                "-" if lag is None else f"{lag:.1f}",
                f"{each['passes']:,}",
                f"{each['applied']:,}",
            )
        console.print()
        console.print(shown)
    elif found["follow"] and not found["cluster_runs"]:
        console.print("\n[dim]no cluster runs; one that is started will follow[/]")
