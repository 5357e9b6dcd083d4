"""``brainy version``."""

from __future__ import annotations

import platform
from importlib import metadata

import brainy
from brainy.cli.output import JsonOption, current, facts

_PARTS = ("grpcio", "protobuf", "usearch", "numpy", "pyarrow", "obstore")


def version(json: JsonOption = False) -> None:
    """Print the versions of this program and of what it stands on."""
    found = {
        "brainy-cluster": brainy.__version__,
        "python": platform.python_version(),
        **{part: metadata.version(part) for part in _PARTS},
    }
    current().result(found, lambda console: facts(console, found))
