"""A range whose process is killed at one moment: `python -m tests.pipeline.killed HOME POINT`.

Each partition is a batch of its own. The process ends right before the second batch's tables are
committed (`tables`), or between them and their record (`records`).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from include.config.settings import Settings
from include.lake.batches import Batch
from include.pipeline import ranges, settling
from include.records.results import Results
from tests.pipeline.probe import Probe

KEYS = ["2026-03-01", "2026-03-02", "2026-03-03"]


def main(home: Path, point: str) -> None:
    """Run the range until it is killed."""
    sys.modules["include.validation.validate_data"] = Probe()
    settling.BATCH = 1
    owner, name = {"tables": (Batch, "write"), "records": (Results, "commit_all")}[point]
    real, calls = getattr(owner, name), []

    def until_the_second(*words: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **named)

    setattr(owner, name, until_the_second)
    settings = Settings(home=home, usecases=str(home / "usecases"))
    list(ranges.run_range("validate_data", "shop", KEYS, settings=settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
