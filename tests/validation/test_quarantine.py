"""Quarantined rows are listed, and corrected in a CSV that a spreadsheet may have opened."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError
from include.validation import quarantine
from include.validation.quarantine import _guarded
from tests.builders.intake import COLUMNS, HEAD, Intake
from tests.validation.till import DAYS, LOOSE, ROWS, Till


def test_a_listing_holds_the_first_rows_and_cuts_their_values(till: Till) -> None:
    """A quarantine of any size can be looked at: what is not shown is not read into memory."""
    long = "x" * 100_000
    extra = "".join(
        f"{n},1,2026-01-03T10:00:00Z,2026-01-03T10:00:00Z,{long},1\n" for n in range(10, 30)
    )
    till.put(HEAD + ROWS + extra)
    till.validate(DAYS[2])
    rows = quarantine.find_rows(till.settings, till.records, till.use_case, limit=5)
    assert [(row.partition, row.row) for row in rows] == [
        (DAYS[0], 2),
        (DAYS[0], 3),
        (DAYS[2], 8),
        (DAYS[2], 9),
        (DAYS[2], 10),
    ]
    assert max(len(value) for row in rows for value in row.values.values()) == quarantine.SHOWN
    counts = quarantine.count_rules(till.settings, till.use_case)
    assert counts == {"amount: above_max": 1, "amount: not_float64": 21}
    assert (
        len(
            quarantine.find_rows(
                till.settings, till.records, till.use_case, rule="amount: above_max"
            )
        )
        == 1
    )


def test_a_csv_is_corrected_by_hand_and_read_back(till: Till, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    rows = quarantine.find_rows(till.settings, till.records, till.use_case)
    assert quarantine.export_csv(rows, till.use_case, path) == 2
    lines = list(csv.DictReader(path.open()))
    assert [(line["source_row"], line["rule"], line["amount"], line["paid"]) for line in lines] == [
        ("2", "amount: not_float64", "oops", "0"),
        ("3", "amount: above_max", "300", "1"),
    ]
    lines[0]["amount"] = "22.5"
    write(path, lines[:1])
    plan = till.redrive(file=path)
    assert (plan.corrected, plan.counts()) == (1, [(DAYS[0], "orders", 1)])
    rows = quarantine.find_rows(till.settings, till.records, till.use_case)
    assert [row.into for row in rows] == [DAYS[2], None]
    assert quarantine.export_csv(rows, till.use_case, tmp_path / "rest.csv") == 1
    with pytest.raises(
        ConfigError, match=f"row 2 of orders.csv .* is redriven already, into {DAYS[2]}"
    ):
        till.plan(file=path)
    till.validate(DAYS[2])
    assert {row["order_id"]: row["amount"] for row in till.curated(DAYS[2])} == {5: 50.0, 2: 22.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source_row": "9"}, "line 2: no quarantined row .*source_row=9"),
        ({"source_row": "x"}, "line 2: no quarantined row"),
        ({"note": "hi"}, "declares no column 'note'"),
        ({"rule": None}, "would fail again"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_by_its_line(
    till: Till, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    path = tmp_path / "bad.csv"
    quarantine.export_csv(
        quarantine.find_rows(till.settings, till.records, till.use_case), till.use_case, path
    )
    lines = [line | change for line in csv.DictReader(path.open())][:1]
    write(path, lines)
    with pytest.raises(ConfigError, match=said):
        till.plan(file=path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'partition,"source\n'])
def test_what_is_no_csv_of_the_quarantine_is_refused(
    till: Till, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.csv: (the columns|cannot be read)"):
        till.plan(file=path)


@pytest.mark.slow
def test_a_cell_that_looks_like_a_formula_is_guarded_and_comes_back_as_it_was(
    tmp_path: Path,
) -> None:
    values = ["=1+1", "+3", "-5.5", "@x", "'quoted", "''", "\ttab", "plain"]
    made = Intake(tmp_path, more=LOOSE, columns=COLUMNS + "\n      note: {type: string}")
    body = "".join(
        f'{n},1,2026-01-01,2026-01-01,x,1,"{value}"\n' for n, value in enumerate(values, start=1)
    )
    made.put(HEAD.strip() + ",note\n" + body)
    made.validate()
    path = tmp_path / "bad.csv"
    rows = quarantine.find_rows(made.settings, made.records, made.use_case)
    quarantine.export_csv(rows, made.use_case, path)
    lines = list(csv.DictReader(path.open(newline="")))
    assert [line["note"] for line in lines] == [
        "'=1+1",
        "+3",
        "-5.5",
        "'@x",
        "''quoted",
        "'''",
        "'\ttab",
        "plain",
    ]
    write(path, [line | {"amount": "1", "note": line["note"]} for line in lines])
    back = quarantine.read_corrections(path, {row.place: row for row in rows}, made.use_case)
    assert [given["note"] for given in back.values()] == values
    lines[-1]["note"], lines[-2]["note"] = "'=new", ""
    write(path, lines)
    back = quarantine.read_corrections(path, {row.place: row for row in rows}, made.use_case)
    assert [given.get("note") for given in back.values()][-2:] == [None, "=new"]


def test_a_guard_against_formulas_leaves_plain_numbers() -> None:
    for plain in ("-5", "+49 30 1234567", "-1 000.50", "1e5", "-1e5", "text"):
        assert _guarded(plain) == plain
    for formula in ("=1+1", "+1+cmd", "-2+3", "@SUM(1)", "+49(30)", "'x"):
        assert _guarded(formula) == f"'{formula}"


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]))
        out.writeheader()
        out.writerows(lines)
