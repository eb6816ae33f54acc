"""Which use case, partition and person a DAG run is of."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import ConfigError
from include.orchestration.runs import actor_of, owner_of, run_key, use_case_of


def context(
    key: str | None = "2026-06-30", form: str | None = None, run_after: datetime | None = None
) -> Any:
    run = SimpleNamespace(
        partition_key=key, run_after=run_after or datetime(2026, 7, 2, 12, tzinfo=UTC)
    )
    return {"dag_run": run, "params": {"partition": form}}


@pytest.mark.parametrize(
    ("key", "form", "expected"),
    [
        ("2026-06-30", None, "2026-06-30"),
        (None, "2026-06-29", "2026-06-29"),
        (None, None, "2026-07-01"),
        ("2026-06-30",) * 3,
    ],
)
def test_the_key_of_a_run(key: str | None, form: str | None, expected: str) -> None:
    assert run_key("repayment", context(key, form)) == expected


def test_the_newest_is_that_of_the_runs_own_time_and_not_before_the_cut_off() -> None:
    """The use case's cut-off is two hours: at 01:59 the day before is not complete."""
    assert (
        run_key("repayment", context(None, run_after=datetime(2026, 7, 2, 1, 59, tzinfo=UTC)))
        == "2026-06-30"
    )
    assert (
        run_key("repayment", context(None, run_after=datetime(2026, 7, 2, 2, 0, tzinfo=UTC)))
        == "2026-07-01"
    )


def test_a_form_that_contradicts_the_runs_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2026-06-30.*2026-06-29.*only one"):
        run_key("repayment", context("2026-06-30", "2026-06-29"))
    with pytest.raises(ConfigError, match="no partition key"):
        run_key("repayment", context("30.6.2026"))


def test_who_started_a_run_and_who_holds_its_leases() -> None:
    run = SimpleNamespace(
        dag_id="shop__train_model", run_id="r", run_type="scheduled", triggering_user_name=None
    )
    made: Any = {"dag_run": run, "ti": SimpleNamespace(task_id="train")}
    assert use_case_of(run.dag_id) == "shop"
    assert actor_of(made) == "airflow:scheduled"
    run.triggering_user_name = "ann"
    assert actor_of(made) == "airflow:ann"
    assert owner_of(made) == "airflow:shop__train_model/r/train", "of every attempt alike"
