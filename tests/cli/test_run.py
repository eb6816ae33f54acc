"""The commands that run stages: a use case's whole way, and the file of scores."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest

from tests.builders.command_line import (
    DAYS,
    YAML,
    Run,
    write_day,
)


@pytest.mark.slow
def test_a_use_case_goes_its_way_by_commands(run: Run, tmp_path: Path) -> None:
    """History, a judged day, a restatement refused and accepted, stale days, quarantine, scores,
    audit, reset.
    """
    (tmp_path / "visits.yaml").write_text(YAML)
    for day in range(DAYS):
        write_day(tmp_path, day, bad=3 if day == 2 else 0)
    loaded = run("load-history", "visits")
    assert loaded.code == 0, loaded
    assert "7 done" in loaded.out
    assert "7 done" in run("status", "visits").out
    listed = run("quarantine", "list", "visits")
    assert "3 row(s) in quarantine" in listed.out
    assert "2025-03-03" in listed.out

    judged = run("run", "all", "-u", "visits", "-p", "2025-03-08")
    assert judged.code == 0, judged
    assert "evaluate_model" in judged.out
    assert "check_drift" in judged.out
    assert "(reused)" in run("run", "train_model", "-u", "visits", "-p", "2025-03-08").out

    scored = run("score", "visits", "-p", "2025-03-08", "--version", "1")
    assert scored.code == 0, scored
    with (tmp_path / "var" / "reports" / "visits" / "2025-03-08" / "scores-version-1.csv").open(
        newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert all(0 < float(row["score"]) < 1 for row in rows)
    again = run("score", "visits", "-p", "2025-03-08")
    assert again.code == 0, again
    assert "30 entities scored by version 1" in again.out, "by the model that it was scored by"

    write_day(tmp_path, 4, factor=2)
    refused = run("run", "ingest_data", "-u", "visits", "-p", "2025-03-05")
    assert refused.code == 4, refused
    assert "--restate REASON" in refused.err
    accepted = run(
        "run", "ingest_data", "-u", "visits", "-p", "2025-03-05", "--restate", "wrong currency"
    )
    assert accepted.code == 0, accepted
    assert "wrong currency" in run("audit", "list").out
    # The day, the two that look back on it, and the one that trained on it.
    assert "4 stale" in run("status", "visits").out
    assert run("run", "all", "-u", "visits", "-p", "2025-03-05").code in (0, 1)
    assert "2025-03-08  stale" in run("status", "visits").out

    verified = run("audit", "verify")
    assert verified.code == 0, verified
    head = verified.out.split()[-1]
    assert run("audit", "verify", "--anchor", head).code == 0
    # as somebody would who has the file.
    with sqlite3.connect(tmp_path / "var" / "records.db") as database:
        for (trigger,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3")
    broken = run("audit", "verify")
    assert broken.code == 1
    assert "row 3 was changed" in broken.err

    asked = run("reset", "visits")
    assert asked.code == 2
    assert "Nobody is here to answer" in asked.err
    assert (tmp_path / "var" / "lake" / "visits").exists()
    assert run("reset", "visits", "--yes").code == 0
    assert not (tmp_path / "var" / "lake" / "visits").exists()
    assert "use_case.reset" in run("audit", "list").out
    assert "no partition yet" in run("status", "visits").out
    assert "there is nothing to delete" in run("reset", "visits", "--yes").out
