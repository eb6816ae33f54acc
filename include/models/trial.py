"""The process of a trial: it loads a bundle and asks it its golden rows.

A damaged booster text can kill the process that loads it, and must not kill the node
(include/serving/trials.py), which starts this one and bounds what it may take.

    python -m include.models.trial FOLDER DIGEST PINS
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from include.errors import ArtefactError
from include.models.loading import load_model
from include.models.pins import ROOT, fits_here

__all__ = ["OTHER_CODE", "ROOT", "main"]

OTHER_CODE = 75  # exit code: what is on the disk is not what the node runs (EX_TEMPFAIL)


def main(arguments: Sequence[str]) -> int:
    """Load a bundle and ask its golden rows; the exit code says whether they were answered."""
    folder, digest, pins = arguments
    if not fits_here(pins):
        sys.stderr.write("code or libraries on the disk are not those that the node has loaded\n")
        return OTHER_CODE
    try:
        count = load_model(folder, digest).check_golden()
    except ArtefactError as error:
        sys.stderr.write(f"{error}\n")
        return ArtefactError.exit_code
    except MemoryError:
        sys.stderr.write(f"{folder} needs more memory than a trial may take\n")
        return ArtefactError.exit_code
    sys.stdout.write(f"golden {count}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
