"""The commands about rows that failed validation."""

from __future__ import annotations

from pathlib import Path

from tests.builders.command_line import (
    YAML,
    Run,
    write_day,
)


def test_quarantined_rows_are_shown_then_redriven_after_a_yes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "visits.yaml").write_text(YAML)
    for day in range(2):
        write_day(tmp_path, day, bad=2 if day == 0 else 0)
    first = ("-u", "visits", "-p", "2025-03-01")
    assert [run("run", stage, *first).code for stage in ("ingest_data", "validate_data")] == [0, 0]
    wanted = [
        "quarantine",
        "redrive",
        "visits",
        "-p",
        "2025-03-01",
        "--rule",
        "amount: above_max",
        "--set",
        "amount=50",
    ]
    assert run(*wanted).code == 2  # without a reason
    asked = run(*wanted, "--reason", "a typing error")
    assert (asked.code, "add --yes" in asked.err) == (2, True)
    assert "2 row(s), 2 of them corrected, pass the contract now" in asked.out
    assert "quarantine.redriven" not in run("audit", "list").out
    done = run(*wanted, "--reason", "a typing error", "--yes")
    assert (done.code, "the next ingestion of 2025-03-02 takes them in" in done.out) == (0, True), (
        done
    )
    assert "2025-03-02" in run("audit", "list", "--action", "quarantine.redriven").out
    assert run("quarantine", "list", "visits").out.count("2025-03-02") == 2
    assert run("run", "ingest_data", "-u", "visits", "-p", "2025-03-02").code == 0
    assert (
        "0 row(s) written"
        in run("quarantine", "list", "visits", "--csv", tmp_path / "rest.csv").out
    )
    again = run(*wanted, "--reason", "a typing error", "--yes")
    assert (again.code, "redriven already" in again.err) == (2, True)
