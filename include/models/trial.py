"""Trials: a bundle is loaded and asked its golden rows in a process of its own first.

A damaged booster text can kill the process that loads it, and must not kill the node.

    python -m include.models.trial FOLDER DIGEST
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from include.errors import ArtefactError
from include.models.bundle import verify_bundle
from include.models.loading import load_model
from include.processes import bare_environment, python_module, run

ROOT = Path(__file__).resolve().parents[2]  # the settings would double the start of the child


def trial_load(folder: str | Path, digest: str, *, timeout: float = 60.0) -> None:
    """Verify a bundle, then load it and ask its golden rows in a fresh process.

    Raises:
        ArtefactError: it is not the recorded one, or the child refused it, died of it or was not
            done after `timeout` seconds.
    """
    verify_bundle(folder, digest)
    try:
        child = run(
            python_module("include.models.trial", str(Path(folder).resolve()), digest),
            environment=bare_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
            folder=ROOT,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ArtefactError(
            f"{folder}: the model did not answer its golden rows in {timeout:g} s; it is not served"
        ) from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ArtefactError(
            f"{folder}: loading the model killed the trial process ({name}); the file is damaged. "
            "Train it again"
        )
    if child.returncode != 0 or not child.stdout.startswith(b"golden "):
        # LightGBM prints what it found in a damaged file, whatever bytes those are.
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise ArtefactError(f"{folder}: the trial load failed: {reason}")


def main(arguments: Sequence[str]) -> int:
    """Load a bundle and ask its golden rows; the exit code says whether they were answered."""
    folder, digest = arguments
    try:
        count = load_model(folder, digest).check_golden()
    except ArtefactError as error:
        sys.stderr.write(f"{error}\n")
        return ArtefactError.exit_code
    sys.stdout.write(f"golden {count}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
