"""Record the first five minutes with a table of one's own: the commands, and what they print.

`python -m docs.first_minutes` makes a small table, runs the commands on it in a folder that is
thrown away, and writes both into docs/how-to/first-minutes.md, between two marks. It takes minutes
and prints other seconds each time, so a person runs it, when the commands say something new.
"""

from __future__ import annotations

import csv
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import split

from include.config.settings import ROOT
from include.files import write_text

PAGE = ROOT / "docs" / "how-to" / "first-minutes.md"
BEGIN, END = "<!-- recorded by docs/first_minutes.py -->", "<!-- end of the record -->"
SEED, DAYS, PARCELS = 7, 120, 40  # PARCELS a day
START = datetime(2025, 1, 1, tzinfo=UTC)
HEAD = 4  # lines of the table that are shown
COLUMNS = ("parcel_id", "handed_over", "weight_kg", "distance_km", "courier", "express", "late")
COMMANDS = (
    "evergreen new --from parcels.csv --label late",
    "cat parcels.yaml",
    "evergreen usecase check parcels.yaml",
    "evergreen usecase check parcels.yaml --data",
    "evergreen try parcels.yaml",
    "evergreen reset parcels --yes",
)


def write_table(path: Path) -> None:
    """Write parcels, each with whether it came late: by distance, courier, express and chance."""
    chance = random.Random(SEED)  # noqa: S311 - no secret hangs on it
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for number in range(DAYS * PARCELS):
            at = START + timedelta(days=number // PARCELS, minutes=chance.randrange(480, 1080))
            weight, distance = chance.lognormvariate(0.5, 0.8), chance.expovariate(1 / 180)
            courier, express = chance.choice(("north", "south", "bike")), chance.random() < 0.2
            # No straight line tells it: bikes fail at heavy parcels, all others beyond a day's way.
            heavy_on_bike = courier == "bike" and weight > 2
            far = courier != "bike" and distance > 200
            odds = 2.4 * (heavy_on_bike or far) - 1.3 - 0.8 * express
            late = chance.random() < 1 / (1 + math.exp(-odds))
            row = (f"{weight:.2f}", f"{distance:.1f}", courier, int(express), int(late))
            out.writerow((1000 + number, f"{at:%Y-%m-%d %H:%M:%S}", *row))


def record(folder: Path) -> Iterator[str]:
    """Yield the text of each command in a folder with the table: what is typed, what is printed.

    The folder's path, which is another each time, is left out.
    """
    environment = {name: value for name, value in os.environ.items() if "EVERGREEN" not in name}
    environment |= {
        "EVERGREEN_HOME": str(folder / "var"),
        "PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}",
    }
    for command in (f"head -{HEAD} parcels.csv", *COMMANDS):
        done = subprocess.run(
            split(command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed = done.stdout.replace(f"{folder}/", "").replace(str(folder), ".")
        printed = printed.replace(str(ROOT), "EVERGREEN")
        lines = [line.rstrip() for line in printed.rstrip().splitlines()]
        ended = [] if done.returncode == 0 else [f"(exit code {done.returncode})"]
        yield "\n".join([f"$ {command}", *lines, *ended])


def main() -> None:
    """Write the record into the page; what stands around it stays."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    with tempfile.TemporaryDirectory(prefix="first-minutes-") as name:
        folder = Path(name).resolve()
        write_table(folder / "parcels.csv")
        text = "\n\n".join(record(folder))
    write_text(PAGE, f"{before}{BEGIN}\n\n```\n{text}\n```\n\n{END}{after}")


if __name__ == "__main__":
    main()
