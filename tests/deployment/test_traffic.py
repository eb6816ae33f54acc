"""What the prediction log says of a use case's traffic, of segments that were really imported."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.deployment.traffic import count_traffic, last_rows
from include.lake.tables import Lake
from include.predictions.import_segments import import_closed
from include.records.records import Records
from tests.builders.logged import DAY, write_segment

NAME = "loans"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A log of ten days: ten requests a day, half of them of one entity."""
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    for back in range(10):
        at = DAY - timedelta(days=back, minutes=1)
        write_segment(tmp_path, *range(5), at=at, features=b'{"day":%d}' % back)
        write_segment(tmp_path, *[7] * 5, at=at, features=b'{"day":%d}' % back)
    write_segment(tmp_path, *range(40), at=DAY - timedelta(hours=1), outcome=b"shadow")
    lake = Lake(settings.lake_root)
    import_closed(settings, lake, records, NAME, at=DAY, actor="test")
    return lake


def test_the_traffic_of_seven_days_is_counted_by_day_and_entity(lake: Lake) -> None:
    traffic = count_traffic(lake, NAME, DAY)
    assert (traffic.requests, traffic.entities) == pytest.approx((10, 6), rel=0.01)
    assert "70 requests in the 7.0 days before 2026-03-10 12:00 UTC" in traffic.counted


def test_a_log_that_is_younger_than_that_is_counted_from_its_beginning(lake: Lake) -> None:
    early = DAY - timedelta(days=7)  # the log began two days before, and a minute
    assert count_traffic(lake, NAME, early).requests == pytest.approx(15, rel=0.01)
    at_once = count_traffic(lake, NAME, DAY - timedelta(days=9, seconds=50))
    assert (at_once.requests, at_once.days) == (10, 1), "at least a day: nothing is known of less"


def test_without_a_log_there_is_no_traffic(tmp_path: Path) -> None:
    traffic = count_traffic(Lake(str(tmp_path / "none")), NAME, DAY)
    assert (traffic.requests, traffic.entities) == (0, 0)
    assert last_rows(Lake(str(tmp_path / "none")), NAME, DAY, 10) == []


def test_the_rows_of_late_come_newest_first_without_shadows(lake: Lake) -> None:
    rows = last_rows(lake, NAME, DAY, 15)
    assert [row["day"] for row in rows] == [0] * 10 + [1] * 5


def test_a_request_that_was_repeated_is_counted_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    for seconds in (0, 1):
        at = DAY - timedelta(hours=1, seconds=-seconds)
        write_segment(tmp_path, *range(10), at=at, caller_id="one-of-the-balancer")
    lake = Lake(settings.lake_root)
    import_closed(settings, lake, records, NAME, at=DAY, actor="test")
    assert count_traffic(lake, NAME, DAY).requests == 10
    assert len(last_rows(lake, NAME, DAY, 100)) == 10
