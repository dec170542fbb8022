"""A command that is watched from outside while it runs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil


def watch(command: list[str], look: Callable[[psutil.Process], None], every: float) -> tuple[dict[str, Any], float]:
    """Run a command that prints JSON and ``look`` at it, again and again; return what it printed, and its seconds.

    What is gone when it is looked at is passed over. A command that fails ends the program.
    """
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                look(seen)
            time.sleep(every)
        printed = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(printed), time.perf_counter() - begun


def private(process: psutil.Process) -> int:
    """Return the bytes of memory that a process shares with no other and no file."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)
