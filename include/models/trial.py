"""The process of a trial: it loads a bundle and asks it its golden rows.

A damaged booster text can kill the process that loads it, and must not kill the node
(include/serving/trials.py), which starts this one.

    python -m include.models.trial FOLDER DIGEST
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from include.errors import ArtefactError
from include.models.loading import load_model

ROOT = Path(__file__).resolve().parents[2]  # the settings would double the start of the child


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
