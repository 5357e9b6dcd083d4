"""Which wire protocol this software speaks."""

from __future__ import annotations

#: Raised when nodes of the old and the new software must not take part in one migration.
PROTOCOL_VERSION = 1
