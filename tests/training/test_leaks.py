"""The leak gate: every kind of finding on made-up rows, all at once, and what it says of real
sets.
"""

from __future__ import annotations

import json
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import Settings
from include.errors import ConfigError
from include.models import lightgbm_fitting as fitting
from include.models import matrix
from include.models.encoding import Feature, Schema, encode
from include.pipeline.training_outputs import Leaks
from include.training.leak_findings import Findings
from tests.builders.leaks import (
    Columns,
    case,
    check,
    closed,
    cut,
    made,
    put,
    status,
    yaml_of,
)
from tests.builders.remedy_lines import offered, pasted
from tests.builders.variants import leave_to_slow

DATA = Settings().data_dir


def everything(columns: Columns, labels: Any, generator: Any) -> None:
    columns |= {
        "closed_on": closed(labels, generator),
        "term": cut(labels, generator),
        "end": status(labels, generator),
    }
    columns |= {
        "nothing": pa.nulls(len(labels), pa.float64()),
        "name": [f"n{row}" for row in range(len(labels))],
    }
    columns |= {"paid": labels * 3 + generator.random(len(labels))}


def test_each_finding_offers_lines_that_the_use_case_takes() -> None:
    table, training = made(everything), "{exclude: [x7], known_at_decision: [term]}"
    found = check(table, training)
    kinds = {one.kind for one in found.found}
    assert kinds >= {"presence", "pure", "null", "id", "alone"}
    for one in found.found:
        lines = offered(str(one))
        assert lines, one
        for line in lines:
            changed = pasted(yaml_of(table, training), line).training
            # What a person wrote before stays.
            assert "x7" in changed.exclude
            assert "term" in changed.known_at_decision


def test_all_findings_come_at_once_with_one_line_that_mends_them() -> None:
    found = check(made(everything), "{exclude: [x7]}")
    assert {one.columns[0]: one.kind for one in found.refusals} == {
        "closed_on": "presence",
        "term": "pure",
        "end": "pure",
        "nothing": "null",
        "name": "id",
        "paid": "alone",
    }
    with pytest.raises(ConfigError) as told:
        found.refuse()
    message = str(told.value)
    assert all(name in message for name in ("closed_on", "term", "end", "nothing", "name", "paid"))
    line = message.rsplit("`", 2)[1]
    assert line.startswith("training: {exclude: [x7, ")
    mended = check(made(everything), line.removeprefix("training: "))
    assert not mended.refusals
    mended.refuse()
    recorded = msgspec.to_builtins(found.recorded())
    assert json.loads(json.dumps(recorded)) == recorded
    assert msgspec.convert(recorded, Leaks) == found.recorded()


def test_what_a_person_knows_to_be_honest_is_a_question() -> None:
    found = check(made(put("told", closed)), "{known_at_decision: [told]}")
    assert not found.refusals
    assert found.questions[0].columns == ("told",)
    with pytest.raises(ConfigError, match=r"known_at_decision names \['gone'\]"):
        check(made(), "{known_at_decision: [gone]}")


@pytest.mark.slow
def test_honest_rows_in_any_chunks_give_no_finding_and_the_same_numbers() -> None:
    rows = made()
    found = check(rows)
    assert not found.refusals
    assert not [one for one in found.questions if one.kind != "carries"]
    chunked = pa.concat_tables([rows.slice(0, 100), rows.slice(100, 1), rows.slice(101)])
    assert check(chunked) == found
    assert 0.7 < (found.random_auc or 0) < 0.9


@pytest.mark.parametrize("rows", [0, 1, 2, 60])
def test_few_rows_or_one_outcome_say_nothing_and_break_nothing(rows: int) -> None:
    few = made(put("told", closed)).slice(0, rows)
    assert {one.kind for one in check(few).found} <= ({"null"} if rows else set())
    one_outcome = made().set_column(1, "label", pa.array(np.ones(3000)))
    assert not check(one_outcome).found


ODD = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -0.0,
    0.0,
    5e-324,
    -5e-324,
    1.797e308,
    -1.797e308,
    None,
]


@pytest.mark.parametrize("rows", leave_to_slow([400, 3000]))
def test_odd_numbers_break_nothing(rows: int) -> None:
    def odd(columns: Columns, labels: Any, generator: Any) -> None:
        columns["odd"] = pa.array([ODD[row % len(ODD)] for row in range(rows)], pa.float64())
        columns["huge"] = pa.array(
            [[2**63 - 1, -(2**63), 2**53 + 1, None][row % 4] for row in range(rows)], pa.int64()
        )
        columns["hash"] = pa.array(generator.integers(-(2**62), 2**62, rows), pa.int64())
        columns["flag"] = pa.array(
            [[True, None, False][row % 3] for row in range(rows)], pa.bool_()
        )
        columns["text"] = pa.array(
            [["", None, "\x00", "😀" * 50, "a"][row % 5] for row in range(rows)], pa.string()
        )

    table = made(odd, rows)
    found = check(table)
    assert not found.refusals
    assert all(0.5 <= value <= 1 for value in found.feature_auc.values())
    parts = (np.arange(rows) * 3 // rows).astype(np.int8)
    fitted = fitting.fit(table, parts, case(table), "f")
    asked = matrix.columns_of(table, fitted.predictor.schema)
    assert np.isfinite(fitted.predictor.many(asked)).all()
    assert np.isfinite(fitted.metrics["yardstick_auc"])


def test_a_number_beyond_doubles_is_rounded_alike_in_training_and_in_a_request() -> None:
    numbers = [2**53 + 1, 2**62 + 3, -(2**63), 2**63 - 1, 948_819_542_493_416_689]
    table = pa.table({"n": pa.array(numbers, pa.int64())})
    schema = Schema("u", "f", (Feature("n", "int64"),), 1.0, 0.0, 0.5, "")
    trained = encode(matrix.columns_of(table, schema), schema)
    served = encode([{"n": number} for number in numbers], schema)
    assert trained.tolist() == served.tolist()


# real sets: docs/explanation/leak-gate.md has the figures


def real(query: str, drop: str = "") -> Findings:
    with duckdb.connect() as con:
        rows = con.sql(
            f"SELECT * EXCLUDE (one {drop}), CAST(one AS DOUBLE) AS label FROM ({query})"
        ).to_arrow_table()
    arrays = {}
    for field in rows.schema:
        kind = pa.int64() if pa.types.is_integer(field.type) else field.type
        arrays[field.name.replace(".", "_")] = rows.column(field.name).cast(kind)
    return check(pa.table(arrays))


BANK = f"""SELECT row_number() OVER () AS key, * EXCLUDE y, CAST(y = 'yes' AS INT) AS one
    FROM read_csv('{DATA}/bank_marketing/bank-additional-full.csv.gz', delim = ';',
        types = {{'y': 'VARCHAR'}})"""
HOTEL = f"""SELECT row_number() OVER () AS key, * EXCLUDE (is_canceled, reservation_status,
    reservation_status_date),
    is_canceled AS one FROM read_csv('{DATA}/hotel_bookings/hotel_bookings.csv.gz',
        nullstr = ['NULL', 'NA'])
    QUALIFY key % 3 = 0"""
NAMES = [
    *("age", "work", "weight", "education", "years", "marital", "job", "relation", "race"),
    *("sex", "gain", "loss", "hours", "country", "income"),
]
ADULT = f"""SELECT row_number() OVER () AS key, * EXCLUDE income,
    CAST(income LIKE '%>50K%' AS INT) AS one
    FROM read_csv('{DATA}/adult/adult.data.gz', header = false, names = {NAMES}, nullstr = ' ?')"""
UCI = f"""SELECT id AS key, * EXCLUDE (id, "default.payment.next.month"),
    "default.payment.next.month" AS one
    FROM '{DATA}/uci_credit_default/UCI_Credit_Card.csv'"""
SBA = f"""SELECT loan_id AS key, a.* EXCLUDE (loan_id, event_timestamp), charged_off AS one
    FROM '{DATA}/sba_loans/applications.parquet' a
    JOIN '{DATA}/sba_loans/outcomes.parquet' o USING (loan_id)"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA / "hotel_bookings").is_dir(),
    reason=f"the sets are not in {DATA}; set EVERGREEN_DATA_DIR",
)
@pytest.mark.parametrize(
    ("query", "drop", "refused"),
    [
        (ADULT, "", []),
        (BANK, "", ["duration"]),
        (BANK, ", duration", []),
        (HOTEL, "", ["assigned_room_type"]),
        (UCI, "", []),
        (SBA, "", ["term"]),
    ],
    ids=["adult", "bank", "bank without duration", "hotel", "uci", "sba"],
)
def test_real_sets(query: str, drop: str, refused: list[str]) -> None:
    assert [one.columns[0] for one in real(query, drop).refusals] == refused
