"""A rerun of ingestion is answered from the record only where sources, code, use case and lake
are as recorded.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.errors import RestatementRefused, SourceError
from include.pipeline import memo, runner
from tests.builders.installation import Installation, small_repayment
from tests.builders.intake import GOOD, HEAD, Intake

DAY = "2026-01-01"
MORE = "9,9,2026-01-09T00:00:00Z,2026-01-09T00:00:00Z,9,1\n"
LATE = "8,8,2026-01-01T12:00:00Z,2026-01-01T12:00:00Z,8,1\n"
ASSUMED = "arrival: event + 0s\n    event_time: created_timestamp\n    late: next"


@pytest.fixture
def made(tmp_path: Path) -> Intake:
    intake = Intake(tmp_path)
    intake.put(HEAD + GOOD)
    intake.ingest()
    return intake


def test_an_unchanged_day_is_answered_from_the_record_and_writes_nothing(made: Intake) -> None:
    before, versions = made.result("ingest_data", DAY), made.versions()
    os.utime(made.folder / "orders.csv", (0, 0))
    again = made.ingest()
    assert (again.reused, again.digest, again.outputs) == (True, before.digest, before.outputs)
    assert (made.result("ingest_data", DAY), made.versions()) == (before, versions)


def test_a_changed_file_is_seen_although_its_size_and_time_are_the_same(made: Intake) -> None:
    made.define(more="late: refuse")
    made.ingest()
    path = made.folder / "orders.csv"
    then = path.stat()
    made.put(HEAD + GOOD.replace(",10,1", ",11,1"))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    with pytest.raises(RestatementRefused, match="amount=11"):
        made.ingest()
    made.put(HEAD + GOOD)
    assert made.ingest().reused


def test_a_file_that_grew_by_other_days_is_compared_once(made: Intake) -> None:
    first = made.result("ingest_data", DAY)
    made.put(HEAD + GOOD + MORE)
    compared, again = made.ingest(), made.ingest()
    assert (compared.reused, compared.digest) == (False, first.digest)
    assert (again.reused, again.digest) == (True, first.digest)


def test_an_added_and_a_removed_file_are_seen(tmp_path: Path) -> None:
    made = Intake(tmp_path, path="orders/*.csv", more="late: refuse")
    made.put(HEAD + GOOD, "orders/a.csv")
    made.ingest()
    more = made.put(HEAD + LATE, "orders/b.csv")
    with pytest.raises(RestatementRefused, match="order_id=8"):
        made.ingest()
    more.unlink()
    assert made.ingest().reused
    (made.folder / "orders" / "a.csv").unlink()
    with pytest.raises(SourceError, match="matches no file"):
        made.ingest()


def test_a_partitions_own_file_that_is_gone_is_seen(tmp_path: Path) -> None:
    made = Intake(tmp_path, path="{partition}.csv", more="empty: allow")
    path = made.put(HEAD + GOOD, f"{DAY}.csv")
    made.ingest()
    assert made.ingest().reused
    path.unlink()
    with pytest.raises(RestatementRefused):
        made.ingest()


def test_late_rows_are_taken_by_the_next_day_whatever_the_closed_ones_answer(
    tmp_path: Path,
) -> None:
    made = Intake(tmp_path, more=ASSUMED)
    made.put(HEAD + GOOD)
    first = made.ingest()
    made.put(HEAD + GOOD + LATE)
    second = made.ingest("2026-01-02")
    assert second.outputs["sources"]["orders"]["late"] == 1
    closed = [made.ingest(key) for key in (DAY, "2026-01-02")]
    assert [report.reused for report in closed] == [False, True]
    assert [report.digest for report in closed] == [first.digest, second.digest]
    assert [made.ingest(key).reused for key in (DAY, "2026-01-02")] == [True, True]
    assert made.ingest("2026-01-03").outputs["sources"]["orders"]["late"] == 0


def test_late_rows_that_are_refused_are_refused_every_time(tmp_path: Path) -> None:
    made = Intake(tmp_path, more=ASSUMED.replace("next", "refuse"))
    made.put(HEAD + GOOD)
    made.ingest()
    made.put(HEAD + GOOD + LATE)
    for _ in range(2):
        with pytest.raises(RestatementRefused):
            made.ingest()
        with pytest.raises(SourceError, match="order_id=8"):
            made.ingest("2026-01-02")


def test_another_contract_compares_the_rows(made: Intake) -> None:
    made.define(more="date_means: end_of_day")
    assert [made.ingest().reused, made.ingest().reused] == [False, True]


def test_a_changed_reader_compares_the_rows(
    made: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(
        ROOT / "include", tree / "include", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(memo, "ROOT", tree)
    assert made.ingest().reused, "the same code elsewhere"
    reader = tree / "include" / "ingestion" / "sources.py"
    reader.write_text(reader.read_text() + "\nEDITED = True\n")
    assert [made.ingest().reused, made.ingest().reused] == [False, True]


def test_a_partition_that_the_lake_lost_is_written_again(made: Intake) -> None:
    kept = made.raw(DAY)
    made.lake.replace("shop/raw/orders", DAY, made.lake.read("shop/raw/orders", keys=[]))
    assert not made.ingest().reused
    assert made.raw(DAY) == kept
    assert made.ingest().reused


def test_a_blocked_day_is_looked_at_again(made: Intake) -> None:
    assert made.ingest("2026-01-09").state == "blocked"
    assert not made.ingest("2026-01-09").reused
    made.put(HEAD + GOOD + MORE)
    assert made.ingest("2026-01-09").state == "done"


def test_a_static_source_is_compared_by_the_days_that_do_not_know_it_yet(tmp_path: Path) -> None:
    made = Intake(tmp_path)
    people = (
        "  people:\n    kind: static\n    path: people.csv\n    valid_from: 2025-12-01\n    "
        "key: [customer_id]\n"
    )
    people += "    columns: {customer_id: {type: int64}, town: {type: string}}\nlabel:"
    path = made.folder / "shop.yaml"
    path.write_text(path.read_text().replace("label:", people, 1))
    made.put(HEAD + GOOD)
    made.put("customer_id,town\n1,Rome\n", "people.csv")
    made.ingest()
    made.put("customer_id,town\n1,Oslo\n", "people.csv")
    assert made.ingest().reused, "a recorded day keeps the version that it knew"
    assert made.ingest("2026-01-02").outputs["sources"]["people"]["version"] == "2026-01-02"
    assert made.ingest("2026-01-02").reused
    made.lake.replace("shop/raw/people", "2026-01-02", made.lake.read("shop/raw/people", keys=[]))
    assert not made.ingest("2026-01-02").reused
    assert [row["town"] for row in made.raw("2026-01-02", "people")] == ["Oslo"]


def test_a_simulated_day_is_answered_from_the_record_unless_what_it_follows_from_changes(
    tmp_path: Path,
) -> None:
    small_repayment(tmp_path / "usecases", 50)
    made = Installation(tmp_path)
    first = made.run("ingest_data", DAY)
    again = made.run("ingest_data", DAY)
    assert (again.reused, again.outputs) == (True, first.outputs)
    other = made.settings.model_copy(update={"seed": made.settings.seed + 1})
    with pytest.raises(RestatementRefused):
        runner.run("ingest_data", "repayment", DAY, settings=other)


def test_rows_of_a_database_are_compared_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Intake(tmp_path)
    path = made.folder / "shop.yaml"
    text = path.read_text().replace(
        'path: "orders.csv"', "sql: {url_env: SHOP_DB, query: SELECT * FROM orders}"
    )
    path.write_text(text)
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path / 'shop.sqlite'}")
    with sqlite3.connect(tmp_path / "shop.sqlite") as con:
        con.execute(f"CREATE TABLE orders ({HEAD.strip()})")
        con.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)",
            [line.split(",") for line in GOOD.splitlines()],
        )
    first, again = made.ingest(), made.ingest()
    assert (again.reused, again.digest) == (False, first.digest)
    with sqlite3.connect(tmp_path / "shop.sqlite") as con:
        con.execute("UPDATE orders SET amount = '11' WHERE order_id = '1'")
    waiting = made.ingest().outputs["sources"]["orders"]["waiting"]
    assert (waiting["rows"], waiting["corrections"], "amount=11" in waiting["sample"][0]) == (
        1,
        1,
        True,
    )
    with sqlite3.connect(tmp_path / "shop.sqlite") as con:
        con.execute("DELETE FROM orders WHERE order_id = '1'")
    with pytest.raises(RestatementRefused, match=r"-1 rows.*amount=10"):
        made.ingest()


def test_in_a_range_only_the_days_that_changed_are_compared(tmp_path: Path) -> None:
    made = Intake(tmp_path, path="{partition}.csv")
    keys = made.keys(DAY, "2026-01-03")
    for number, key in enumerate(keys):
        made.put(HEAD + GOOD.splitlines(keepends=True)[number], f"{key}.csv")
    made.load(keys[0], keys[-1], ["ingest_data"])
    assert all(report.reused for report in made.load(keys[0], keys[-1], ["ingest_data"]))
    made.put(HEAD + GOOD.splitlines(keepends=True)[2], f"{keys[1]}.csv")
    with pytest.raises(RestatementRefused, match=keys[1]):
        made.load(keys[0], keys[-1], ["ingest_data"])
    assert made.ingest(keys[0]).reused
