"""The command `try`: a file's whole way to a verdict, what it says, and that reset undoes it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config.settings import settings
from include.models import mlflow_registry
from tests.builders.command_line import DAYS, YAML, Run, open_records, write_day


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write `visits` into a folder that EVERGREEN_USECASES does not name."""
    folder = tmp_path / "else where"
    folder.mkdir()
    for day in range(DAYS):
        write_day(folder, day)
    path = folder / "visits.yaml"
    path.write_text(YAML)
    return path


def test_a_file_becomes_a_judged_model_and_reset_undoes_it(
    run: Run, file: Path, tmp_path: Path
) -> None:
    passed = run("try", file)
    assert passed.code == 0, passed
    assert passed.out.startswith("visits: trial of partition 2025-03-08; nothing is released\n")
    for shown in (
        "ingest_data           8",
        "AUC                            0.9",
        "(95 %: 0.",
        "AUC of the baseline",
        "evaluation rows",
        "age of the model when serving",
        "share of the gain",
        "verdict: pass",
        "to undo: evergreen reset visits",
    ):
        assert shown in passed.out, passed.out
    assert passed.err == ""  # nobody watches: no progress
    report = Path(passed.out.partition("report: ")[2].splitlines()[0])
    assert report.is_file()

    again = run("try", file, "--json")
    told = json.loads(again.out)
    assert again.code == 0
    assert told["reused"] is True
    assert (told["verdict"], told["partition"], told["report"]) == (
        "pass",
        "2025-03-08",
        str(report),
    )
    assert told["auc_low"] < told["auc"] < told["auc_high"] <= 1
    assert told["features"][0]["name"] == "amount"
    assert {stage["stage"]: stage["reused"] for stage in told["stages"]}["validate_data"] == 8

    file.write_text(YAML.replace("min_auc: 0.55", "min_auc: 0.99"))
    failed = run("try", file)
    assert failed.code == 10, failed
    assert "verdict: fail" in failed.out
    assert "`gates: {min_auc: 0.9" in failed.out
    assert f"Put a line into {file}" in failed.out

    # Nothing of it is live: no champion, no mode but backfill, no online row, no package.
    records = open_records()
    assert records.routes.get("visits").champion is None
    assert {row.mode for row in records.partitions.of("visits")} == {"backfill"}
    assert {model.state for model in records.models.of("visits")} == {"candidate"}
    home = settings().home
    assert not (home / "online").exists()
    assert not (home / "bento").exists()
    assert mlflow_registry.count_entries(settings(), "visits") == {"model versions": 1, "runs": 1}

    assert run("reset", "visits").code == 2  # it asks, and nobody is here
    undone = run("reset", "visits", "--yes")
    assert undone.code == 0, undone
    assert "MLflow: model versions" in undone.out
    assert list(home.rglob("*visits*")) == []
    assert mlflow_registry.count_entries(settings(), "visits") == {"model versions": 0, "runs": 0}
    assert open_records().audit.entries("visits", action="use_case.reset", limit=5)

    file.write_text(YAML.replace("min_rows: 5,", "min_rows: 90,"))
    held = run("try", file)  # also: it begins anew, in MLflow as well
    assert held.code == 11, held
    assert "verdict: hold" in held.out
    assert "too few mature rows" in held.out
    assert "`gates: {min_rows: " in held.out


def test_the_name_of_another_file_is_not_taken_over(run: Run, file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path / "visits.yaml")
    done = run("try", file)
    assert done.code == 2
    assert f"{tmp_path / 'visits.yaml'} has the name visits already" in done.err


def test_what_is_live_is_not_computed_anew(run: Run, file: Path) -> None:
    open_records().partitions.raise_to(
        "visits", "2025-03-07", mode="live", target="data", actor="t", at=datetime.now(UTC)
    )
    done = run("try", file)
    assert done.code == 2
    assert "visits is live in this installation" in done.err
    assert "Copy the file under another name" in done.err
    assert open_records().results.of("visits") == []


def test_a_refused_partition_tells_its_remedy_and_where_to_go_on(run: Run, file: Path) -> None:
    write_day(file.parent, DAYS - 1, bad=30)
    done = run("try", file)
    assert done.code == 3, done
    assert "`sources: {rows: {max_bad: 0.75}}`" in done.err
    assert "--partition 2025-03-07" in done.err


def test_a_wrong_file_or_partition_is_refused_before_anything_runs(run: Run, file: Path) -> None:
    assert "No such file" in run("try", file.with_name("other.yaml")).err
    late = run("try", file, "--partition", "2025-03-09")
    assert late.code == 2
    assert "outside its history" in late.err
    file.write_text(YAML.replace("column: label,", "column: nothing,"))
    assert "is no column of rows" in run("try", file).err
    assert not (settings().home / "lake").exists()
