"""Files that a process cannot read, also where the tests run as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

OTHER = 10001  # a user that is not the tests'


def shut(path: Path) -> None:
    """Take a file away from this user; root reads it all the same, unless it gave up its rights."""
    if os.geteuid() == 0:
        os.chown(path, OTHER, OTHER)
        path.chmod(0o400)
    else:
        path.chmod(0)


def run_plainly(
    command: Sequence[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command that reads what its user may, also where that is root."""
    power = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*power, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
