"""Segments into the lake: once each, by the day of the answer, whatever a crash left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from include.config.settings import Settings
from include.errors import Busy
from include.lake.tables import Lake
from include.predictions import import_segments
from include.predictions.import_segments import import_closed
from include.predictions.log import PredictionLog, closed_segments
from include.records.records import Records
from tests.predictions.test_log import line

TABLE = "loans/predictions"


@dataclass
class Place:
    settings: Settings
    lake: Lake
    records: Records

    def answer(self, *numbers: int, day: str = "2026-03-10") -> None:
        """Write one closed segment."""
        log = PredictionLog(self.settings.home, "loans")
        for number in numbers:
            log.append(msgspec.structs.replace(line(number), at=f"{day}T00:00:00.000001+00:00"))
        log.close()

    def load(self, *, wait: float = 0.0) -> int:
        return import_closed(self.settings, self.lake, self.records, "loans", wait=wait)

    def asked(self, day: str = "2026-03-10") -> list[str]:
        return sorted(self.lake.read(TABLE, keys=[day]).column("request_id").to_pylist())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    return Place(settings, Lake(settings.lake_root), records)


def test_nothing_closed_is_nothing_imported(place: Place) -> None:
    assert place.load() == 0
    log = PredictionLog(place.settings.home, "loans")
    log.append(line(1))
    assert place.load() == 0  # the segment is open, and its writer lives
    log.close()
    assert place.load() == 1


def test_segments_are_imported_by_the_day_of_the_answer_and_removed(place: Place) -> None:
    place.answer(1, 2)
    place.answer(3, day="2026-03-11")
    assert place.load() == 3
    assert (place.asked(), place.asked("2026-03-11")) == (["r1", "r2"], ["r3"])
    assert closed_segments(place.settings.home, "loans") == []
    place.answer(4)
    assert place.load() == 1
    assert place.asked() == ["r1", "r2", "r4"]


def test_a_segment_that_a_crash_left_behind_is_not_doubled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.answer(1, 2)
    place.answer(3)
    with monkeypatch.context() as killed:
        killed.setattr(import_segments.prediction_log, "forget", lambda segments: None)
        assert place.load() == 3
    assert len(closed_segments(place.settings.home, "loans")) == 2
    assert place.load() == 3
    assert place.asked() == ["r1", "r2", "r3"]


def test_one_importer_at_a_time(place: Place) -> None:
    place.answer(1)
    with (
        place.records.leases.claim(
            "loans", "predictions", "import", owner="other", attempt=1, ttl=30
        ),
        pytest.raises(Busy),
    ):
        place.load()
    assert place.load() == 1
