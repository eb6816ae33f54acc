"""History, backfill, correction: the same digests whatever the order, and nothing live is
touched.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConfigError, RestatementRefused
from include.pipeline import status
from tests.builders.installation import DATA_STAGES, Installation, small_repayment
from tests.builders.intake import GOOD, HEAD, Intake

FIRST, LAST = "2026-01-01", "2026-01-30"


def fresh(home: Path, customers: int = 500) -> Installation:
    small_repayment(home / "usecases", customers)
    return Installation(home)


@pytest.fixture(scope="module")
def ranged(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Thirty days in one pass."""
    made = fresh(tmp_path_factory.mktemp("ranged"))
    reports = made.load(FIRST, LAST)
    assert {report.state for report in reports} == {"done"}
    assert len(reports) == 30 * len(DATA_STAGES)
    return made


@pytest.mark.slow
def test_thirty_days_in_one_pass_equal_thirty_daily_runs(
    ranged: Installation, tmp_path: Path
) -> None:
    daily = fresh(tmp_path)
    for key in daily.keys(FIRST, LAST):
        daily.day(key, DATA_STAGES)
    expected = ranged.digests()
    assert {table.split("/")[1].split("@")[0] for table, _ in expected} == {
        "raw",
        "quarantine",
        "curated",
        "features",
        "labels",
    }
    assert daily.digests() == expected


@pytest.mark.slow
def test_backwards_ingestion_and_again_give_equal_digests(
    ranged: Installation, tmp_path: Path
) -> None:
    """Ingestion backwards, then the range forward in pieces, with a part run twice."""
    made = fresh(tmp_path)
    for key in reversed(made.keys("2026-01-01", "2026-01-06")):
        made.run("ingest_data", key)
    made.load("2026-01-01", "2026-01-04")
    again = made.load("2026-01-01", "2026-01-06")
    kept = [report for report in again if report.key <= "2026-01-04"]
    assert kept
    assert all(report.reused for report in kept)
    keys = made.keys("2026-01-01", "2026-01-06")
    assert made.digests(keys) == ranged.digests(keys)


def test_an_unchanged_day_adds_no_rows_and_no_table_versions(ranged: Installation) -> None:
    before = {table: ranged.lake.version(table) for table in ranged.tables()}
    reports = ranged.day(LAST, DATA_STAGES)
    assert all(report.reused for report in reports.values())
    assert {table: ranged.lake.version(table) for table in ranged.tables()} == before


def test_force_finds_the_recorded_digests_again(ranged: Installation) -> None:
    for stage in DATA_STAGES:
        assert ranged.run(stage, "2026-01-20", force=True).reason == "equal to the record"


def test_a_backfill_on_an_empty_installation_changes_no_live_state(ranged: Installation) -> None:
    before = ranged.live_state()
    ranged.day(
        "2026-01-30",
        (
            "ingest_data",
            "validate_data",
            "materialize_features",
            "train_model",
            "evaluate_model",
            "package_model",
            "deploy_model",
        ),
    )
    assert ranged.live_state()[0].generation == 0
    assert ranged.live_state() == before


def test_keys_outside_the_history_are_refused(ranged: Installation) -> None:
    with pytest.raises(ConfigError, match="outside its history"):
        ranged.run("ingest_data", "2025-12-31")


def stale_keys(made: Installation) -> list[str]:
    return [
        row.key for row in status.status_rows(made.records, made.use_case) if row.kind == "stale"
    ]


@pytest.fixture
def shop(tmp_path: Path) -> Intake:
    made = Intake(tmp_path, more="max_bad: 0.5")
    made.put(HEAD + GOOD)
    return made


def totals(made: Installation, key: str) -> dict[int, float]:
    table = next(table for table in made.tables() if "/features/" in table)
    rows = made.lake.read(table, keys=[key])
    return dict(zip(rows["customer_id"].to_pylist(), rows["total"].to_pylist(), strict=True))


def test_a_later_correction_leaves_the_older_day_and_is_seen_by_a_later_one(shop: Intake) -> None:
    """The amount 10 is corrected to 999 on 3 January: the first two days say 10 for ever."""
    for key in ("2026-01-01", "2026-01-02"):
        shop.day(key, DATA_STAGES)
    before = shop.digests()
    shop.put(HEAD + GOOD + "1,1,2026-01-01T10:00:00Z,2026-01-03T12:00:00Z,999,1\n")
    shop.day("2026-01-03", DATA_STAGES)
    for key in ("2026-01-01", "2026-01-02"):
        for stage in DATA_STAGES:
            assert shop.run(stage, key, force=True).reason == "equal to the record"
    assert {at: value for at, value in shop.digests().items() if at[1] < "2026-01-03"} == before
    assert totals(shop, "2026-01-01")[1] == 10
    assert totals(shop, "2026-01-02")[1] == 40
    assert totals(shop, "2026-01-03")[1] == 1029


def test_a_restated_file_is_refused_then_accepted_with_a_reason_and_stale_days_are_listed(
    shop: Intake,
) -> None:
    shop.define(more="max_bad: 0.5\n    late: refuse")
    for key in ("2026-01-01", "2026-01-02"):
        shop.day(key, DATA_STAGES)
    before = shop.digests()
    pinned = {table: shop.lake.version(table) for table in shop.tables()}
    shop.put(HEAD + GOOD.replace(",10,1", ",11,1"))
    with pytest.raises(RestatementRefused, match="restate"):
        shop.run("ingest_data", "2026-01-01")
    assert shop.digests() == before
    shop.run("ingest_data", "2026-01-01", options={"restate": "the till was wrong"})
    assert shop.records.audit.entries("shop", action="stage.refused")
    assert any(
        "the till was wrong" in str(entry.details) for entry in shop.records.audit.entries("shop")
    )
    assert sorted(stale_keys(shop)) == ["2026-01-01", "2026-01-02"]
    shop.day("2026-01-01", ("validate_data", "materialize_features"))
    shop.day("2026-01-02", ("validate_data", "materialize_features"))
    assert stale_keys(shop) == []
    assert totals(shop, "2026-01-02")[1] == 41
    table = next(table for table in shop.tables() if "/features/" in table)
    old = shop.lake.read(table, keys=["2026-01-01"], version=pinned[table])
    assert 10.0 in old["total"].to_pylist()
