"""Outcomes that were known before their decision are counted, and times as coarsely as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.onboarding import try_data
from include.onboarding.early_outcomes import find_early
from tests.builders import intake
from tests.builders.intake import COLUMNS, Intake

HEAD = "order_id,customer_id,event_timestamp,created_timestamp,amount,paid,closed\n"
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
      paid: {type: int64}
      closed: {type: timestamp}
label: {source: orders, column: paid, label_time: closed, delay: 3d}
features:
  facts: {grain: event, source: orders, columns: {amount: float64}}
gates: {min_rows: 20}
"""


@pytest.mark.parametrize(
    ("kind", "more", "event", "known", "early"),
    [
        ("timestamp", "", "2026-01-01T10:00:30Z", "2026-01-01T10:00:29.5Z", True),
        ("timestamp", "", "2026-01-01T10:00:30Z", "2026-01-01T10:00:30Z", False),
        ("timestamp", "", "2026-01-01T10:00:30.7Z", "2026-01-01T10:00:30Z", False),
        ("timestamp", "", "2026-01-01T10:01:30Z", "2026-01-01T10:01:29Z", True),
        ("timestamp", "", "2026-01-01T10:01:30Z", "2026-01-01 10:01", False),
        ("timestamp", "", "2026-01-01T10:02:30Z", "2026-01-01 10:01", True),
        ("date", "", "2026-01-01T10:00:00Z", "2026-01-01", False),
        ("date", "", "2026-01-01T10:00:00Z", "2025-12-31", True),
        ("date", "timezone: America/New_York", "2026-01-01T21:00:00-05:00", "2026-01-01", False),
        ('date, dates: "%m/%Y"', "", "2026-01-20T10:00:00Z", "01/2026", False),
        ('date, dates: "%m/%Y"', "", "2026-01-20T10:00:00Z", "12/2025", True),
        ("timestamp", "date_means: end_of_day", "2026-01-01", "2026-01-01T10:00:30Z", False),
        ("timestamp", "date_means: end_of_day", "2026-01-01", "2025-12-31T10:00:30Z", True),
    ],
)
def test_an_outcome_is_early_where_its_time_leaves_no_other_reading(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    more: str,
    event: str,
    known: str,
    early: bool,
) -> None:
    timed = intake.YAML.replace("label_time: event + 1d", "label_time: closed")
    monkeypatch.setattr(intake, "YAML", timed)
    columns = COLUMNS + f"\n      closed: {{type: {kind}}}"
    made = Intake(tmp_path, columns=columns, more=more or "late: next")
    made.put(f"{HEAD}1,1,{event},{event},10,1,{known}\n")
    key = "2026-01-20" if "%m" in kind else "2026-01-02" if "21:00" in event else "2026-01-01"
    assert made.validate(key).state == "done"
    found = find_early(made.use_case, made.lake)
    assert (found.count, found.decisions) == (int(early), 1)
    assert (found.days > 0) is early


@pytest.mark.parametrize(("every", "refused"), [(3, True), (100, False)])
def test_the_check_refuses_many_and_asks_about_few(
    tmp_path: Path, every: int, refused: bool
) -> None:
    lines = ["order_id,customer_id,event_timestamp,amount,paid,closed"]
    for number in range(480):
        day, hour = number // 12, number % 12
        date = f"2026-01-{day + 1:02}" if day < 31 else f"2026-02-{day - 30:02}"
        closed = "2025-12-24T01:02:03.4Z" if number % every == 0 else f"{date}T{hour + 1:02}:00:00Z"
        paid = int((day * 7 + hour * 5) % 3 == 0)
        lines.append(f"{number},{hour},{date}T{hour:02}:30:00Z,{number % 11},{paid},{closed}")
    (tmp_path / "orders.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "shop.yaml").write_text(SHOP)
    use_case = use_case_file.load(tmp_path / "shop.yaml")
    trial = try_data.try_data(use_case, Settings(home=tmp_path / "home"))
    asked = [said for what, said in trial.facts if what == "question"]
    told = trial.problems if refused else asked
    other = asked if refused else trial.problems
    assert any("were known before their decision" in text for text in told)
    assert not any("were known before" in text for text in other)
    assert any("`label: {label_time: event + 3d}`" in text for text in told)
