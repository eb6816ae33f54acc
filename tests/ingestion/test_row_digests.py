"""Rows without an id: the same one however a table is cut or sorted, and whatever its outcome."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from include.config.use_case_file import parse
from include.ingestion.row_digests import with_row_digest
from include.onboarding.check import find_problems
from include.pipeline import ranges
from include.point_in_time.row_copies import LENGTH
from include.validation.redrive import plan_redrive
from tests.builders.intake import Intake

YAML = """name: shop
history: {{first: 2026-01-01, last: 2026-01-0{last}}}
entity: {{name: row, key: row_id, type: string}}
sources:
  orders:
    path: "{path}"
    {times}
    key: [row_id]
    max_bad: 0.5
    columns:
      row_id: {{type: string, digest: row}}
      amount: {{type: float64}}
      town: {{type: string}}
      paid: {{type: int64, values: ["0", "1"]}}
label: {{source: orders, column: {label}, label_time: event + 0s, delay: 0s}}
features:
  facts: {{grain: event, source: orders, columns: {{amount: float64, town: string}}}}
"""
SNAPSHOT = "snapshot: 2026-01-01"
TIMED = "event_time: at\n    arrival: event + 0s\n    late: next"
HEAD = "amount,town,paid\n"


class Shop(Intake):
    """A shop whose orders have no id; with `times` they have a moment."""

    def __init__(self, home: Path, times: str = SNAPSHOT, path: str = "*.csv") -> None:
        super().__init__(home)
        last = 1 if times == SNAPSHOT else 3
        (self.folder / "shop.yaml").write_text(
            YAML.format(times=times, path=path, last=last, label="paid")
        )

    def ids(self, key: str = "2026-01-01") -> list[tuple[str, str]]:
        return sorted((row["row_id"], row["town"]) for row in self.raw(key))


ROWS = ["1,a,0", "1,a,1", "1,a,0", "2,b,1", ",b,1", ',"",0', "12,,0", "1,2,0"]


def test_ids_are_the_digest_and_the_number_of_the_copy(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put(HEAD + "\n".join(ROWS) + "\n")
    assert shop.validate().state == "done"
    rows = {row["source_row"]: row["row_id"] for row in shop.raw("2026-01-01")}
    digests = [rows[place].split("-")[0] for place in sorted(rows)]
    assert [rows[place].split("-")[1] for place in (1, 2, 3, 4)] == ["1", "2", "3", "1"]
    assert {len(each) for each in digests} == {LENGTH}
    assert len(set(digests)) == 6  # the first three are one row but for the outcome
    assert len({row["row_id"] for row in shop.curated("2026-01-01")}) == len(ROWS)


def test_ids_are_the_same_however_the_table_is_cut_and_sorted(tmp_path: Path) -> None:
    one, cut = Shop(tmp_path / "one"), Shop(tmp_path / "cut")
    one.put(HEAD + "\n".join(ROWS) + "\n")
    head = "paid,town,amount\n"
    turned = [",".join(reversed(row.split(","))) for row in reversed(ROWS)]
    cut.put(head + "\n".join(turned[:3]) + "\n", "a.csv")
    cut.put(head + "\n".join(turned[3:]) + "\n", "b.csv")
    for shop in (one, cut):
        assert shop.ingest().state == "done"
    assert one.ids() == cut.ids()


def test_the_outcome_and_a_column_without_a_value_change_no_id() -> None:
    use_case = parse(YAML.format(times=SNAPSHOT, path="x.csv", last=1, label="paid"))

    def ids(**cells: list[str | None]) -> list[str]:
        rows = pa.table({name: pa.array(texts, pa.string()) for name, texts in cells.items()})
        made: list[str] = with_row_digest(rows, "row_id", use_case, "orders")["row_id"].to_pylist()
        return made

    base = ids(amount=["1"], town=["a"], paid=["0"])
    assert base == ids(amount=["1"], town=["a"], paid=[None], new=[None])
    assert base != ids(amount=["1"], town=["a"], paid=["0"], new=[""])
    # No cell runs into another, and none is not an empty one.
    assert ids(amount=["1"], town=["2"]) != ids(amount=["12"], town=[""])
    assert ids(amount=["1"], town=[None]) != ids(amount=["1"], town=[""])
    assert ids(amount=["1;town:1:2"], town=[None]) != ids(amount=["1"], town=["2"])


def test_the_parts_of_a_computed_outcome_do_not_count() -> None:
    text = YAML.format(times=SNAPSHOT, path="x.csv", last=1, label="late")
    text = text.replace(
        '      paid: {type: int64, values: ["0", "1"]}',
        "      paid: {type: int64}\n      late: {type: bool, sql: paid > 0}",
    )
    use_case = parse(text)
    assert list(find_problems(use_case)) == []
    rows = pa.table({"amount": ["1", "1"], "town": ["a", "a"], "paid": ["0", "1"]})
    made = with_row_digest(rows, "row_id", use_case, "orders")["row_id"].to_pylist()
    assert [each[-2:] for each in made] == ["-1", "-2"]
    assert made[0][:-2] == made[1][:-2]


def test_a_changed_outcome_is_a_correction_of_its_own_copy(tmp_path: Path) -> None:
    shop = Shop(tmp_path, times=TIMED)
    path = shop.folder / "shop.yaml"
    path.write_text(
        path.read_text().replace("      amount:", "      at: {type: timestamp}\n      amount:")
    )
    head, day = "at,amount,town,paid\n", "2026-01-01T10:00:00Z"
    first = [f"{day},1,a,1", f"{day},1,a,", f"{day},2,b,0"]
    shop.put(head + "\n".join(first) + "\n")
    assert shop.validate("2026-01-01").state == "done"
    first[1] = f"{day},1,a,1"
    shop.put(head + "\n".join([*first, "2026-01-02T10:00:00Z,3,c,0"]) + "\n")
    assert shop.validate("2026-01-02").state == "done"
    fact = shop.result("ingest_data", "2026-01-02").outputs["sources"]["orders"]
    assert (fact["late"], fact["corrections"]) == (1, 1)
    (late,) = [row for row in shop.raw("2026-01-02") if row["town"] == "a"]
    assert late["row_id"].endswith("-2")
    # What was on record is still offered, or corrected.
    assert shop.ingest("2026-01-01").state == "done"


def test_a_range_and_a_rerun_give_the_same_ids(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put(HEAD + "\n".join(ROWS) + "\n")
    first = shop.ingest().digest
    before = shop.ids()
    (report,) = ranges.run_range(
        "ingest_data", "shop", ["2026-01-01"], settings=shop.settings, actor="test"
    )
    assert report.digest == first
    assert shop.ids() == before


def test_a_broken_line_has_no_id_and_gets_one_when_it_is_mended(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    path = shop.folder / "shop.yaml"
    path.write_text(path.read_text().replace("last: 2026-01-01", "last: 2026-01-02"))
    shop.put(HEAD + "1,a,0\n2,b,1,9,9\n3,c,x\n4,d,1\n")
    assert shop.validate().state == "done"
    assert shop.rules("2026-01-01") == {2: "malformed_row", 3: "paid: not_int64"}
    mended = {"amount": "2", "town": "b", "paid": "1"}
    plan = plan_redrive(
        shop.settings, shop.records, shop.use_case, rule="malformed_row", changes=mended
    )
    assert plan.rows[0].content["row_id"].endswith("-1")
    kept = next(row["row_id"] for row in shop.raw("2026-01-01") if row["source_row"] == 3)
    plan = plan_redrive(
        shop.settings,
        shop.records,
        shop.use_case,
        rule="paid: not_int64",
        changes={"paid": "0"},
    )
    assert plan.rows[0].content["row_id"] == kept


def test_rows_that_were_ingested_before_are_to_be_ingested_again(tmp_path: Path) -> None:
    made = Intake(tmp_path)
    made.put(
        "order_id,customer_id,event_timestamp,created_timestamp,amount,paid\n1,1,2026-01-01T10:00:00Z,2026-01-01T10:00:00Z,10,1\n"
    )
    made.ingest()
    path = made.folder / "shop.yaml"
    text = path.read_text().replace(
        "      order_id:", "      row_id: {type: string, digest: row}\n      order_id:"
    )
    path.write_text(text)
    report = made.run("validate_data", "2026-01-01")
    assert report.state == "blocked"
    assert "missing 'row_id' (in the stored rows" in report.reason
    assert "ingest them again" in report.reason


def test_a_foreign_header_stays_a_name(tmp_path: Path) -> None:
    """What nobody declared counts too, whatever its header would be as SQL."""
    shop = Shop(tmp_path)
    header = """it's "amount"' || (SELECT 1) || '"""
    use_case = parse((shop.folder / "shop.yaml").read_text(), where="shop", folder=shop.folder)
    ids = []
    for text in ("1", "1", "2"):
        rows = pa.table({header: [text], "town": ["a"], "source_file": ["f"], "source_row": [1]})
        made = with_row_digest(rows, "row_id", use_case, "orders")
        ids.append(made.column("row_id")[0].as_py())
    assert ids[0] == ids[1] != ids[2]
