"""Whole days, releases, collection and reset as the workers' role: nothing needs more than that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from include.clock import utc_now
from include.deployment.rollback import Order
from include.deployment.rollout import release_hold, rollback
from include.features import feast_tables
from include.installation import reset
from include.records.records import RoleReport
from include.retention.collect_garbage import collect
from tests.builders.installation import Installation, small_repayment
from tests.builders.mlflow_database import copy_database
from tests.builders.postgres_roles import Place, prepared_place
from tests.builders.serving import NAME, Desk


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with prepared_place() as made:
        feast_tables.migrate(make_url(made.owner), worker=f"{made.prefix}_worker")
        yield made


@pytest.mark.slow
def test_a_day_up_to_its_judgement_then_collection_and_reset(place: Place, tmp_path: Path) -> None:
    small_repayment(tmp_path / "usecases", 200)
    copy_database(tmp_path)
    made = Installation(tmp_path, records_url=SecretStr(place.worker))
    made.load("2026-01-01", "2026-01-20")
    reports = made.day("2026-01-21")
    assert {report.state for report in reports.values()} <= {"done", "skipped"}, reports
    assert made.result("train_model", "2026-01-21").state == "done"
    collected = collect(
        made.settings,
        made.records,
        made.use_case,
        at=utc_now() + timedelta(days=3),
        actor="test",
    )
    assert collected.use_case == "repayment"
    reset.reset(made.settings, made.records, "repayment", actor="test")
    assert made.records.models.of("repayment") == []
    assert made.records.audit.verify() is None
    made.records.close()


def test_a_release_a_rollback_and_the_lift_of_a_hold(place: Place, tmp_path: Path) -> None:
    copy_database(tmp_path)
    desk = Desk(tmp_path, records_url=SecretStr(place.worker))
    for version, key in ((1, "2026-03-10"), (2, "2026-03-11")):
        model = desk.candidate(version, key)
        report_ready(place, desk, version)
        desk.record_route(
            champion=version, previous=version - 1 or None, challenger=None, step=0, weight=0.0
        )
        assert model.version == version
    taken = rollback(desk.settings, NAME, Order("me", "bad", version=2))
    assert (taken.changed, taken.route.champion) == (True, 1)
    assert release_hold(desk.settings, NAME, 2, "me", "was the data").held == []
    assert desk.records.audit.verify() is None
    desk.records.close()


def report_ready(place: Place, desk: Desk, version: int) -> None:
    """Report as a node, which is another role, what workers then read."""
    node = place.open("node")
    route = desk.records.routes.get(NAME)
    role = RoleReport("challenger", version, f"sha256:{version}", "ready")
    node.nodes.report(NAME, "n1", "1", generation=route.generation, roles=[role])
    assert [one.version for one in desk.records.nodes.of(NAME)] == [version]
