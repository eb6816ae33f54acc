"""`evergreen gc`: shows what nothing needs, and removes it."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from include.clock import utc_now
from include.config.settings import Settings
from include.lake.tables import Lake
from include.predictions.import_segments import import_closed
from include.records.records import Records
from tests.builders.command_line import Run
from tests.builders.logged import write_segment


def test_it_shows_first_and_removes_then(run: Run, visits: Path, tmp_path: Path) -> None:
    home, now = tmp_path / "var", utc_now()
    nothing = run("gc", "--dry-run")
    assert (nothing.code, nothing.out.splitlines()[-1]) == (0, "there is nothing to remove")
    settings = Settings(home=home)
    records, lake = Records.open(settings.records_address), Lake(settings.lake_root)
    write_segment(home, 1, 2, use_case="visits", at=now - timedelta(days=500))
    import_closed(settings, lake, records, "visits", at=now, actor="t")
    # A partition that was replaced, and files that lie there unchanged for three days.
    lake.replace("visits/labels", "2026-03-01", pa.table({"x": [1]}))
    lost = home / "lake" / "visits" / "labels" / "partition=2026-03-01" / "part-lost.parquet"
    lost.write_bytes(b"of a writer that was killed")
    old = time.time() - 3 * 86400
    os.utime(lost, (old, old))
    shown = run("gc", "visits", "--dry-run")
    assert "1 files of visits/labels" in shown.out
    assert "visits: pieces that would be removed: 2" in shown.out
    assert lost.exists()
    rows = json.loads(run("gc", "--dry-run", "--json").out)
    assert [(row["kind"], row["bytes"], row["removed"]) for row in rows] == [
        ("lake", 27, False),
        ("predictions", 0, False),
    ]
    rows = json.loads(run("gc", "--json").out)
    assert [(row["use_case"], row["removed"]) for row in rows] == [("visits", True)] * 2
    assert not lost.exists()
    assert json.loads(run("gc", "--json").out) == []
    (tmp_path / "broken.yaml").write_text("name: broken\n")
    broken = run("gc", "--json")
    assert (broken.code, json.loads(broken.out)) == (2, [])
    assert "left alone" in broken.err
    assert "broken.yaml" in broken.err
    wrong = run("gc", "visit")
    assert (wrong.code, "visits" in wrong.err) == (2, True)
