"""A version of a static source is known from one partition on, whenever its file is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.errors import RestatementRefused, SourceError
from tests.builders import stored
from tests.builders.installation import Installation
from tests.builders.intake import HEAD, Intake
from tests.ingestion.test_arrival import DAYS, line

PEOPLE = """  people:
    kind: static
    path: people.csv
    valid_from: 2025-12-01
    key: [customer_id]
    columns: {customer_id: {type: int64}, town: {type: string}}
label:"""


class Town(Intake):
    """A shop with a static source of one customer, whose town changes."""

    def __init__(self, home: Path, more: str = "") -> None:
        super().__init__(home, more="empty: allow")
        path = self.folder / "shop.yaml"
        path.write_text(
            path.read_text().replace("label:", PEOPLE.replace("\nlabel:", f"{more}\nlabel:"), 1)
        )
        self.put(HEAD)

    def move(self, town: str) -> None:
        """Write the customer's town."""
        self.put(f"customer_id,town\n1,{town}\n", "people.csv")

    def towns(self, *keys: str) -> list[str]:
        """Return the town that each day knows."""
        known = [
            self.result("ingest_data", key).outputs["sources"]["people"]["version"] for key in keys
        ]
        return [self.raw(version, "people")[0]["town"] for version in known]


@pytest.mark.parametrize("how", ["forward", "backwards", "range"])
def test_a_static_version_is_known_from_the_day_that_was_newest_when_it_was_read(
    tmp_path: Path, how: str
) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.ingest(DAYS[0])
    made.move("Oslo")
    gap, night = DAYS[1:], made.night(DAYS[3])
    if how == "range":
        made.load(gap[0], gap[-1], ["ingest_data"], started=night)
    for key in gap if how == "forward" else gap[::-1] if how == "backwards" else []:
        made.ingest(key, at=night)
    assert made.towns(*DAYS) == ["Rome", "Rome", "Rome", "Oslo"]
    facts = [made.result("ingest_data", key).outputs["sources"]["people"] for key in DAYS]
    assert [fact["observed"] for fact in facts] == [made.night(DAYS[0]).isoformat()] * 3 + [
        night.isoformat()
    ]
    (made.folder / "people.csv").unlink()
    assert [made.ingest(key, at=night).digest for key in DAYS] == [
        made.result("ingest_data", key).digest for key in DAYS
    ]
    rows = made.lake.read("shop/raw/people").to_pylist()
    assert {(row["town"], row["arrived_at"].isoformat()[:10]) for row in rows} == {
        ("Rome", "2025-12-01"),
        ("Oslo", "2026-01-04"),
    }


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backwards"])
def test_a_static_version_that_is_read_long_after_as_of_is_known_from_the_next_day(
    tmp_path: Path, order: int
) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.ingest(DAYS[0])
    made.move("Oslo")
    report = made.ingest(DAYS[1], at=made.night(DAYS[1], timedelta(hours=6, minutes=1)))
    assert report.outputs["sources"]["people"]["pending"]["version"] == DAYS[2]
    # read for the first time by the newest day: the day before knows what was pending.
    made.move("Lima")
    for key in DAYS[2:][::order]:
        made.ingest(key, at=made.night(DAYS[3], timedelta(hours=6)))
    assert made.towns(*DAYS) == ["Rome", "Rome", "Oslo", "Lima"]
    assert made.ingest(DAYS[1], at=made.night(DAYS[3])).digest == report.digest


def test_days_that_are_not_the_newest_read_no_static_file(tmp_path: Path) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.ingest(DAYS[2])
    (made.folder / "people.csv").unlink()
    for key in DAYS[:2]:
        made.ingest(key, at=made.night(DAYS[2]))
    assert made.towns(*DAYS[:3]) == ["Rome", "Rome", "Rome"]
    with pytest.raises(SourceError, match="matches no file"):
        made.ingest(DAYS[3])


@pytest.mark.slow
def test_days_give_equal_digests_in_every_order_and_again(tmp_path: Path) -> None:
    """A static source that changes, a broken line and late rows at once, the same deliveries
    replayed.
    """
    found = []
    for how in ("forward", "backwards", "range"):
        made = Town(tmp_path / how)
        made.move("Rome")
        made.put(HEAD + line(1, "01 10:00"))
        made.ingest(DAYS[0])
        made.move("Oslo")
        rest = line(2, "02 10:00") + "BROKEN\n" + line(3, "03 10:00") + line(4, "04 10:00")
        made.put(HEAD + line(1, "01 10:00", "7") + line(9, "01 23:59") + rest)
        night = made.night(DAYS[3])
        if how == "range":
            made.load(DAYS[1], DAYS[3], ["ingest_data"], started=night)
        for key in DAYS[1:] if how == "forward" else DAYS[:0:-1] if how == "backwards" else []:
            made.ingest(key, at=night)
        found.append(([made.result("ingest_data", key).digest for key in DAYS], made.digests()))
        again = [made.ingest(key, at=night).digest for key in DAYS]
        assert (again, made.digests()) == found[-1]
        assert made.towns(*DAYS) == ["Rome", "Rome", "Rome", "Oslo"]
        assert [len(made.raw(key)) for key in DAYS] == [1, 2, 1, 3]
    assert found[0] == found[1] == found[2]


STATIC = """
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  people:
    kind: static
    path: people.csv
    valid_from: 2025-12-01
    key: [customer_id]
    columns: {customer_id: {type: int64}, town: {type: string}}
label: {source: people, column: customer_id, delay: 1d}
features:
  home: {sql: SELECT * FROM people, columns: {town: string}}
"""


def test_a_static_sources_versions_are_known_from_the_partition_that_first_read_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "usecases"
    folder.mkdir()
    (folder / "shop.yaml").write_text(STATIC)
    made = Installation(tmp_path, "shop")

    now = [night("2026-01-03")]

    def take(key: str, town: str) -> dict[str, Any]:
        now[0] = max(now[0], night(key))
        (folder / "people.csv").write_text(f"customer_id,town\n1,{town}\n")
        fact: dict[str, Any] = made.run("ingest_data", key, started=now[0]).outputs["sources"][
            "people"
        ]
        return fact

    first = take("2026-01-03", "Rome")
    assert first["version"] == "2026-01-01"
    assert take("2026-01-02", "Rome") == first
    # Older than what is ingested: it knows what was known to it.
    assert take("2026-01-01", "Oslo") == first
    assert take("2026-01-03", "Oslo") == first  # recorded
    second = take("2026-01-04", "Oslo")
    assert second["version"] == "2026-01-04"
    assert take("2026-01-05", "Oslo") == second
    assert take("2026-01-02", "Lima") == first
    rows = made.lake.read("shop/raw/people").to_pylist()
    assert {(row["town"], row["arrived_at"].isoformat()[:10]) for row in rows} == {
        ("Rome", "2025-12-01"),
        ("Oslo", "2026-01-04"),
    }


def night(key: str, hours: float = 0.1) -> datetime:
    """Return a moment after a day's `as_of`."""
    return datetime.fromisoformat(key).replace(tzinfo=UTC) + timedelta(days=1, hours=hours)


def restatable(home: Path) -> tuple[Installation, Path]:
    """Return an installation whose first version of a static source was wrong, and the source's
    file.
    """
    folder = home / "usecases"
    folder.mkdir(parents=True)
    (folder / "shop.yaml").write_text(STATIC)
    made, path = Installation(home, "shop"), folder / "people.csv"
    path.write_text("customer_id,town\n1,Rmoe\n")
    made.load("2026-01-01", "2026-01-03", ["ingest_data"])
    path.write_text("customer_id,town\n1,Oslo\n")
    made.run("ingest_data", "2026-01-04", started=night("2026-01-04"))
    return made, path


def test_a_wrong_static_version_is_restated_by_name_with_a_reason(tmp_path: Path) -> None:
    made, path = restatable(tmp_path)
    before = {key: made.result("ingest_data", key) for key in made.keys("2026-01-01", "2026-01-04")}
    path.write_text("customer_id,town\n1,Rome\n")

    def ingest(key: str, **options: Any) -> dict[str, Any]:
        fact: dict[str, Any] = made.run("ingest_data", key, options=options).outputs["sources"][
            "people"
        ]
        return fact

    # Not named.
    assert (
        ingest("2026-01-02", restate="other rows")
        == before["2026-01-02"].outputs["sources"]["people"]
    )
    with pytest.raises(
        RestatementRefused, match=r"town=Rome.*town=Rmoe.*--restate REASON --source people"
    ):
        ingest("2026-01-02", sources=["people"])
    assert made.records.audit.entries("shop", action="partition.restated") == []
    fact = ingest("2026-01-02", sources=["people"], restate="it was misspelt")
    assert (fact["version"], fact["restated"]) == ("2026-01-01", 1)
    rows = made.lake.read("shop/raw/people").to_pylist()
    assert {(row["town"], row["arrived_at"].isoformat()[:10]) for row in rows} == {
        ("Rome", "2025-12-01"),
        ("Oslo", "2026-01-04"),
    }
    (entry,) = made.records.audit.entries("shop", action="partition.restated")
    assert entry.details["reason"] == "it was misspelt"
    told = entry.details["sources"]["people"]
    assert (told["version"], told["stale"]) == ("2026-01-01", ["2026-01-01", "2026-01-03"])
    assert ingest("2026-01-02", sources=["people"]) == fact  # the same again changes nothing
    path.write_text("customer_id,town\n1,Oslo\n")
    assert [ingest(key) for key in ("2026-01-03", "2026-01-01")] == [fact, fact]
    assert ingest("2026-01-04") == before["2026-01-04"].outputs["sources"]["people"]
    assert ingest("2026-01-05")["version"] == "2026-01-04"


def test_what_knows_a_restated_static_version_is_stale_until_it_runs_again(tmp_path: Path) -> None:
    from include.pipeline.status import status_rows

    made, path = restatable(tmp_path)
    text = (tmp_path / "usecases" / "shop.yaml").read_text()
    text = text.replace(
        "source: people, column: customer_id",
        "sql: 'SELECT customer_id, CAST(NULL AS TIMESTAMPTZ) AS event_timestamp, CAST(NULL AS "
        "TIMESTAMPTZ) AS label_timestamp, 1 AS label FROM people WHERE false'",
    )
    (tmp_path / "usecases" / "shop.yaml").write_text(text)
    keys = made.keys("2026-01-01", "2026-01-04")
    made.load(keys[0], keys[-1], ["validate_data"])
    path.write_text("customer_id,town\n1,Rome\n")
    made.run(
        "ingest_data", "2026-01-02", options={"sources": ["people"], "restate": "it was misspelt"}
    )

    def stale() -> list[str]:
        return [row.key for row in status_rows(made.records, made.use_case) if row.kind == "stale"]

    assert stale() == keys[:3]
    path.write_text("customer_id,town\n1,Oslo\n")
    made.load(keys[2], keys[2], ["ingest_data", "validate_data"])
    assert stale() == keys[:2]
    assert {
        row["town"]
        for row in made.lake.read(
            stored.table(made.lake, "shop/curated/people"), keys=["2026-01-01"]
        ).to_pylist()
    } == {"Rome"}
    made.load(keys[0], keys[1], ["ingest_data", "validate_data"])
    assert stale() == []
    assert len({made.result("ingest_data", key).digest for key in keys[:3]}) == 1


def test_nothing_is_restated_of_a_partition_that_is_not_ingested(tmp_path: Path) -> None:
    made, _ = restatable(tmp_path)
    with pytest.raises(SourceError, match="knows no version of people to restate"):
        made.run("ingest_data", "2026-01-05", options={"sources": ["people"], "restate": "x"})


def test_a_lost_static_version_is_written_again_and_never_silently_replaced(tmp_path: Path) -> None:
    import shutil

    made, path = restatable(tmp_path)
    shutil.rmtree(Path(made.lake.root) / "shop")
    again = Installation(tmp_path, "shop")
    with pytest.raises(RestatementRefused, match="--source people"):
        again.run("ingest_data", "2026-01-02")
    path.write_text("customer_id,town\n1,Rmoe\n")
    assert (
        again.run("ingest_data", "2026-01-02").digest
        == made.result("ingest_data", "2026-01-01").digest
    )
    assert again.lake.read("shop/raw/people").column("town").to_pylist() == ["Rmoe"]
