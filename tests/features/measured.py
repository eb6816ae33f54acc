"""Compute features of a day, say what it took: `python -m tests.features.measured HOME KEY MEMORY`.

Printed are the state, the digest, the most memory that the process gained, and the most bytes that
were spilled.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from pathlib import Path

from include.config.settings import Settings
from include.features import materialize_features, view_rows  # noqa: F401  # not counted
from include.pipeline import runner


def main(home: Path, key: str, memory: str) -> None:
    """Run the stage in this process."""
    settings = Settings(home=home, usecases=str(home / "usecases"), memory=memory)
    before, spilled, ended = _peak(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            files = [path for path in (home / "spill").rglob("*") if path.is_file()]
            spilled.append(sum(_size(path) for path in files))

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = runner.run("materialize_features", "shop", key, settings=settings)
    gained = _peak() - before
    ended.set()
    watcher.join()
    told = {"state": report.state, "digest": report.digest, "gained": gained}
    print(json.dumps(told | {"spilled": max(spilled)}))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # removed since it was listed
        return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
