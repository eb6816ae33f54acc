"""Of a static source only the versions that the partitions know are loaded, however many there
were.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.config.use_case_file import find
from include.lake.tables import Lake
from include.point_in_time.curated import curated_schema, curated_table
from include.point_in_time.views import AsOfViews
from tests.builders.intake import GOOD, HEAD, Intake

SHOPS = """
  shops:
    kind: static
    path: shops.csv
    valid_from: 2026-01-01
    key: [customer_id]
    columns: {customer_id: {type: int64}, town: {type: string}}
label:
  sql: >-
    SELECT customer_id, orders.event_timestamp, orders.created_timestamp AS label_timestamp,
        paid AS label
    FROM orders JOIN shops USING (customer_id)
  delay: 1d
  lookback: 3d
features:
  spending:
    lookback: 3d
    columns: {total: float64, town: string, week: float64}
    sql: >-
      SELECT DISTINCT customer_id, sum(amount) OVER (PARTITION BY customer_id) AS total, town,
      last_value(amount) OVER (PARTITION BY customer_id ORDER BY event_timestamp
      RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW) AS week
      FROM orders NATURAL JOIN (SELECT customer_id, town FROM shops)
      QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY event_timestamp DESC) = 1
"""


@pytest.fixture
def till(tmp_path: Path) -> Intake:
    made = Intake(tmp_path)
    path = made.folder / "shop.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("label:")] + SHOPS.lstrip("\n"))
    made.put(HEAD + GOOD)
    made.put("customer_id,town\n1,Oslo\n2,Rome\n", "shops.csv")
    return made


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many rows of the static source each query's connection was given."""
    counts: list[int] = []
    load: Callable[..., None] = AsOfViews._load

    def counted(self: AsOfViews, lake: Lake, name: str, *rest: Any) -> None:
        load(self, lake, name, *rest)
        if name == "shops":
            counts.append(
                int(self._con.execute('SELECT count(*) FROM "__known_shops"').fetchall()[0][0])
            )

    monkeypatch.setattr(AsOfViews, "_load", counted)
    return counts


def other_versions(till: Intake, count: int) -> None:
    """Write curated versions that no partition knows."""
    use_case = find("shop", till.settings.usecase_dirs)
    schema, table = (
        curated_schema(use_case.sources["shops"]),
        curated_table(till.lake, use_case, "shops"),
    )
    first = till.lake.read(table, keys=["2026-01-01"]).column("created_timestamp")[0].as_py()
    for number in range(1, count + 1):
        moment = first + timedelta(seconds=number)
        rows = pa.table([[1, 2], [f"town {number}"] * 2, [first] * 2, [moment] * 2], schema=schema)
        till.lake.replace(table, (first + timedelta(days=number)).date().isoformat(), rows)


def test_labels_and_features_load_the_versions_that_their_partitions_know(
    till: Intake, loaded: list[int]
) -> None:
    till.validate("2026-01-01")
    other_versions(till, 40)
    till.validate("2026-01-02")
    till.run("materialize_features", "2026-01-02")
    assert loaded == [2, 2, 2]  # labels of both days, features of one
    (table,) = (name for name in till.tables() if "/features/" in name)
    rows = till.lake.read(table, keys=["2026-01-02"]).sort_by("customer_id").to_pylist()
    assert [(row["customer_id"], row["total"], row["town"], row["week"]) for row in rows] == [
        (1, 40.0, "Oslo", 30.0),
        (2, 20.0, "Rome", 20.0),
    ]
