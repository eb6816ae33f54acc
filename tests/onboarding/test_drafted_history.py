"""A draft proposes a history where an entity has several rows, and nothing that tells too early."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.onboarding import try_data
from tests.builders.drafted import N, drafted, orders


def test_a_draft_looks_back_on_earlier_rows_of_an_entity(tmp_path: Path) -> None:
    """What sounds written with the outcome, and the outcome, are not looked back on."""
    rows = orders(
        kind=["it's" if n % 3 else "b" for n in range(N)],
        final_state=[n % 7 for n in range(N)],
        no=[n % 5 for n in range(N)],
    )
    use_case, text = drafted(tmp_path, rows, name="orders")
    view = use_case.features["earlier_rows"]
    assert view.grain == "snapshot"
    assert {"rows_90d", "days_since_last", "amount_mean_90d", "no_last", "kind_last"} <= set(
        view.columns
    )
    assert "= 'it''s'" in str(view.sql)
    assert not any(name.startswith(("returned", "final_state")) for name in view.columns)
    assert drafted(tmp_path, rows, name="orders")[1] == text


@pytest.mark.slow
def test_a_drafted_history_comes_into_the_training_frame(tmp_path: Path) -> None:
    _, text = drafted(tmp_path, orders(), name="orders")
    path = tmp_path / "orders.yaml"
    path.write_text(text, encoding="utf-8")
    trial = try_data.try_data(use_case_file.load(path), Settings(home=tmp_path / "home"))
    shares = {column[0]: column[1] for column in trial.columns}
    assert shares["amount_mean_90d"] != "100.0%", "the frame has it"


def test_entities_of_one_row_have_no_history(tmp_path: Path) -> None:
    use_case, _ = drafted(tmp_path, orders(customer_id=list(range(N)), order_id=[]))
    assert list(use_case.features) == ["row_features"]


def test_a_date_known_at_the_decision_becomes_days_before_it(tmp_path: Path) -> None:
    rows = orders(
        member_since=[date(2020, 1, 1) + timedelta(days=n) for n in range(N)],
        shipped_on=[date(2025, 3, 1) + timedelta(days=n) for n in range(N)],
    )
    case, text = drafted(tmp_path, rows, key="order_id")
    days = case.sources["rows"].columns["member_since_days_before"]
    assert (days.type, case.feature_types["member_since_days_before"]) == ("float64", "float64")
    assert "shipped_on_days_before" not in case.feature_types  # it lies after the decision
    assert "# member_since: left out (a time; its days before the decision are a feature)" in text
    (tmp_path / "t.yaml").write_text(text)
    trial = try_data.try_data(case, Settings(home=tmp_path / "var"))
    shown = {column[0]: column for column in trial.columns}
    moments, values = shown["event_timestamp"][2:], shown["member_since_days_before"][2:]
    born = dict(zip(rows["order_id"], rows["member_since"], strict=True))
    for order, at, value in zip(shown["order_id"][2:], moments, values, strict=True):
        since = datetime.combine(born[order], time(), UTC)
        assert value == pytest.approx((at - since) / timedelta(days=1))
