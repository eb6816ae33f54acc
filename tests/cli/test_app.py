"""The command line: exit codes, one clear line instead of a traceback, no secret, and a use
case's whole way by commands.
"""

from __future__ import annotations

import csv
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from include.cli.app import main
from include.config.settings import ROOT, settings

DAYS, ROWS = 8, 40
START = datetime(2025, 3, 1, tzinfo=UTC)
YAML = """\
name: visits
history: {first: 2025-03-01, last: 2025-03-08}
entity: {name: customer, key: customer_id}
sources:
  rows:
    path: rows/{partition}.csv
    event_time: at
    arrival: event + 0s
    key: [visit_id]
    max_bad: 0.2
    columns:
      visit_id: {type: int64, nullable: false}
      customer_id: {type: int64, nullable: false}
      at: {type: timestamp, nullable: false}
      amount: {type: float64, max: 1000}
      channel: {type: string}
      closed: {type: timestamp}
      label: {type: int64}
label: {source: rows, column: label, label_time: closed, delay: 1d}
features:
  visit:
    grain: event
    source: rows
    lookback: 3d
    ttl: 30d
    columns: {amount: float64, channel: string}
gates: {min_rows: 5, min_auc: 0.55, max_calibration_error: 0.5, over_baseline: -0.2}
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run `evergreen` in this process, with a home of its own and `tmp_path` as its folder of
    use cases.
    """
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("EVERGREEN_USECASES", str(tmp_path))
    settings.cache_clear()

    def call(*arguments: object) -> Done:
        settings.cache_clear()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        shown = capfd.readouterr()
        return Done(code if isinstance(code, int) else 0, shown.out, shown.err)

    yield call
    settings.cache_clear()


def write_day(folder: Path, day: int, *, factor: float = 1.0, bad: int = 0) -> Path:
    """Write a day's visits: spending says much about the outcome, which is known 12 hours later."""
    rng = random.Random(day)
    path = folder / "rows" / f"{(START + timedelta(days=day)).date()}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["visit_id", "customer_id", "at", "amount", "channel", "closed", "label"])
        for number in range(ROWS):
            at = START + timedelta(days=day, minutes=number)
            amount = rng.gauss(50, 10)
            label = int(amount + rng.gauss(0, 5) > 50)
            shown = 9e9 if number < bad else f"{amount * factor:.2f}"
            visit = day * ROWS + number
            out.writerow(
                [
                    visit,
                    visit % 30,
                    at.isoformat(),
                    shown,
                    rng.choice("ab"),
                    (at + timedelta(hours=12)).isoformat(),
                    label,
                ]
            )
    return path


def test_help_is_light_and_imports_nothing_heavy() -> None:
    script = """
import sys, include.cli.app
heavy = "airflow pandas numpy duckdb deltalake sqlalchemy mlflow feast evidently lightgbm".split()
heavy.append("pydantic_settings")
sys.exit(", ".join(name for name in heavy if name in sys.modules) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_lists_every_command(run: Run) -> None:
    shown = run("--help").out
    for name in [
        "run",
        "simulate",
        "new",
        "usecase",
        "status",
        "models",
        "heal",
        "backfill",
        "load-history",
        "reset",
        "score",
        "quarantine",
        "audit",
        "rollback",
        "release",
        "password",
        "serve",
        "up",
        "stop",
        "version",
    ]:
        assert f"  {name} " in shown
    assert run("version").code == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            "run ingest_data -u nobody -p 2025-03-01",
            2,
            "no use case 'nobody'; there are ['visits']",
        ),
        ("run ingest_data -u ../visits -p 2025-03-01", 2, "is no use case name"),
        ("run ingest_data -u visits -p 2025-3-1", 2, "write the period's first day as YYYY-MM-DD"),
        ("run ingest_data -u visits -p 2025-04-01", 2, "outside its history"),
        ("run ingest_data -u visits", 2, "give either --partition KEY, or --from KEY and --to KEY"),
        (
            "run ingest_data -u visits -p 2025-03-01 --from 2025-03-01",
            2,
            "give either --partition KEY",
        ),
        ("run ingest_data -u visits --from 2025-03-02 --to 2025-03-01", 2, "is after --to"),
        (
            "run ingest_data -u visits -p 2025-03-01 --live",
            2,
            "only the newest complete partition of visits, 2025-03-08, can be live",
        ),
        ("run ingest_data -u visits -p 2025-03-01 --mode now", 2, "give backfill or live"),
        ("run ingest_data -u visits -p 2025-03-01 --nonsense", 2, "No such option"),
        ("run packaging -u visits -p 2025-03-01", 2, "'packaging' is no stage"),
        (
            "run train_model -u visits -p 2025-03-01",
            5,
            "is not done for 1 partition(s): 2025-03-01. Fill them with `evergreen load-history",
        ),
        (
            "run ingest_data -u visits -p 2025-03-01",
            3,
            "1 of 1 did not pass: ingest_data 2025-03-01",
        ),
        ("score visits -p 2025-03-01", 2, "visits has no champion yet"),
        ("score visits -p 2025-03-01 --version 7", 2, "visits has no model version 7"),
        ("release visits 3", 2, "on hold is nothing"),
        ("rollback visits", 2, "Nobody is here to answer; add --yes"),
        ("rollback visits --yes", 7, "there is no earlier champion"),
        ("heal visits", 9, "make run"),
        ("backfill visits --from 2025-03-01 --to 2025-03-09", 2, "outside its history"),
        ("password", 2, "make run"),
        ("quarantine list visits -p 2025-01-01", 2, "outside its history"),
        ("quarantine redrive visits --reason x", 2, "say which rows: --partition KEY"),
        (
            "quarantine redrive visits -p 2025-03-01 --reason x --set amount",
            2,
            "write COLUMN=VALUE",
        ),
        ("quarantine redrive visits -p 2025-03-01 --reason x", 2, "none is in quarantine there"),
        (
            "quarantine redrive visits --from nowhere.csv --reason x",
            2,
            "nowhere.csv: cannot be read",
        ),
        (
            "run ingest_data -u visits -p 2025-03-01 --source rows",
            2,
            "give --restate REASON with it",
        ),
        (
            "run ingest_data -u visits -p 2025-03-01 --restate why --source cows",
            2,
            "no source 'cows'; its sources are rows",
        ),
        ("usecase check nowhere.yaml", 2, "cannot be read"),
        ("new --from nowhere.csv", 3, "there is no such file"),
        ("audit verify --anchor x", 2, "give ROW:HASH"),
    ],
)
def test_a_refusal_is_one_clear_line_with_its_exit_code(
    run: Run, tmp_path: Path, words: str, code: int, says: str
) -> None:
    (tmp_path / "visits.yaml").write_text(YAML)
    done = run(*words.split())
    assert (done.code, says in done.err) == (code, True), done
    assert "Traceback" not in done.err


def test_a_wrong_setting_names_its_variable_and_hides_its_value(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_NODE_PORT", "hunter2")
    done = run("audit", "verify")
    assert done.code == 2
    assert "EVERGREEN_NODE_PORT: Input should be a valid integer" in done.err
    assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize(
    "url",
    [
        "hunter2pw://evergreen:hunter2pw@db/x",
        "postgresql://evergreen:hunter2pw@[half/x",
        "hunter2pw",
    ],
)
def test_no_secret_is_printed_whatever_goes_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("EVERGREEN_RECORDS_URL", url)
    monkeypatch.setenv("EVERGREEN_NODE_TOKEN", "hunter2token")
    for options in ([], ["-v"]):
        done = run(*options, "audit", "verify")
        assert done.code != 0
        assert "hunter2pw@" not in done.out + done.err
        assert "hunter2token" not in done.out + done.err


def test_a_broken_pipe_and_an_unexpected_error_end_without_traceback(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    (tmp_path / "var").write_text("a file stands where the home should be")
    done = run("audit", "verify")
    assert done.code != 0
    assert "Traceback" not in done.err
    assert done.err.startswith("evergreen: ")


def test_schema_is_json_schema(run: Run) -> None:
    schema = json.loads(run("usecase", "schema").out)
    assert schema["properties"]["sources"]
    assert schema["additionalProperties"] is False


def test_new_writes_once_and_its_draft_passes(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "shoppers.csv"
    lines = [f"{n},{n % 9},2025-01-{1 + n % 20:02},{n * 7 % 50},{n % 2}" for n in range(200)]
    table.write_text("\n".join(["visit_id,customer_id,date,amount,label", *lines]) + "\n")
    assert run("new", "--from", table).code == 0
    assert run("usecase", "check", tmp_path / "shoppers.yaml").code == 0
    again = run("new", "--from", table)
    assert again.code == 2
    assert "is there already" in again.err
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
    assert not (tmp_path / "var").exists()
    assert done.code == 2
    assert (
        "label.delay is 6h, but an outcome was known only 0.5 days after its decision" in done.err
    )
    assert "Write delay: 1d" in done.err


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
    assert "nothing is there" in run("reset", "visits", "--yes").out


def test_no_library_reports_its_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from include.config.no_telemetry import QUIET

    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    code = (
        "import os; from include.cli.app import main\ntry: main(['version'])\nexcept "
        "SystemExit: pass\nprint(dict(os.environ))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(f"'{name}': '{value}'" in done.stdout for name, value in QUIET.items())
