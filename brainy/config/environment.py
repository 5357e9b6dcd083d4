"""The process's environment, read and changed in this package only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child process: this one's, credentials included, plus ``additions``."""
    return {**os.environ, **additions}  # noqa: TID251 - this package may


def export(values: Mapping[str, str]) -> None:
    """Set variables of this process, for libraries that read nothing else (AWS credentials)."""
    os.environ.update(values)  # noqa: TID251 - this package may


def cache_directory() -> Path:
    """Directory for what can be rebuilt: ``$XDG_CACHE_HOME/brainy`` or ``~/.cache/brainy``."""
    root = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - this package may
    return (Path(root) if root else Path.home() / ".cache") / "brainy"
