"""The commands about everything on this machine, as far as nothing has to be started for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config.settings import settings
from include.config.tokens import tokens_file
from include.orchestration.airflow_login import ensure_password
from tests.builders.command_line import YAML, Run


def test_the_password_is_the_one_that_was_made(run: Run) -> None:
    assert run("password").code == 2
    made = ensure_password(settings())
    assert run("password").out == f"admin {made}\n"
    of_mlflow = settings().home / "secrets" / "mlflow_admin"
    shown = run("password", "--mlflow").out
    assert shown == f"admin {of_mlflow.read_text()}\n"
    assert made not in shown


def test_with_fab_the_passwords_are_those_of_the_three_users(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_AIRFLOW_AUTH", "fab")
    before = run("password")
    assert (before.code, "airflow-init" in before.err) == (2, True)
    wanted = [
        f"{user} {settings().secret(f'airflow_{user}').get_secret_value()}"
        for user in ("admin", "op", "viewer")
    ]
    assert run("password").out.splitlines() == wanted


def test_stop_says_that_nothing_runs(run: Run) -> None:
    done = run("stop")
    assert (done.code, "nothing" in done.out) == (0, True), done


def test_reset_asks_and_leaves_the_audit_log(run: Run, tmp_path: Path) -> None:
    (tmp_path / "visits.yaml").write_text(YAML)
    reports = tmp_path / "var" / "reports" / "visits"
    reports.mkdir(parents=True)
    (reports / "page.html").write_text("x" * 200_000)
    asked = run("reset", "visits")
    assert (asked.code, "It cannot be undone" in asked.err) == (2, True)
    assert "0.2 MB" in asked.out
    assert reports.exists()
    assert run("reset", "visits", "--yes").code == 0
    assert not reports.exists()
    assert "use_case.reset" in run("audit", "list").out
    assert "there is nothing to delete" in run("reset", "visits", "--yes").out


def test_up_refuses_an_unknown_use_case_before_it_starts_anything(run: Run) -> None:
    done = run("up", "--use-case", "nobody")
    assert (done.code, "no use case 'nobody'" in done.err) == (2, True)


def test_a_token_is_made_and_its_secret_is_shown_once(run: Run) -> None:
    shown = run("token", "alice", "--role", "read", "--role", "operate")
    secret = shown.out.strip()
    assert (shown.code, len(secret)) == (0, 43)
    assert tokens_file(settings()).read_text() == f"alice read,operate {secret}\n"
    refused = run("token", "alice", "--role", "root")
    assert (refused.code, "unknown role 'root'" in refused.err) == (2, True)
    assert run("token", "alice").code == 2
