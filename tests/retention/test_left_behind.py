"""What killed processes left in a home folder: found by its name, removed by its age."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.files import written_aside
from include.retention import left_behind
from include.retention.left_behind import (
    LEFT_SECONDS,
    SILENT_SECONDS,
    remove_left_behind,
    remove_where_unkept,
    sizes_file,
)
from tests.builders.serving import NAME, Desk, until
from tests.retention.place import LATER, Home

NOW = 1_800_000_000.0
HOUR = 3600.0


def write(path: Path, size: int, age_hours: float, now: float = NOW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (now - age_hours * HOUR,) * 2)
    return path


def test_what_killed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    kept = write(tmp_path / "models" / "loans" / "model.txt", 10, 100)
    hidden = write(tmp_path / "secrets" / ".profile.key", 10, 100)
    in_lake = write(tmp_path / "lake" / ".0123456789ab.part", 10, 100)
    with written_aside(tmp_path / "models" / "loans" / "schema.json") as temporary:
        named = temporary
        os.utime(temporary, (NOW, NOW))
        left = write(named.with_name(named.name.replace("schema", "other")), 10, 30)
        young = write(named.with_name(named.name.replace("schema", "young")), 10, 1)
        assert remove_left_behind(tmp_path, NOW) == 1
    staging = tmp_path / "bento" / "staging" / "loans-2026-03-01-1"
    write(staging / "build.log", 10, 30)
    os.utime(staging, (NOW - 30 * HOUR,) * 2)
    (tmp_path / "bento" / "staging" / "now").mkdir()
    os.utime(tmp_path / "bento" / "staging" / "now", (NOW, NOW))
    assert remove_left_behind(tmp_path, NOW) == 1
    assert not left.exists()
    assert not staging.exists()
    for path in (kept, hidden, in_lake, young, staging.parent / "now"):
        assert path.exists(), path


def test_the_nightly_collection_does_it_where_no_supervisor_does(home: Home) -> None:
    root, now = home.settings.home, LATER.timestamp()
    left = write(root / "reports" / ".0123456789ab.page.html", 10, 30, now)
    sizes = write(sizes_file(root), 2, 0, now)
    home.collect()
    assert left.exists(), "a supervisor keeps this home"
    os.utime(sizes, (now - SILENT_SECONDS,) * 2)
    home.collect(dry_run=True)
    assert left.exists()
    home.collect()
    assert not left.exists()


def test_the_nightly_collection_does_it_in_a_store_and_a_place_of_segments_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srv, home, now = tmp_path / "srv", Home(tmp_path / "home"), LATER.timestamp()
    home.settings = Settings(
        home=home.settings.home, store_uri=str(srv), lake_uri=str(srv / "lake")
    )
    assert home.settings.segments_root == str(srv / "segments")
    aside = ".0123456789ab.part"
    left = [
        write(srv / folder / aside, 10, 30, now)
        for folder in (f"segments/{NAME}", "segments", f"reports/{NAME}/2026-03-01")
    ]
    kept = [
        write(srv / f"segments/{NAME}/.ba9876543210.now", 10, 1, now),
        write(srv / f"segments/{NAME}/0001.jsonl.1.bad", 10, 30, now),
        write(srv / f"lake/{NAME}/predictions" / aside, 10, 30, now),
        write(srv / f"reports/{NAME}_two" / aside, 10, 30, now),
    ]
    write(sizes_file(home.settings.home), 2, 0, now)  # a supervisor keeps the home alone
    home.collect(dry_run=True)
    assert all(path.exists() for path in left)
    home.collect()
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in kept)
    monkeypatch.setattr(left_behind, "WALK_SECONDS", 0.0)
    more = [write(left[0].with_name(f".0123456789a{n}.part"), 1, 30, now) for n in range(3)]
    home.collect()
    assert sum(path.exists() for path in more) == 2, "the next night goes on"


def test_a_place_that_the_lake_shares_keeps_what_is_in_its_tables(tmp_path: Path) -> None:
    srv = str(tmp_path / "srv")
    settings = Settings(home=tmp_path / "home", segments_uri=srv, lake_uri=srv)
    in_lake = write(tmp_path / "srv" / NAME / "predictions" / ".0123456789ab.part", 1, 30)
    left_behind.remove_outside(settings, NAME, NOW)
    assert in_lake.exists()


def test_a_node_does_it_in_a_home_of_its_own(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    folder, now = tmp_path / "serving", time.time()
    left = [write(folder / f".0123456789a{n}.rows.json", 10, 30, now) for n in range(2)]
    staging = tmp_path / "bento" / "staging" / "from-store-1"
    staging.mkdir(parents=True)
    os.utime(staging, (now - LEFT_SECONDS - 1,) * 2)
    often = "from include.serving import upkeep; upkeep.LOOK_SECONDS = 0.1"
    with desk.node(often) as node:
        until(lambda: not any(path.exists() for path in left), what="that they are removed")
        until(lambda: not staging.exists(), what="that the unfinished Bento is removed")
        node.serves(1)
        assert node.get("/health").body["use_cases"][NAME]["problems"] == []


def test_a_home_that_cannot_be_read_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remove_where_unkept(tmp_path / "none", NOW)
    assert f"what killed processes left in {tmp_path / 'none'} is not removed" in caplog.text
