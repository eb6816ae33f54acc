"""What all DAGs share: which use cases there are, their forms and schedules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.settings import settings
from include.config.use_case_file import parse
from include.orchestration import dag_defaults
from tests.builders.shop import YAML


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EVERGREEN_USECASES", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    settings.cache_clear()


def test_a_broken_file_is_told_and_hides_no_other(folder: Path) -> None:
    (folder / "shop.yaml").write_text(YAML)
    (folder / "broken.yaml").write_text("name: broken\nentity: 3\n")
    assert [use_case.name for use_case in dag_defaults.use_cases()] == ["shop"]
    (problem,) = dag_defaults.broken_use_cases()
    assert "broken.yaml" in problem


def test_the_form_has_the_date_first_and_force_last() -> None:
    from airflow.sdk import Param

    form = dag_defaults.form(parse(YAML), restate=Param(None))
    assert list(form) == ["partition", "restate", "force"]
    assert "day" in form["partition"].description


def test_a_dag_is_described_by_the_first_line_of_its_run_book() -> None:
    arguments = dag_defaults.dag_arguments(parse(YAML), "train_model", "Train it.\n\n**When.** x")
    assert (arguments["dag_id"], arguments["description"]) == ("shop__train_model", "Train it.")
    assert arguments["default_args"]["owner"] == parse(YAML).owner


def test_a_closed_history_ends_its_schedule_as_it_begins() -> None:
    closed = parse(YAML.replace("{first: 2025-01-01}", "{first: 2025-01-01, last: 2025-02-01}"))
    assert dag_defaults.schedule_end(parse(YAML)) is None
    assert dag_defaults.schedule_end(closed) == dag_defaults.START
