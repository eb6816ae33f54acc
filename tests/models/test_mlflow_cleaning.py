"""What MLflow loses when a version or a run is removed: rows, not only their marks."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.models import mlflow_cleaning, mlflow_registry
from include.models.mlflow_client import connected
from tests.builders.serving import NAME
from tests.models.test_mlflow_registry import KEY, home, training

__all__ = ["home"]  # fixtures


def count(home: Settings, table: str) -> int:
    with sqlite3.connect(home.home / "mlflow.db") as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_version_and_its_run_are_found_and_removed_for_good(home: Settings) -> None:
    made = [mlflow_registry.register(home, training(home, seed)) for seed in (1, 2)]
    with connected(home) as client:
        client.create_run(client.get_experiment_by_name(NAME).experiment_id)  # a person's
    found = mlflow_cleaning.entries(home, NAME)
    assert sorted((entry.version, entry.run_id) for entry in found) == sorted(
        [(each.version, each.run_id) for each in made] + [(0, each.run_id) for each in made]
    )
    assert {entry.partition for entry in found} == {KEY}
    assert all(0 <= (utc_now() - entry.made_at).total_seconds() < 600 for entry in found)
    for _ in range(2):  # once more is no error
        mlflow_cleaning.remove_version(home, NAME, 1)
        mlflow_cleaning.remove_run(home, made[0].run_id)
    assert {entry.run_id for entry in mlflow_cleaning.entries(home, NAME)} == {made[1].run_id}
    assert (count(home, "runs"), count(home, "params")) == (2, 1)
    again = mlflow_registry.register(home, training(home, 1))
    assert (again.version, again.reused) == (3, False), "a number is never given twice"


def test_a_run_that_a_reset_marked_is_found_under_the_name_that_it_gave(home: Settings) -> None:
    made = mlflow_registry.register(home, training(home))
    mlflow_registry.forget(home, NAME, at=utc_now())
    assert [(entry.version, entry.run_id) for entry in mlflow_cleaning.entries(home, NAME)] == [
        (0, made.run_id)
    ]
    mlflow_cleaning.remove_run(home, made.run_id)
    assert count(home, "runs") == 0


def test_what_a_server_can_only_mark_is_found_once(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each night would find all runs that were ever removed, and call them removed again."""
    made = mlflow_registry.register(home, training(home))
    with connected(home) as client:
        store = client._tracking_client.store
    monkeypatch.setattr(store, "_hard_delete_run", None)
    mlflow_cleaning.remove_version(home, NAME, 1)
    mlflow_cleaning.remove_run(home, made.run_id)
    assert count(home, "runs") == 1
    assert mlflow_cleaning.entries(home, NAME) == []
    assert mlflow_cleaning.without_run(home, [made.run_id, "0" * 32]) == ["0" * 32]


def test_where_mlflow_was_never_used_nothing_is_made(tmp_path: Path) -> None:
    assert mlflow_cleaning.entries(Settings(home=tmp_path), NAME) == []
    assert not list(tmp_path.iterdir())


def test_an_alias_of_a_version_that_was_removed_is_taken_off(home: Settings) -> None:
    from include.records.records import Route

    for seed in (1, 2):
        mlflow_registry.register(home, training(home, seed))
    mlflow_registry.mirror_aliases(home, NAME, Route(NAME, champion=2, previous=1))
    mlflow_cleaning.remove_version(home, NAME, 1)
    assert mlflow_registry.mirror_aliases(home, NAME, Route(NAME, champion=2, previous=1)) == {}
    assert mlflow_registry.mirror_aliases(home, NAME, Route(NAME, champion=1, previous=2)) == {
        "champion": None,
        "previous": 2,
    }
