"""Structured logs: an event name and fields, one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog


def configure_logs(*, level: str = "info", form: str = "json", **bound: str) -> None:
    """Set up logging for a process; ``bound`` fields (role, node) go into every line."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)


class _StandardError:
    """Standard error as it is when a line is written: a program may have replaced it since."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_library_logs(*, debug: bool) -> None:
    """Set up logging for a program that uses the client and has not set up structlog itself.

    Warnings go to standard error; with ``debug`` everything does. A program's own set-up is left alone.
    """
    if not structlog.is_configured():
        configure_logs(level="debug" if debug else "warning", form="console")
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _StandardError())))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger whose lines carry ``module=name``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger
