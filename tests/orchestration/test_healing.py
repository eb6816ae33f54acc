"""What heal starts, and above all what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_runs import Run
from include.orchestration.healing import (
    ASSET_BEFORE,
    find_active_keys,
    plan_releases,
    plan_restarts,
    start_waiting,
)
from include.pipeline.status import StatusRow, status_rows
from include.records.records import AuditEntry, Mode, Model, Records, StageResult, Target
from tests.builders import releases
from tests.builders.releases import entry, request, under_way

AT = datetime(2026, 1, 20, tzinfo=UTC)
DATA = ("ingest_data", "validate_data", "materialize_features")


def waiting(key: str, stage: str = "train_model") -> StatusRow:
    return StatusRow(key, "waiting", stage, f"for {stage}", "backfill", "judged")


def test_newest_first_at_most_n_and_nothing_that_is_on_its_way() -> None:
    rows = [waiting(f"2026-01-0{day}") for day in range(1, 8)]
    found = plan_restarts("shop", rows, active={"2026-01-06"}, limit=3)
    assert [item.key for item in found] == ["2026-01-07", "2026-01-05", "2026-01-04"]
    assert {item.asset for item in found} == {"features"}


def test_a_refusal_a_hold_a_gap_and_a_stale_day_are_not_started() -> None:
    rows = [
        StatusRow("2026-01-01", kind, "evaluate_model", "why")
        for kind in ("done", "running", "refused", "stale", "missing")
    ]
    assert plan_restarts("shop", rows, active=set()) == []


def test_what_was_never_ingested_is_started_by_its_dag_and_the_rest_by_the_asset_before() -> None:
    (item,) = plan_restarts("shop", [waiting("2026-01-01", "ingest_data")], active=set())
    assert item.asset is None
    assert {
        stage: plan_restarts("shop", [waiting("2026-01-01", stage)], active=set())[0].asset
        for stage in ASSET_BEFORE
    } == ASSET_BEFORE


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def shop() -> UseCase:
    return UseCase.model_validate(
        {
            "name": "shop",
            "history": {"first": "2026-01-01", "last": "2026-01-10"},
            "entity": {"name": "customer", "key": "customer_id"},
            "sources": {
                "orders": {
                    "path": "x.csv",
                    "key": ["customer_id"],
                    "columns": {"customer_id": {"type": "int64"}},
                }
            },
            "label": {"sql": "select 1", "delay": "1d"},
            "features": {"spend": {"sql": "select 1", "columns": {"amount": "float64"}}},
        }
    )


def record(
    records: Records, key: str, stage: str, *, state: str = "done", **outputs: object
) -> None:
    lease = records.leases.claim("shop", stage, key, owner="test", attempt=1, ttl=30)
    with lease:
        made = StageResult(
            "shop",
            key,
            stage,
            state,
            f"{stage} {key}",
            "",
            outputs,
            [],
            "m",
            "backfill",
            AT,
            AT,
            0.1,
            "none",
        )
        records.results.commit(lease, made)


def meant(records: Records, key: str, mode: Mode, target: Target) -> None:
    records.partitions.raise_to("shop", key, mode=mode, target=target, actor="test", at=AT)


def test_heal_after_load_history_and_a_refusal_starts_nothing(
    records: Records, shop: UseCase
) -> None:
    for day in range(1, 10):
        meant(records, f"2026-01-{day:02}", "backfill", "data")
        for stage in DATA:
            record(records, f"2026-01-{day:02}", stage)
    meant(records, "2026-01-10", "live", "deployed")
    for stage in (*DATA, "train_model", "check_drift"):
        record(records, "2026-01-10", stage)
    record(records, "2026-01-10", "evaluate_model", verdict="fail", reasons=["AUC is too low"])
    found = status_rows(records, shop)
    assert [row.kind for row in found] == ["done"] * 9 + ["refused"]
    assert plan_restarts("shop", found, active=set()) == []


def test_a_raised_target_and_a_lost_event_are_started(records: Records, shop: UseCase) -> None:
    for key in ("2026-01-02", "2026-01-04"):
        meant(records, key, "backfill", "data")
        for stage in DATA:
            record(records, key, stage)
    assert plan_restarts("shop", status_rows(records, shop), active=set()) == []
    meant(records, "2026-01-04", "backfill", "judged")
    found = status_rows(records, shop)
    assert [
        (item.key, item.stage, item.asset) for item in plan_restarts("shop", found, active=set())
    ] == [("2026-01-04", "train_model", "features")]
    assert plan_restarts("shop", found, active={"2026-01-04"}) == []
    kinds = {row.key: row.kind for row in found}
    assert kinds["2026-01-03"] == "missing"
    assert kinds["2026-01-10"] == "missing"
    assert "2026-01-01" not in kinds


def test_the_mirror_of_the_aliases_is_repaired(records: Records, tmp_path: Path) -> None:
    """Killed between the routing row and MLflow: the aliases still name the version before."""
    from include.models import mlflow_registry
    from include.models.mlflow_client import connected
    from include.orchestration.healing import repair_aliases

    settings = Settings(home=tmp_path)
    with connected(settings) as client:
        client.create_registered_model("shop")
        for version in ("1", "2"):
            client.create_model_version("shop", source=(tmp_path / version).as_uri())
        client.set_registered_model_alias("shop", "champion", "1")
        client.set_registered_model_alias("shop", "challenger", "2")
    for version in (1, 2):
        named = {
            "use_case": "shop",
            "version": version,
            "model_digest": f"sha256:{version}",
            "partition": f"2026-01-0{version}",
        }
        records.models.add(
            Model(**named, as_of=AT, mode="live", feature_set="fs", bundle="", state="challenger")
        )  # type: ignore[arg-type]
        entry = AuditEntry("release.done", "shop", str(version), "test", {}, AT)
        previous = {"previous": version - 1} if version > 1 else {}
        records.routes.change(
            "shop",
            set={"champion": version, **previous},
            entry=entry,
            partition=f"2026-01-0{version}",
        )
    assert repair_aliases(settings, records, "shop") == {
        "champion": 2,
        "challenger": None,
        "previous": 1,
    }
    assert mlflow_registry.aliases(settings, "shop") == {"champion": 2, "previous": 1}
    assert repair_aliases(settings, records, "shop") == {}


def test_a_range_that_is_loading_is_on_its_way() -> None:
    """What `load_history` is busy with is not started a second time."""
    keys = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]

    def run(dag: str, key: str | None, **conf: str) -> Run:
        return Run(f"shop__{dag}", "r", "running", "manual", key, conf, None, None)

    class Answers(AirflowApi):
        def __init__(self, runs: list[Run]) -> None:
            self._runs = runs

        def runs(
            self,
            dag_id: str = "~",
            *,
            prefix: str = "",
            key: str | None = None,
            states: Sequence[str] = (),
        ) -> list[Run]:
            return self._runs

    assert find_active_keys(Answers([run("train_model", keys[1])]), "shop", keys) == {keys[1]}
    loading = run("load_history", None, first=keys[1], last=keys[2])
    assert find_active_keys(Answers([loading]), "shop", keys) == {keys[1], keys[2]}
    assert find_active_keys(Answers([run("load_history", None)]), "shop", keys) == set(keys)
    assert find_active_keys(Answers([run("train_model", None)]), "shop", keys) == set()


def test_a_live_lease_is_running_and_a_dead_one_is_not(records: Records, shop: UseCase) -> None:
    meant(records, "2026-01-10", "live", "deployed")
    with records.leases.claim(
        "shop", "ingest_data", "2026-01-10", owner="airflow:run", attempt=1, ttl=30
    ):
        (row,) = status_rows(records, shop)
        assert (row.kind, row.stage) == ("running", "ingest_data")
        assert "airflow:run" in row.detail
    (row,) = status_rows(records, shop)
    assert (row.kind, row.stage) == ("waiting", "ingest_data")


def test_a_release_that_nobody_judges_is_taken_up_and_what_waits_for_it_is_left(
    records: Records,
) -> None:
    under_way(records, "2026-01-02")
    request(records, 3, "2026-01-03", waits=True)
    (item,), queued = plan_releases(records, "shop", active=set())
    assert (item.key, item.stage, item.asset) == ("2026-01-02", "deploy_model", "bento")
    assert item.why == "nobody judges the release"
    assert queued == {"2026-01-03"}
    assert plan_releases(records, "shop", active={"2026-01-02"}) == ([], {"2026-01-03"})


def test_what_waits_is_started_once_nothing_is_in_its_way(records: Records) -> None:
    release = under_way(records, "2026-01-02")
    request(records, 3, "2026-01-03", waits=True)
    records.releases.promote(release, entry(), None)
    items, queued = plan_releases(records, "shop", active=set())
    assert [(item.key, item.why) for item in items] == [
        ("2026-01-02", "nobody watches its model"),
        ("2026-01-03", "it waits for no release any more"),
    ]
    assert queued == set()
    until = releases.AT.replace(year=2100)
    records.releases.freeze("shop", until, entry())
    items, queued = plan_releases(records, "shop", active={"2026-01-02"})
    assert (items, queued) == ([], {"2026-01-03"})


def test_the_end_of_a_release_starts_the_waiting_one_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    emitted: list[tuple[str, str]] = []
    monkeypatch.setattr(
        AirflowApi, "emit", lambda self, uri, key, extra=None: emitted.append((uri, key))
    )
    release = under_way(records, "2026-01-02")
    assert start_waiting(settings, "shop", actor="test") is None, "nothing waits"
    request(records, 3, "2026-01-03", waits=True)
    assert start_waiting(settings, "shop", actor="test") is None, "one is under way"
    records.releases.abort(release, "a wish", entry())
    assert start_waiting(settings, "shop", actor="test") == "2026-01-03"
    assert start_waiting(settings, "shop", actor="test") is None, "it was asked for already"
    assert emitted == [("evergreen://shop/bento", "2026-01-03")]
    [row] = records.audit.entries("shop", action="release.taken_up")
    assert (row.subject, row.details["partition"]) == ("3", "2026-01-03")
