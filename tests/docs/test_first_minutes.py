"""The recorded first minutes: an honest table, and a page that names what is really there."""

from __future__ import annotations

import csv
from pathlib import Path

from docs import first_minutes


def test_the_table_is_the_same_each_time_and_has_both_outcomes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        first_minutes.write_table(tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    share = sum(row["late"] == "1" for row in rows) / len(rows)
    assert 0.2 < share < 0.8
    assert rows[-1]["handed_over"].startswith("2025-04-30")


def test_the_page_shows_every_command_and_keeps_what_stands_around_the_record() -> None:
    page = first_minutes.PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(first_minutes.BEGIN)
    assert before.startswith("# The first five minutes")
    record, _, _ = rest.partition(first_minutes.END)
    for command in first_minutes.COMMANDS:
        assert f"$ {command}\n" in record
    assert "verdict: pass" in record
    assert "/tmp/" not in record
