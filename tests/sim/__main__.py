"""``python -m tests.sim``: see ``runner``."""

import sys

from tests.sim.runner import main

if __name__ == "__main__":
    sys.exit(main())
