"""The command line: exit codes, one clear line instead of a traceback, nothing heavy for help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.records.records import Records
from tests.builders.command_line import (
    YAML,
    Run,
)


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
        ("release lift visits 3 --reason mended", 2, "on hold is nothing"),
        ("rollback visits --reason bad", 2, "Nobody is here to answer; add --yes"),
        ("rollback visits --yes", 2, "a rollback needs its reason"),
        ("rollback visits --yes --reason bad", 2, "add --version N"),
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


def test_a_broken_pipe_and_an_unexpected_error_end_without_traceback(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    (tmp_path / "var").write_text("a file stands where the home should be")
    done = run("audit", "verify")
    assert done.code != 0
    assert "Traceback" not in done.err
    assert done.err.startswith("evergreen: ")


def test_what_nobody_has_foreseen_is_told_without_a_signature(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no https://a.blob/c/x?sv=1&sig=abc%3D")

    monkeypatch.setattr(Records, "open", refuse)
    for options in ([], ["-v"]):
        done = run(*options, "audit", "verify")
        assert "unexpected RuntimeError: no https://a.blob/c/x; " in done.err, done
        assert "sig=" not in done.err


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
