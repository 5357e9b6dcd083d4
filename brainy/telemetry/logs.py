"""Structured logs: an event name and fields, one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys

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


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger whose lines carry ``module=name``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger
