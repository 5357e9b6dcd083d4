"""The namespaces that a node serves, by name."""

from __future__ import annotations

from collections.abc import Sequence

from brainy.bucket.namespace import Namespace
from brainy.errors import NotFoundError
from brainy_node.runtime.namespace import HostedNamespace


class HostedNamespaces:
    """The namespaces of a node, by any spelling of their name (``Runtimes``)."""

    def __init__(self, namespaces: Sequence[HostedNamespace]) -> None:
        self._by_name = {namespace.name: namespace for namespace in namespaces}

    def all(self) -> Sequence[HostedNamespace]:
        """Every namespace of this node."""
        return tuple(self._by_name.values())

    def get(self, name: str) -> HostedNamespace:
        """Return a namespace; "" is the only one.

        Raises:
            NotFoundError: this cluster does not serve it (UNKNOWN_NAMESPACE).
        """
        if not name and len(self._by_name) == 1:
            return next(iter(self._by_name.values()))
        found = self._by_name.get(str(Namespace.parse(name))) if name else None
        if found is None:
            raise NotFoundError(
                "this cluster does not serve the namespace",
                reason="UNKNOWN_NAMESPACE",
                remedy="use one of those served, or start the cluster with it",
                namespace=name,
                served=", ".join(sorted(self._by_name)),
            )
        return found
