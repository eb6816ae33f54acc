"""The table of predictions stays small: days compacted once, old ones gone from the disk too."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.config.use_case_file import parse
from include.lake.appended import AppendedTable
from include.lake.tables import Lake
from include.predictions.import_segments import import_closed, table_of
from include.predictions.log import folder
from include.predictions.retention import Tidied, tidy
from include.records.records import Records
from tests.builders.logged import DAY, write_segment
from tests.builders.serving import NAME, YAML

TABLE = f"{NAME}/predictions"
CASE = parse(
    YAML.format(name=NAME, last="2026-03-31", unknown="refuse", stale="refuse", store="refuse")
    + "log: {retention: 30d}\n"
)


class Place:
    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)

    def imported(self, *numbers: int, at: datetime = DAY) -> None:
        """Answer and import: a commit."""
        write_segment(self.settings.home, *numbers, use_case=NAME, at=at)
        import_closed(self.settings, self.lake, self.records, NAME, at=at, actor="test")

    def tidy(self, at: datetime) -> Tidied:
        return tidy(self.settings, self.lake, self.records, CASE, at=at, actor="test")

    def files(self) -> list[Path]:
        return sorted((self.settings.home / "lake" / TABLE).rglob("*.parquet"))

    def asked(self) -> list[str]:
        return sorted(self.lake.read(TABLE).column("request_id").to_pylist())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_day_is_compacted_once_when_it_is_over(place: Place) -> None:
    for number in range(3):
        place.imported(number)
    assert place.tidy(DAY + timedelta(hours=11)).compacted == []
    assert place.tidy(DAY.replace(day=11, hour=2)).compacted == [], "its last segments may come"
    version = place.lake.version(TABLE)
    assert place.tidy(DAY.replace(day=11, hour=3)).compacted == ["2026-03-10"]
    assert place.lake.version(TABLE) == (version or 0) + 1
    assert len(place.lake.files(TABLE)) == 1
    assert place.asked() == ["r0", "r1", "r2"]
    assert place.tidy(DAY.replace(day=11, hour=4)) == Tidied()
    assert place.lake.version(TABLE) == (version or 0) + 1
    place.imported(7)  # the segment of a machine that was away
    assert place.tidy(DAY.replace(day=12)).compacted == ["2026-03-10"]
    assert place.asked() == ["r0", "r1", "r2", "r7"]


def test_a_segment_is_recognised_after_its_day_was_compacted(place: Place) -> None:
    place.imported(1)
    write_segment(place.settings.home, 2, use_case=NAME)
    (segment,) = folder(place.settings.home, NAME).iterdir()
    content = segment.read_bytes()
    import_closed(place.settings, place.lake, place.records, NAME, at=DAY, actor="test")
    place.tidy(DAY + timedelta(days=2))
    segment.write_bytes(content)
    import_closed(place.settings, place.lake, place.records, NAME, at=DAY, actor="test")
    assert place.asked() == ["r1", "r2"]


def test_days_older_than_the_retention_are_removed_with_an_audit_row(place: Place) -> None:
    place.imported(1, 2)
    place.imported(3, at=DAY + timedelta(days=1))
    assert place.tidy(DAY + timedelta(days=30)).expired == {}
    assert place.tidy(DAY + timedelta(days=31)).expired == {"2026-03-10": 2}
    assert place.asked() == ["r3"]
    (entry,) = place.records.audit.entries(NAME, action="predictions.expired")
    assert (entry.details["rows"], entry.details["before"]) == (2, "2026-03-11")


def test_a_kill_leaves_nothing_removed_that_no_row_tells_of(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.imported(1, 2)
    bad = folder(place.settings.home, NAME)
    old = int(DAY.timestamp()) * 10**9
    (bad / f"{old:020d}-abc.1.bad").write_text("no line\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    later = DAY + timedelta(days=40)
    for last in (False, True):  # before the rows went, and after them
        name = "clean" if last else "expire"
        with monkeypatch.context() as patch:
            patch.setattr(AppendedTable, name, killed)
            with pytest.raises(KeyboardInterrupt):
                place.tidy(later)
    assert len(list(bad.glob("*.bad"))) == 1
    place.tidy(later)
    assert (place.asked(), list(bad.glob("*.bad"))) == ([], [])
    told = [entry.details for entry in place.records.audit.entries(NAME)]
    whole = {"before": "2026-03-20", "rows": 2, "days": 1, "set_aside": 1}
    assert told[0] == whole
    assert [each["set_aside"] for each in told] == [1, 1], "what was left when it was killed"


def test_removed_rows_leave_the_disk_once_nobody_can_be_reading_them(place: Place) -> None:
    place.imported(1)
    place.tidy(DAY + timedelta(days=40))
    assert len(place.files()) == 1
    table = table_of(place.lake, NAME)
    assert table.clean() == 0, "a reader may have it open"
    assert table.clean(hours=0) == 1
    assert place.files() == []
    version = place.lake.version(TABLE)
    assert table.clean(hours=0) == 0
    assert place.lake.version(TABLE) == version, "with nothing to do nothing is written"


def test_what_was_set_aside_goes_with_its_day(place: Place) -> None:
    logs = folder(place.settings.home, NAME)
    logs.mkdir(parents=True)
    old = int((DAY - timedelta(days=40)).timestamp()) * 10**9
    new = int(DAY.timestamp()) * 10**9
    for began in (old, new):
        (logs / f"{began:020d}-abc.1.bad").write_text("no line\n")
    (logs / "notes.bad").write_text("somebody's")
    assert place.tidy(DAY).set_aside == [f"{old:020d}-abc.1.bad"]
    assert len(list(logs.iterdir())) == 2


def test_no_value_of_a_row_stands_in_the_tables_log(place: Place) -> None:
    """The log outlives the rows: of the values only segments, lines and times are in it."""
    write_segment(
        place.settings.home, 1, use_case=NAME, entity="anna-4711", features=b'{"a":"secret-4711"}'
    )
    import_closed(place.settings, place.lake, place.records, NAME, at=DAY, actor="test")
    for path in (place.settings.home / "lake" / TABLE / "_delta_log").iterdir():
        # Words: a few digits may stand in a time or an id by chance.
        assert not re.search(b"anna|secret", path.read_bytes())


def test_a_table_of_a_version_before_gets_the_same_properties(place: Place) -> None:
    write_segment(place.settings.home, 1, use_case=NAME)
    import pyarrow as pa

    old = pa.table(
        {
            "segment": ["a"],
            "line": [0],
            "at": pa.array([DAY], pa.timestamp("us", "UTC")),
            "entity": ["anna-4711"],
        }
    )
    place.lake.replace(TABLE, "2026-03-10", old)
    place.tidy(DAY)
    write_segment(place.settings.home, 2, use_case=NAME, entity="berta-4712")
    import_closed(place.settings, place.lake, place.records, NAME, at=DAY, actor="test")
    log = place.settings.home / "lake" / TABLE / "_delta_log"
    newest = max(log.glob("*.json"))
    assert b"berta" not in newest.read_bytes()
    version = place.lake.version(TABLE)
    place.tidy(DAY)
    assert place.lake.version(TABLE) == version
