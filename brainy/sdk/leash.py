"""Run a command that ends when the process that started it ends.

``python -I -S leash.py PARENT_PID COMMAND...``. It asks the kernel to send this process SIGTERM when the thread
that started it dies, which survives ``exec``, and becomes the command. It is run by path, so it imports nothing
of this package. (Doing it between fork and exec in the parent is not safe in a process with threads.) Elsewhere
than on Linux the command just runs; the parent then ends it at its own exit.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            # The parent died before the request was in force; nobody would end us.
            sys.exit(0)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
