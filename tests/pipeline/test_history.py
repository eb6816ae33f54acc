"""The range that is loaded before a training, and gaps."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.pipeline import history
from include.records.records import Records, StageResult
from tests.builders.intake import GOOD, HEAD, Intake

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
YAML = """
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders: {path: o.csv, key: [order_id],
    columns: {order_id: {type: int64}, customer_id: {type: int64}, paid: {type: int64}}}
label: {source: orders, column: paid, lookback: 5d, delay: 3d}
features:
  spending: {lookback: 10d, ttl: 2d, columns: {total: float64}, sql: "SELECT 1"}
"""


def use_case(extra: str = "") -> UseCase:
    return parse(YAML + extra)


def test_the_default_range_ends_before_the_newest_and_reaches_back_as_far_as_a_training_looks() -> (
    None
):
    plan = history.plan_load(use_case("training: {window: 20d}\n"), None, None, NOW)
    assert {keys[-1] for keys in plan.values()} == {"2026-06-29"}
    # as_of of 06-30 is 07-01; 20 d window + 2 d ttl + 3 d delay before it; then 10 d of the view;
    # then 5 d of the label
    assert plan["materialize_features"][0] == "2026-06-06"
    assert plan["validate_data"][0] == "2026-05-28"
    assert plan["ingest_data"][0] == "2026-05-24"


def test_what_is_looked_back_on_is_clipped_at_the_start_of_the_history() -> None:
    plan = history.plan_load(use_case(), None, None, NOW)
    assert {keys[0] for keys in plan.values()} == {"2026-01-01"}
    plan = history.plan_load(use_case(), "2026-01-03", "2026-01-04", NOW)
    assert plan["materialize_features"] == ["2026-01-03", "2026-01-04"]
    assert plan["ingest_data"][0] == "2026-01-01"


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        ("2026-06-02", "2026-06-01", "empty"),
        (None, "2026-07-01", "not complete yet"),
        ("2025-12-31", None, "outside its history"),
    ],
)
def test_a_range_that_cannot_be_loaded_is_refused(
    first: str | None, last: str | None, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        history.plan_load(use_case(), first, last, NOW)


def test_a_use_case_that_has_only_its_newest_day_has_no_history_to_load() -> None:
    with pytest.raises(ConfigError, match="no history to load"):
        history.plan_load(use_case(), None, None, datetime(2026, 1, 2, 12, tzinfo=UTC))


def test_a_training_that_looks_back_on_no_more_than_is_loaded_needs_no_history(
    tmp_path: Path,
) -> None:
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()
    case = parse(
        (YAML + "training: {window: 1d}\n")
        .replace("delay: 3d", "delay: 0s")
        .replace("ttl: 2d", "ttl: 0s")
    )
    # a decision of the 25th sees what was known at its newest as_of, the end of the 24th, however
    # short the ttl
    assert history.first_of_training(case, "2026-06-25") == "2026-06-24"
    assert history.plan_missing(case, records, "2026-06-25", "2026-06-23", NOW) is None


def test_an_older_key_needs_an_older_history_until_all_of_it_is_recorded(tmp_path: Path) -> None:
    records, case = (
        Records.open(f"sqlite:///{tmp_path / 'records.db'}"),
        use_case("training: {window: 20d}\n"),
    )
    records.migrate()
    of_newest = history.plan_missing(case, records, "2026-06-30", "2026-06-29", NOW)
    assert of_newest == history.plan_load(case, None, None, NOW)
    older = history.plan_missing(case, records, "2026-06-25", "2026-06-29", NOW)
    assert older is not None
    assert (older["materialize_features"][0], older["materialize_features"][-1]) == (
        "2026-06-01",
        "2026-06-29",
    )

    def record(stage: str, key: str) -> None:
        records.partitions.raise_to(
            case.name, key, mode="backfill", target="data", actor="test", at=NOW
        )
        with records.leases.claim(case.name, stage, key, owner="test", attempt=1, ttl=60) as lease:
            result = StageResult(
                case.name,
                key,
                stage,
                "done",
                "d",
                "",
                {},
                [],
                "m",
                "backfill",
                NOW,
                NOW,
                0.0,
                "none",
                lease.token,
            )
            records.results.commit(lease, result)

    for stage, keys in of_newest.items():
        for key in keys:
            record(stage, key)
    assert history.plan_missing(case, records, "2026-06-30", "2026-06-29", NOW) is None
    assert history.plan_missing(case, records, "2026-06-25", "2026-06-29", NOW) == older


def test_a_gap_is_what_nobody_ran_between_the_last_ingested_day_and_this_one(
    tmp_path: Path,
) -> None:
    made = Intake(tmp_path)
    made.put(HEAD + GOOD)
    assert history.find_gap(made.settings, "shop", "2026-01-05") == [], (
        "an empty installation has no gap, it has no history"
    )
    made.ingest("2026-01-01")
    assert history.find_gap(made.settings, "shop", "2026-01-02") == []
    assert history.find_gap(made.settings, "shop", "2026-01-05") == [
        "2026-01-02",
        "2026-01-03",
        "2026-01-04",
    ]


def test_loading_a_range_records_it_for_its_data_and_never_lowers_what_is_recorded(
    tmp_path: Path,
) -> None:
    made = Intake(tmp_path, more="empty: allow")
    made.put(HEAD + GOOD)
    made.ask("2026-01-02", mode="live", target="deployed")
    keys = ["2026-01-01", "2026-01-02", "2026-01-03"]
    told = history.load_partitions("ingest_data", made.settings, "shop", keys, owner="test")
    assert (told["done"], told["first"], told["last"]) == (3, keys[0], keys[-1])
    rows = {row.key: (row.mode, row.target) for row in made.records.partitions.of("shop")}
    assert rows == dict.fromkeys(keys, ("backfill", "data")) | {"2026-01-02": ("live", "deployed")}
