"""The command that tries the verdict: how its level is divided, what simulated releases come to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from include.cli.context import current_settings
from include.clock import utc_now
from tests.builders.command_line import YAML, Run, list_rows
from tests.builders.logged import write_segment


def test_it_prints_how_the_level_is_divided_and_what_releases_come_to(run: Run) -> None:
    done = run("release", "simulate", "--releases", "2", "--worse", "1")
    assert done.code == 0, done
    assert "false_rollback 0.05, divided" in done.out
    assert "0 of 2" in done.out
    assert done.out.count("scores by .25 sd") == 3, "a row a step"


def test_as_json_there_is_a_row_a_challenger_and_step(run: Run) -> None:
    (row,) = list_rows(run, "release", "simulate", "--releases", "2", "--worse", "0")
    assert (row["challenger"], row["releases"]) == ("as good as the champion", 2)
    assert row["bound"] > 0.5, "two releases are no evidence"


def test_a_use_case_without_steps_has_nothing_to_simulate(run: Run, tmp_path: Path) -> None:
    (tmp_path / "visits.yaml").write_text(YAML + "release: {steps: []}\n")
    done = run("release", "simulate", "--use-case", "visits")
    assert done.code == 2
    assert "the plan has no steps" in done.err


def test_from_a_log_it_needs_the_use_case_and_what_is_imported(run: Run, tmp_path: Path) -> None:
    done = run("release", "simulate", "--from-log")
    assert done.code == 2
    assert "say --use-case NAME" in done.err
    (tmp_path / "visits.yaml").write_text(YAML)
    done = run("release", "simulate", "--from-log", "--use-case", "visits")
    assert done.code == 3
    assert "holds 0 requests of 0 entities" in done.err
    assert "evergreen import-predictions visits" in done.err


def test_from_a_log_releases_are_drawn_by_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "visits.yaml").write_text(
        YAML + "release: {steps: [{share: 50, requests: 300, entities: 20}]}\n"
    )
    now, settings = utc_now(), current_settings()
    for hour in range(1, 5):
        write_segment(
            settings.home,
            *[number % 60 for number in range(300)],
            use_case="visits",
            at=now - timedelta(hours=hour),
        )
    assert run("import-predictions", "visits").code == 0
    (row,) = list_rows(
        run, "release", "simulate", "--from-log", "--use-case", "visits",
        "--releases", "2", "--worse", "0",
    )  # fmt: skip
    assert (row["releases"], row["rolled_back"], row["after"]) == (2, 0, None)
