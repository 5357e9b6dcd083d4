"""Runs the blocks of a page: a JSON list on standard input, each with language, code, page and line."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import subprocess
import sys
from typing import Any

steps = json.load(sys.stdin)
names: dict[str, Any] = {"__name__": "__main__"}
for step in steps:
    print(f"--- {step['page']}:{step['line']}", file=sys.stderr, flush=True)
    if step["language"] == "shell":
        ended = subprocess.run(["bash", "-euo", "pipefail", "-c", step["code"]], stdin=subprocess.DEVNULL)
        if ended.returncode:
            sys.exit(f"status {ended.returncode}")
        continue
    # Blank lines before it, so that a traceback names the page's own line.
    code = compile("\n" * (step["line"] - 1) + step["code"], step["page"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)
    sys.stdout.flush()
