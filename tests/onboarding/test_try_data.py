from __future__ import annotations

from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.errors import ConfigError
from include.onboarding import try_data

DAYS = 40
SHOP = """name: shop
history: {first: 2026-01-01, last: 2026-02-09}
entity: {name: customer, key: customer_id}
sources:
  orders:
    path: orders.csv
    arrival: event + 0s
    key: [order_id]
    empty: allow
    columns:
      order_id: {type: int64}
      customer_id: {type: int64}
      amount: {type: float64}
      leak: {type: float64}
      paid: {type: int64}
label:
  sql: >-
    SELECT customer_id, event_timestamp, event_timestamp + INTERVAL 2 DAY AS label_timestamp,
        paid AS label FROM orders
    WHERE event_timestamp + INTERVAL 2 DAY < getvariable('as_of')
  delay: 3d
  lookback: 5d
features:
  spending:
    lookback: 4d
    ttl: 3d
    columns: {total: float64}
    sql: SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id
gates: {min_rows: 20}
"""


def shop(folder: Path, text: str = SHOP, repeated: bool = False) -> Path:
    """Write a use case whose every customer orders every day; the outcome follows the day and
    the customer.
    """
    lines = ["order_id,customer_id,event_timestamp,amount,leak,paid"]
    for day in range(DAYS):
        month, date = (1, day + 1) if day < 31 else (2, day - 30)
        for customer in range(12):
            paid = (day * 7 + customer * 5) % 3 == 0
            stamp = f"2026-{month:02}-{date:02}T{customer:02}:00:00Z"
            leak = paid + customer / 100
            amount = (day * customer) % 11
            lines.append(f"{day * 100 + customer},{customer},{stamp},{amount},{leak},{int(paid)}")
    if repeated:
        lines.append(lines[-1])
    (folder / "orders.csv").write_text("\n".join(lines) + "\n")
    path = folder / "shop.yaml"
    path.write_text(text)
    return path


def test_a_correct_use_case_passes_and_what_it_holds_is_shown(tmp_path: Path) -> None:
    use_case = use_case_file.load(shop(tmp_path, repeated=True))
    trial = try_data.try_data(use_case, Settings(home=tmp_path / "home"))
    assert trial.problems == []
    facts = dict(trial.facts)
    assert ", 0 in quarantine, 1 duplicates, 0 conflicts" in facts["source orders"]
    assert facts["label rate"].startswith("33.")
    assert facts["first training"].startswith("about 2026-0")
    assert sum(count for _, count, _ in trial.rates) == int(facts["label rate"].split()[2])
    assert all(rate.endswith("%") for _, _, rate in trial.rates)


@pytest.mark.slow
def test_a_first_training_after_the_end_of_the_history_is_told(tmp_path: Path) -> None:
    text = SHOP.replace("gates: {min_rows: 20}", "gates: {min_rows: 200}")
    trial = try_data.try_data(
        use_case_file.load(shop(tmp_path, text)), Settings(home=tmp_path / "home")
    )
    assert trial.problems == []
    assert dict(trial.facts)["first training"].endswith("; after the history's last (2026-02-09)")


@pytest.mark.slow
def test_a_view_whose_rows_come_too_late_for_their_own_decisions_is_asked_about(
    tmp_path: Path,
) -> None:
    """Read at as_of, the row of a decision is known a day later than the decision; `visible` is
    named.
    """
    view = (
        "  told:\n    grain: event\n    source: orders\n    visible: at_as_of\n    ttl: 1h\n"
        "    columns: {amount: float64}\n"
    )
    trial = try_data.try_data(
        use_case_file.load(shop(tmp_path, SHOP.replace("gates:", view + "gates:"))),
        Settings(home=tmp_path / "home"),
    )
    assert any("visible: with_request in features.told" in text for text in trial.problems)


def test_a_feature_that_tells_the_outcome_is_found_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    view = (
        "  told:\n    grain: event\n    source: orders\n    visible: with_request\n    "
        "columns: {leak: float64}\n"
    )
    trial = try_data.try_data(
        use_case_file.load(shop(tmp_path, SHOP.replace("gates:", view + "gates:"))),
        Settings(home=tmp_path / "home"),
    )
    assert any("leak" in problem for problem in trial.problems)
    with pytest.raises(ConfigError, match="leak"):
        trial.refuse()
