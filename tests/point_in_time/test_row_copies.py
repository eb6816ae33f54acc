"""One key for the copies of a row, and never for two keys of a person's own."""

from __future__ import annotations

import pyarrow as pa

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.point_in_time.row_copies import one_entity

YAML = """name: shop
history: {{first: 2026-01-01, last: 2026-01-01}}
entity: {{name: row, key: row_id, type: string}}
sources:
  rows:
    path: rows.csv
    snapshot: 2026-01-01
    key: [row_id]
    columns: {{row_id: {{type: string{digest}}}, a: {{type: float64}}, b: {{type: int64}}}}
label: {{source: rows, column: b, label_time: event + 0s, delay: 0s}}
features:
  facts: {{grain: event, source: rows, columns: {{a: float64}}}}
"""
DIGEST = "32f67863a0956327ec8ac7f085a0e2ae"
KEYS = [f"{DIGEST}-1", f"{DIGEST}-2", f"{DIGEST}-12", "a-2", "7-2", DIGEST, f"{DIGEST}-2-2", None]


def together(use_case: UseCase) -> list[str | None]:
    column = one_entity(pa.chunked_array([KEYS[:3], KEYS[3:]], pa.string()), use_case)
    return list(column.to_pylist())


def test_copies_of_a_row_have_the_key_of_the_first() -> None:
    assert together(parse(YAML.format(digest=", digest: row"))) == [KEYS[0]] * 3 + KEYS[3:]


def test_a_key_that_was_delivered_stays_whatever_it_looks_like() -> None:
    assert together(parse(YAML.format(digest=""))) == KEYS
