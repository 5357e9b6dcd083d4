"""Which software this is, and which wire protocol it speaks, as nodes tell the coordinator."""

from __future__ import annotations

from typing import Final

#: Equals ``brainy.__version__``, which roles do not import: behind it lies the SDK.
SOFTWARE_VERSION: Final = "0.1.0"
#: Raised when nodes of the old and the new software must not take part in one migration.
PROTOCOL_VERSION: Final = 1
