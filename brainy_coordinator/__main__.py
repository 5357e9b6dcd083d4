"""``python -m brainy_coordinator``."""

from __future__ import annotations

from brainy_coordinator.main import app

if __name__ == "__main__":
    app(prog_name="brainy-coordinator")
