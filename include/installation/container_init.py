"""What the init container does: every database as this version needs it, before anybody uses it.

Each step may be run again, and is where a run was cut off in the middle.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from include.processes import python_module

STEPS = {"records, roles and grants": "migrate", "Airflow and its users": "airflow-init"}
"""What is done, in this order, and the command that does it."""


def initialise(environment: Mapping[str, str]) -> int:
    """Migrate the records and MLflow's database, then Airflow's; return the first bad exit code."""
    for what, name in STEPS.items():
        began = time.monotonic()
        _say(sys.stdout, what)
        # A process each: what one has read of the databases before its migration ends with it.
        command = python_module("include", name)
        done = subprocess.run(command, env=dict(environment), cwd=Path("/"), check=False)
        if done.returncode:
            _say(sys.stderr, f"{what}: ended with code {done.returncode}, see above")
            return done.returncode
        _say(sys.stdout, f"{what}: done in {time.monotonic() - began:.1f} s")
    return 0


def _say(stream: TextIO, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()
