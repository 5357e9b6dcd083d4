"""How nodes shall copy: what the histories of the running migrations say of pauses and rates."""

from __future__ import annotations

from brainy.api.node.v1 import copy_pb2
from brainy_coordinator.control import Term
from brainy_coordinator.migration.transitions import COPYABLE


def copy_orders(term: Term) -> list[copy_pb2.CopyOrder]:
    """Return an order for each copy that somebody has paused or set a rate for; every heartbeat is answered with them.

    Nothing is kept but the history: a new leader says the same once it has read that, and nodes go on as told last
    until then.
    """
    orders = []
    for name, control in term.namespaces.items():
        record = control.migrations.running()
        if record is None or record.state not in COPYABLE or (not record.paused and record.copy_rate is None):
            continue
        orders.append(
            copy_pb2.CopyOrder(
                namespace=name,
                generation=record.target,
                paused=bool(record.paused),
                items_per_second=record.copy_rate,
            )
        )
    return orders
