"""The variables of other tools this product honours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def s3_endpoint(environment: Mapping[str, str] | None = None) -> str:
    """Return AWS_ENDPOINT_URL_S3, else AWS_ENDPOINT_URL, else "" for AWS itself."""
    env = os.environ if environment is None else environment  # noqa: TID251 - brainy.config may
    return env.get("AWS_ENDPOINT_URL_S3", "") or env.get("AWS_ENDPOINT_URL", "")


def s3_region(environment: Mapping[str, str] | None = None) -> str:
    """Return AWS_REGION, else AWS_DEFAULT_REGION, else ""."""
    env = os.environ if environment is None else environment  # noqa: TID251 - brainy.config may
    return env.get("AWS_REGION", "") or env.get("AWS_DEFAULT_REGION", "")


def fixtures_directory(environment: Mapping[str, str] | None = None) -> str:
    """Return BRAINY_FIXTURES, the directory of recorded buckets for tests, or ""."""
    env = os.environ if environment is None else environment  # noqa: TID251 - brainy.config may
    return env.get("BRAINY_FIXTURES", "")


def openai_api_key(environment: Mapping[str, str] | None = None) -> str:
    """Return OPENAI_API_KEY, or "". It is for OpenAI's own endpoint and goes to no other."""
    env = os.environ if environment is None else environment  # noqa: TID251 - brainy.config may
    return env.get("OPENAI_API_KEY", "")


def inherited(**changes: str) -> dict[str, str]:
    """Return this process's environment with ``changes``, for a child process."""
    return {**os.environ, **changes}  # noqa: TID251 - brainy.config may


def export(**values: str) -> None:
    """Set variables of this process, for libraries that read nothing else (AWS credentials)."""
    os.environ.update(values)  # noqa: TID251 - brainy.config may


def debugging(environment: Mapping[str, str] | None = None) -> bool:
    """Whether BRAINY_DEBUG asks for everything that may help to find a fault."""
    env = os.environ if environment is None else environment  # noqa: TID251 - brainy.config may
    return env.get("BRAINY_DEBUG", "").lower() in ("1", "true", "yes")


def cache_directory() -> Path:
    """Directory for what can be rebuilt: ``$XDG_CACHE_HOME/brainy`` or ``~/.cache/brainy``."""
    root = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - brainy.config may
    return (Path(root) if root else Path.home() / ".cache") / "brainy"
