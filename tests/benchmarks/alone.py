"""Measure functions against each other, each time in a process of its own.

A contender is `module:function`. Called with a folder of data it imports what it needs, warms up
and returns what is to be measured: a function without arguments, whose answer goes as JSON. Its own
process says the wall and CPU seconds of that call, and the most memory that the process held.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Runs:
    """What the runs of one contender cost, and the answer of the last."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    answer: Any = None

    def medians(self) -> dict[str, Any]:
        """Return the medians: seconds, CPU seconds, and MB at the peak."""
        names = ("wall", "cpu", "peak")
        return {name: statistics.median(getattr(self, name)) for name in names} | {
            "runs": self.wall,
            "answer": self.answer,
        }


def compare(contenders: Mapping[str, str], folder: Path, repeats: int) -> dict[str, Any]:
    """Run contenders in turn, `repeats` times each; return the medians by name.

    The order turns round each time, so that none always runs after the same other one.

    Raises:
        RuntimeError: a contender failed.
    """
    runs = {name: Runs() for name in contenders}
    for number in range(repeats):
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            told, into = _in_a_child(contenders[name], folder), runs[name]
            into.wall.append(told["wall"])
            into.cpu.append(told["cpu"])
            into.peak.append(told["peak"])
            into.answer = told["answer"]
    return {name: one.medians() for name, one in runs.items()}


def _in_a_child(contender: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.alone", contender, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{contender} failed:\n{ended.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def _measure(contender: str, folder: Path) -> dict[str, Any]:
    module, _, name = contender.partition(":")
    act = getattr(importlib.import_module(module), name)(folder)
    gc.collect()
    # The kernel's own mark of the peak starts anew, so that what the warming up took is no part.
    Path("/proc/self/clear_refs").write_text("5")
    began, cpu = time.perf_counter(), _cpu()
    answer = act()
    wall, cpu = time.perf_counter() - began, _cpu() - cpu
    return {"wall": wall, "cpu": cpu, "peak": _peak(), "answer": answer}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak() -> float:
    """Return the most memory held since the mark was set, in MB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2])), default=str))
