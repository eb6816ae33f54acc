"""The leak gate: every kind of finding on made-up rows, all at once, and what it says of real
sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.models import lightgbm_fitting as fitting
from include.models import matrix
from include.models.encoding import Feature, Schema, encode
from include.pipeline.outputs import Leaks
from include.training import carrier_leaks, leaks
from include.training.leak_findings import Findings
from tests.builders.judging import visits_frame, visits_use_case

DATA = Settings().data_dir
TYPES = {pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool", pa.string(): "string"}
Columns = dict[str, Any]


def case(table: pa.Table, training: str = "{}") -> UseCase:
    """Return a use case whose features are all columns but key and label."""
    kinds = {
        name: TYPES[table.schema.field(name).type]
        for name in table.column_names
        if name not in ("key", "label")
    }
    listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
    columns = ", ".join(f"{name}: {{type: {kind}}}" for name, kind in kinds.items())
    return parse(f"""name: rows
history: {{first: 2026-01-01}}
entity: {{name: thing, key: key}}
sources:
  rows: {{path: x.csv, key: [key, event_timestamp], columns: {{key: {{type: int64}},
      came: {{type: int64}}, {columns}}}}}
label: {{source: rows, column: came, delay: 2d}}
features:
  facts: {{grain: event, source: rows, columns: {{{listed}}}}}
training: {training}
""")


def made(
    change: Callable[[Columns, Any, Any], None] = lambda *_: None, rows: int = 3000
) -> pa.Table:
    """Return rows with ten honest features; `change` gets the columns, the outcomes and a
    generator.
    """
    generator = np.random.default_rng(5)
    values = generator.normal(size=(rows, 8))
    chance = 1 / (1 + np.exp(-values @ np.array([0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0])))
    labels = (generator.random(rows) < chance).astype(float)
    columns: Columns = {f"x{number}": values[:, number] for number in range(8)}
    columns["channel"] = np.array(["shop", "web", "phone"])[generator.integers(0, 3, rows)]
    columns["count"] = pa.array(generator.integers(0, 9, rows), pa.int64())
    change(columns, labels, generator)
    return pa.table({"key": pa.array(range(rows), pa.int64()), "label": labels, **columns})


def check(table: pa.Table, training: str = "{}") -> Findings:
    return leaks.check(table, case(table, training))


def put(name: str, make: Callable[[Any, Any], Any]) -> Callable[[Columns, Any, Any], None]:
    return lambda columns, labels, generator: columns.update({name: make(labels, generator)})


def some(labels: Any, generator: Any, share: float) -> Any:
    """Return which rows of outcome 1 are marked, so many of them."""
    return (labels == 1) & (generator.random(len(labels)) < share)


def closed(labels: Any, generator: Any) -> pa.Array:
    return pa.array(np.where(some(labels, generator, 0.3), 5.0, np.nan), from_pandas=True)


def lost(labels: Any, generator: Any) -> pa.Array:
    return pa.array(np.where(some(labels, generator, 0.3), np.nan, 5.0), from_pandas=True)


def recovered(labels: Any, generator: Any) -> Any:
    return np.where(some(labels, generator, 0.3), generator.random(len(labels)), 0.0)


def cut(labels: Any, generator: Any) -> Any:
    """Values all over the place, but between 40 and 60 for outcome 1 alone."""
    usual = generator.random(len(labels)) * 100
    usual = np.where((usual > 40) & (usual < 60), usual / 3, usual)
    return np.where(some(labels, generator, 0.25), 41 + 18 * generator.random(len(labels)), usual)


def status(labels: Any, generator: Any) -> Any:
    return np.where(
        some(labels, generator, 0.3),
        "settled",
        np.array(["a", "b"])[generator.integers(0, 2, len(labels))],
    )


@pytest.mark.parametrize(
    ("make", "kind", "evidence"),
    [
        (closed, "presence", "where it has a value, all"),
        (lost, "presence", "where it is empty, all"),
        (recovered, "presence", "where it is neither empty nor 0, all"),
        (cut, "pure", "where it lies in "),
        (status, "pure", "where it is 'settled', all"),
        (
            lambda labels, generator: labels + generator.normal(size=len(labels)) / 20,
            "alone",
            r"gates.max_feature_auc (0.98)",
        ),
    ],
    ids=["present", "missing", "not zero", "a range", "a category", "alone"],
)
def test_a_feature_that_tells_the_outcome_is_named_with_evidence_and_remedy(
    make: Callable[[Any, Any], Any], kind: str, evidence: str
) -> None:
    found = check(made(put("told", make)))
    (one,) = found.refusals
    assert (one.kind, one.columns) == (kind, ("told",))
    assert evidence in one.evidence
    assert "training: {exclude: [told]}" in one.remedy
    with pytest.raises(ConfigError, match="the outcome leaks through told"):
        found.refuse()


@pytest.mark.parametrize(
    "make",
    [closed, lost, recovered, cut, status],
    ids=["present", "missing", "not zero", "range", "text"],
)
def test_less_than_a_tenth_of_a_class_or_a_row_of_the_other_is_no_leak(
    make: Callable[[Any, Any], Any],
) -> None:
    def rarely(labels: Any, generator: Any) -> Any:
        marked = np.where(generator.random(len(labels)) < 0.25, labels, 0.0)
        return make(marked, generator)

    def not_always(labels: Any, generator: Any) -> Any:
        return make(np.where(generator.random(len(labels)) < 0.03, 1 - labels, labels), generator)

    for honest in (rarely, not_always):
        assert not check(made(put("told", honest))).refusals


def test_two_columns_of_one_set_of_values_are_compared() -> None:
    def rooms(columns: Columns, labels: Any, generator: Any) -> None:
        booked = np.array(list("ABCDEF"))[generator.integers(0, 6, len(labels))]
        moved = (labels == 0) & (generator.random(len(labels)) < 0.25)
        columns["booked"] = booked
        columns["given"] = np.where(moved, np.roll(booked, 1), booked)

    found = check(made(rooms))
    (one,) = found.refusals
    assert (one.kind, set(one.columns)) == ("pair", {"given", "booked"})
    assert "unequal" in one.evidence

    def counts(columns: Columns, labels: Any, generator: Any) -> None:
        busy = (labels == 1) | (generator.random(len(labels)) < 0.2)
        for name in ("calls", "promises"):
            columns[name] = pa.array(
                np.where(busy, generator.integers(0, 9, len(labels)), 0), pa.int64()
            )

    assert not [one for one in check(made(counts)).refusals if one.kind == "pair"]

    def unrelated(columns: Columns, labels: Any, generator: Any) -> None:
        for name in ("booked", "given"):
            columns[name] = np.array(list("ABCDEF"))[generator.integers(0, 6, len(labels))]

    assert {one.kind for one in check(made(unrelated)).found} <= {"carries"}


def test_a_feature_that_carries_the_model_is_refused_among_many_and_asked_of_among_few() -> None:
    def duration(labels: Any, generator: Any) -> Any:
        return 2.2 * labels + generator.normal(size=len(labels))

    rows = made(put("duration", duration))
    found = check(rows)
    (one,) = found.refusals
    assert (one.kind, one.columns) == ("carries", ("duration",))
    assert found.carriers[0] == "duration"
    assert found.gains["duration"] > carrier_leaks.REFUSAL
    few = check(rows.select(["key", "label", "x0", "x1", "duration"]))
    assert not few.refusals
    assert ("duration",) in [one.columns for one in few.questions if one.kind == "carries"]


def test_columns_of_noise_make_no_honest_feature_suspect() -> None:
    generator = np.random.default_rng(7)
    amount = generator.normal(size=1200)
    label = (generator.random(1200) < 1 / (1 + np.exp(-1.4 * amount))).astype(np.float64)
    noise = {f"n{number}": generator.integers(0, 100, 1200) for number in range(25)}
    found = check(
        pa.table({"key": np.arange(1200) % 150, "label": label, "amount": amount, **noise})
    )
    assert found.gains["amount"] > carrier_leaks.REFUSAL
    assert not found.refusals
    assert [one.columns for one in found.questions] == [("amount",)]


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


@pytest.mark.parametrize("rows", [400, 3000])
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


def test_a_feature_that_is_null_everywhere_is_named() -> None:
    empty = visits_frame(
        lambda columns: columns.update(region=pa.nulls(len(columns["label"]), pa.string()))
    )
    with pytest.raises(ConfigError, match=r"'region' of visits is null on all 1800 training rows"):
        leaks.check(empty, visits_use_case()).refuse()


@pytest.mark.parametrize(
    "leak",
    [
        lambda label, noise: label * 10 + noise,
        lambda label, noise: -label,
        lambda label, noise: [None if value else 1.0 for value in label],
        lambda label, noise: [
            float(50 * value + number // 2 % 2 * 100) for number, value in enumerate(label)
        ],
    ],
    ids=["high", "reversed", "missing", "up and down again"],
)
def test_a_feature_that_knows_the_outcome_is_named(leak: Callable[[Any, Any], Any]) -> None:
    noise = np.random.default_rng(1).normal(size=1800)
    leaking = visits_frame(
        lambda columns: columns.update(
            income=pa.array(list(leak(columns["label"], noise)), pa.float64())
        )
    )
    with pytest.raises(ConfigError, match=r"leaks through income \((0\.99|1\.00)"):
        leaks.check(leaking, visits_use_case()).refuse()
    text = visits_frame(
        lambda columns: columns.update(region=[f"outcome {value}" for value in columns["label"]])
    )
    with pytest.raises(ConfigError, match="leaks through region"):
        leaks.check(text, visits_use_case()).refuse()


@pytest.mark.parametrize(
    ("column", "make"),
    [
        ("visits", lambda keys: keys),
        ("visits", lambda keys: keys * 2 - 7),
        ("region", lambda keys: [f"client {key}" for key in keys]),
        ("region", lambda keys: [f"note {number}" for number in range(len(keys))]),
    ],
    ids=["the key", "a count of entities", "a name an entity", "free text"],
)
def test_ids_are_no_features(column: str, make: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigError, match=f"{column!r} of visits is an id"):
        leaks.check(
            visits_frame(lambda columns: columns.update({column: make(columns["customer_id"])})),
            visits_use_case(),
        ).refuse()


def test_honest_features_pass_the_leak_check() -> None:
    found = leaks.check(visits_frame(), visits_use_case())
    assert not found.refusals
    alone = found.feature_auc
    assert 0.6 < alone["income"] < 0.8
    assert 0.5 <= alone["region"] < 0.65


def test_a_text_with_many_values_that_say_nothing_is_no_leak() -> None:
    generator = np.random.default_rng(3)
    values = [f"r{number}" for number in generator.integers(0, 400, 1800)]
    many = visits_frame(lambda columns: columns.update(region=values))
    assert leaks.check(many, visits_use_case()).feature_auc["region"] < 0.6


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
