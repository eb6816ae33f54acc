"""A node that ships its segments: by a process of its own, every minute, and when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.clock import utc_now, wait_for
from include.config.settings import Settings
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.predictions.shared import SharedPlace
from include.records.records import AuditEntry, Records
from include.serving.shipper import SHIP_SECONDS, Shipper
from tests.builders.logged import write_segment
from tests.builders.serving import NAME, NOW, ROW, Desk


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_SEGMENTS_URI", str(tmp_path / "shared"))
    return tmp_path / "shared"


def test_a_process_is_started_where_something_is_closed_and_told_of_once(
    tmp_path: Path, place: Path
) -> None:
    home = tmp_path / "home"
    shipper, now = Shipper(home), 1000.0
    place.write_text("a file where the mount should be")
    assert shipper.turn(now)
    assert wait_for(lambda: not shipper.turn(now + 1) or None, seconds=60, every=0.1)
    assert shipper.turn(now + 2), "a failure is told once"
    write_segment(home, 1, use_case=NAME)
    place.unlink()
    assert shipper.turn(now + SHIP_SECONDS)
    assert wait_for(lambda: not closed_segments(home, NAME) or None, seconds=60, every=0.1)
    assert len(read(SharedPlace(str(place)).segments(NAME))) == 1
    shipper.ship_last()
    assert shipper.turn(now + 2 * SHIP_SECONDS)
    assert shipper._process is None, "nothing is closed, and it has begun"


def test_a_node_that_ends_leaves_nothing_behind(tmp_path: Path, place: Path) -> None:
    desk = Desk(tmp_path / "node")
    desk.publish({1: (NOW, ROW)})
    desk.candidate(1)
    desk.record_route(champion=1)
    with desk.node() as node:
        node.serves(1)
        asked = [node.predict(entity=1).body["request_id"] for _ in range(3)]
        assert node.stop() == 0
    assert closed_segments(desk.settings.home, NAME) == []
    rows = read(SharedPlace(str(place)).segments(NAME))
    assert rows.column("request_id").to_pylist() == asked


def test_the_process_asks_the_records_what_was_reset(tmp_path: Path, place: Path) -> None:
    home = tmp_path / "home"
    records = Records.open(Settings(home=home).records_address)
    write_segment(home, 1, use_case=NAME)
    records.migrate()
    records.audit.append(AuditEntry("use_case.reset", NAME, NAME, "test", {}, utc_now()))
    write_segment(home, 2, use_case="cards")
    assert Shipper(home).turn(1000.0)
    closed = home / "predictions"
    assert wait_for(lambda: not list(closed.glob("*/*.jsonl")), seconds=60, every=0.1)
    assert SharedPlace(str(place)).segments(NAME) == []
    assert len(SharedPlace(str(place)).segments("cards")) == 1
