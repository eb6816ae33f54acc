"""Redriven rows are raw rows of the partition that takes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from include.ingestion.redriven import Redriven, RowsToTake, as_raw_rows, read_redriven
from include.pipeline.ingest_outputs import IngestedSource
from include.point_in_time.partitions import period
from tests.validation.till import DAYS, Till

ROW = Redriven("orders", DAYS[0], "a.csv", 2, DAYS[2], {"order_id": "2", "amount": "20"})


def test_rows_arrive_at_the_start_of_the_interval_and_say_where_they_lay(tmp_path: Path) -> None:
    till = Till(tmp_path)
    taking = period(till.use_case, DAYS[2])
    other = Redriven("orders", DAYS[1], "b.csv", 5, DAYS[2], {"order_id": "9", "note": "x"})
    rows = as_raw_rows([ROW, other], taking).to_pylist()
    assert [row["source_file"] for row in rows] == [
        f"redriven://{DAYS[0]}/a.csv",
        f"redriven://{DAYS[1]}/b.csv",
    ]
    assert {row["arrived_at"] for row in rows} == {taking.arrival_start}
    assert [(row["amount"], row["note"], row["source_row"]) for row in rows] == [
        ("20", None, 2),
        (None, "x", 5),
    ]
    till.mend()
    (recorded,) = read_redriven(till.records, "shop")
    assert (recorded.row, recorded.into, recorded.content["amount"]) == (2, DAYS[2], "20")
    assert read_redriven(till.records, "shop", first=DAYS[3]) == []
    assert read_redriven(till.records, "other") == []
    context: Any = SimpleNamespace(
        records=till.records, use_case=till.use_case, key=DAYS[2], period=taking
    )
    source = IngestedSource(rows=0, digest="", source_digest="s", files=[], columns=[])
    with_them, added = RowsToTake([context]).add_to("orders", context, source, pa.table({}))
    assert (with_them.rows, with_them.redriven, len(added)) == (1, 1, 1)
    assert with_them.source_digest != source.source_digest
    context.key = DAYS[3]
    assert RowsToTake([context]).add_to("orders", context, source, added) == (source, added)
