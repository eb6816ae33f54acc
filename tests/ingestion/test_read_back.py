"""The raw rows of the lake are digested as the record has them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from include.ingestion.read_back import read_back
from tests.builders.intake import HEAD
from tests.ingestion.test_arrival import DAYS, line
from tests.ingestion.test_static_versions import Town


def test_each_source_with_rows_is_read_back_equal_and_a_lost_row_is_seen(tmp_path: Path) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.put(HEAD + line(1, "01 10:00") + line(2, "01 11:00"))
    made.ingest(DAYS[0])
    # Another delivery has a column more: the table has it, the digest of this day has not.
    made.put(HEAD.strip() + ",note\n" + line(3, "02 10:00").strip() + ",x\n")
    made.ingest(DAYS[1])
    result = made.result("ingest_data", DAYS[0])
    context: Any = SimpleNamespace(
        use_case=made.use_case, lake=made.lake, table=lambda name: f"shop/{name}"
    )
    found = {each.table: each for each in read_back(context, result)}
    assert set(found) == {"shop/raw/orders", "shop/raw/people"}
    assert all(each.stored == each.recorded for each in found.values())
    assert found["shop/raw/people"].key == DAYS[0]
    rows = made.lake.read("shop/raw/orders", keys=[DAYS[0]])
    made.lake.replace("shop/raw/orders", DAYS[0], rows.slice(1))
    lost = next(each for each in read_back(context, result) if each.table == "shop/raw/orders")
    assert lost.stored != lost.recorded
