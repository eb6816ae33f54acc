"""The commands about use case files: new, usecase check, usecase schema, simulate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders.command_line import (
    DAYS,
    YAML,
    Run,
    open_records,
    write_day,
)


def test_schema_is_json_schema(run: Run) -> None:
    schema = json.loads(run("usecase", "schema").out)
    assert schema["properties"]["sources"]
    assert schema["additionalProperties"] is False


def test_the_draft_of_new_passes(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "shoppers.csv"
    lines = [f"{n},{n % 9},2025-01-{1 + n % 20:02},{n * 7 % 50},{n % 2}" for n in range(200)]
    table.write_text("\n".join(["visit_id,customer_id,date,amount,label", *lines]) + "\n")
    assert run("new", "--from", table).code == 0
    assert run("usecase", "check", tmp_path / "shoppers.yaml").code == 0
    written = (tmp_path / "shoppers.yaml").read_text()
    assert run("new", "--from", table).code == 0
    assert (tmp_path / "shoppers.yaml").read_text() == written
    assert run("new", "--from", table, "--output", "-").out.startswith("# Drafted by")
    assert (
        "call it shoppers.yaml"
        in run("new", "--from", table, "--output", tmp_path / "other.yaml").err
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("column: label,", "column: outcome,", 19, "label.column: 'outcome' is no column of rows"),
        (
            "column: label,",
            "column: channel,",
            21,
            "features.visit: 'channel' is the label; it would leak the outcome",
        ),
        ("label_time: closed", "label_time: settled", 19, "'settled' is no column of rows"),
        (
            "{amount: float64, channel: string}",
            "{amount: float64, size: string}",
            26,
            "is no column of rows",
        ),
        (
            "{amount: float64, channel: string}",
            "{amount: string, channel: string}",
            26,
            "is float64 in rows, not string",
        ),
        ("    max_bad: 0.2", "    timezone: Mars/Olympus", 10, "is no time zone"),
        ("max: 1000", "min: 5, max: 1", 15, "min (5) is above max (1)"),
        (
            "channel: {type: string}",
            "channel: {type: string, regex: '('}",
            16,
            "is no regular expression",
        ),
        (
            "    source: rows\n    lookback",
            "    sql: SELECT nothing FROM rows\n    lookback",
            23,
            "nothing",
        ),
        (
            "    source: rows\n    lookback",
            "    sql: missing.sql\n    lookback",
            23,
            "there is no missing.sql",
        ),
        (
            "    source: rows\n    lookback",
            "    sql: SELECT amount, channel FROM rows\n    lookback",
            23,
            "gives no column ['customer_id'",
        ),
        (
            "    source: rows\n    lookback",
            "    sql: drop table rows\n    lookback",
            23,
            "must be one SELECT",
        ),
    ],
)
def test_check_says_what_resolves_to_nothing(
    run: Run, tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert old in YAML
    path = tmp_path / "visits.yaml"
    path.write_text(YAML.replace(old, new, 1))
    done = run("usecase", "check", path)
    assert done.code == 2
    assert f"{path}, line {line}: " in done.err, done.err
    assert says in done.err, done.err


def test_a_use_case_is_checked_by_its_name_or_by_its_path(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "visits.yaml"
    path.write_text(YAML)
    named, by_path = run("usecase", "check", "visits"), run("usecase", "check", path)
    assert (named.code, named.out) == (0, by_path.out)
    assert named.out.startswith(f"{path}: visits is well formed")


def test_a_use_case_whose_file_is_wrong_is_no_mistake_of_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "visits.yaml").write_text("name: visits\n")
    done = run("status", "visits")
    assert (done.code, "Did you mean" in done.err, "is missing; add it" in done.err) == (
        2,
        False,
        True,
    )


@pytest.mark.slow
def test_data_is_tried_in_a_throw_away_home_and_a_short_delay_is_refused(
    run: Run, tmp_path: Path
) -> None:
    for day in range(DAYS):
        write_day(tmp_path, day)
    path = tmp_path / "visits.yaml"
    path.write_text(YAML.replace("delay: 1d", "delay: 6h"))
    done = run("usecase", "check", "--data", path)
    for shown in (
        "training frame of 2025-03-08",
        "label rate",
        "null share",
        "mature rows",
        "customer_id",
        "row 5",
    ):
        assert shown in done.out
    # Of the home nothing is touched but the page.
    assert [path.name for path in (tmp_path / "var").iterdir()] == ["reports"]
    assert done.code == 2
    assert (
        "label.delay is 6h, but an outcome was known only 0.5 days after its decision" in done.err
    )
    assert "Write `label: {delay: 1d}`" in done.err
    page = tmp_path / "var" / "reports" / "visits" / "profile.html"
    assert f"look at {page}" in done.out.replace("\n", "")
    assert "label.delay is 6h" in page.read_text(encoding="utf-8")
    before = page.read_bytes()
    again = run("usecase", "check", "--data", "--json", path)
    assert again.code == 2
    rows = json.loads(again.out)
    assert {row["kind"] for row in rows} >= {"problem", "fact", "missing", "auc", "page"}
    assert all(list(row) == ["kind", "name", "value", "rows"] for row in rows)
    assert rows[-1]["value"] == str(page)
    assert page.read_bytes() == before, "equal data, equal page"
    assert json.loads(run("usecase", "check", "--json", path).out) == []


def test_simulate_writes_the_same_bytes_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bank.yaml").write_text(
        YAML.replace("name: visits", "name: bank").replace(
            "path: rows/{partition}.csv", "simulator: {stream: instalments, customers: 50}"
        )
    )
    for folder in ("a", "b"):
        assert (
            run(
                "simulate",
                "-u",
                "bank",
                "--from",
                "2025-03-01",
                "--to",
                "2025-03-02",
                "-o",
                tmp_path / folder,
            ).code
            == 0
        )
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.csv"))
    assert len(files) == 5
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in files
    )


def test_apply_tells_the_nodes_of_a_changed_use_case(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "visits.yaml"
    file.write_text(YAML)
    done = run("usecase", "apply", str(file), "--reason", "a first time")
    assert (done.code, done.out) == (0, "visits: its description is on record, generation 1\n")
    again = run("usecase", "apply", "visits")
    assert again.out == "visits: its description is what the nodes have already, generation 1\n"
    (entry,) = open_records().audit.entries("visits", action="use_case.applied")
    assert entry.details["reason"] == "a first time"
    file.write_text(YAML + "more: 1\n")
    assert run("usecase", "apply", "visits").code == 2
    assert open_records().routes.get("visits").generation == 1
