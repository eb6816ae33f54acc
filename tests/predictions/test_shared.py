"""Segments that nodes of other machines have shipped: to a folder, and to an object store."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.config.use_case_file import parse
from include.errors import SourceError
from include.lake.tables import Lake
from include.predictions.import_segments import Imported, import_closed
from include.predictions.log import closed_segments, folder
from include.predictions.retention import tidy
from include.predictions.shared import SharedPlace
from include.predictions.shipping import ship
from include.records.records import Records, RoleReport
from tests.builders.logged import DAY, write_segment
from tests.builders.serving import NAME, YAML


@pytest.fixture(params=["folder", "store"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of its own: `memory` is a store without folders, of this process."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    return f"memory://{uuid.uuid4().hex}/segments"


class Importer:
    """The machine that imports; the node's home is another one."""

    def __init__(self, home: Path, uri: str) -> None:
        self.settings = Settings(home=home, segments_uri=uri)
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)

    def load(self) -> Imported:
        return import_closed(
            self.settings, self.lake, self.records, NAME, at=DAY, actor="test", wait=0.0
        )

    def asked(self) -> list[str]:
        return sorted(self.lake.read(f"{NAME}/predictions").column("request_id").to_pylist())


def test_what_a_node_ships_is_imported_elsewhere_once(tmp_path: Path, uri: str) -> None:
    node, importer = tmp_path / "node", Importer(tmp_path / "importer", uri)
    assert f"no node has shipped to {uri}" in importer.load().not_begun
    assert ship(node, uri) == 0
    assert importer.load() == Imported(), "who ships has begun, though nothing was closed"
    write_segment(node, 1, 2, use_case=NAME)
    (segment,) = closed_segments(node, NAME)
    content = segment.read()
    write_segment(node, 3, use_case="cards")
    assert ship(node, uri) == 2
    assert (closed_segments(node, NAME), ship(node, uri)) == ([], 0)
    write_segment(importer.settings.home, 4, use_case=NAME)
    assert importer.load() == Imported(lines=3, segments=2)
    assert SharedPlace(uri).segments(NAME) == []
    segment.path.write_bytes(content)  # killed between the upload and the removal
    assert ship(node, uri) == 1
    assert importer.load() == Imported(lines=0, segments=1)
    assert importer.asked() == ["r1", "r2", "r4"]
    assert [one.name for one in SharedPlace(uri).segments("cards")] != []


def test_what_cannot_be_read_is_set_aside_over_there_and_expires(tmp_path: Path, uri: str) -> None:
    node, importer = tmp_path / "node", Importer(tmp_path / "importer", uri)
    write_segment(node, 1, use_case=NAME)
    (segment,) = closed_segments(node, NAME)
    with segment.path.open("ab") as file:
        file.write(b"no line\n")
    ship(node, uri)
    assert importer.load() == Imported(lines=1, set_aside=1, segments=1)
    (aside,) = SharedPlace(uri).set_aside(NAME)
    assert aside.endswith(f"{segment.name}.1.bad")
    assert SharedPlace(uri).ask("cat_file", aside) == b"no line\n"
    text = YAML.format(
        name=NAME, last="2026-03-31", unknown="refuse", stale="refuse", store="refuse"
    )
    done = tidy(
        importer.settings,
        importer.lake,
        importer.records,
        parse(text),
        at=DAY + timedelta(days=4000),
        actor="test",
    )
    assert done.set_aside == [f"{segment.name}.1.bad"]
    assert SharedPlace(uri).set_aside(NAME) == []


def test_a_place_that_is_away_keeps_nothing_back_that_is_here(tmp_path: Path) -> None:
    place = tmp_path / "shared"
    importer = Importer(tmp_path / "importer", str(place))
    write_segment(importer.settings.home, 1, use_case=NAME)
    place.write_text("a file where the mount should be")
    with pytest.raises(SourceError, match="shipped segments cannot be listed"):
        importer.load()
    assert importer.asked() == ["r1"]


def test_what_cannot_be_shipped_stays(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, use_case=NAME)
    place = tmp_path / "shared"
    place.write_text("a file where the mount should be")
    with pytest.raises(OSError, match="shared"):
        ship(tmp_path, str(place))
    assert len(closed_segments(tmp_path, NAME)) == 1
    assert list(folder(tmp_path, NAME).iterdir()) != []


def test_a_place_that_nodes_do_not_ship_to_is_no_quiet_one(tmp_path: Path, uri: str) -> None:
    importer = Importer(tmp_path / "importer", uri)
    write_segment(importer.settings.home, 1, use_case=NAME)
    first = importer.load()
    assert (first.lines, "EVERGREEN_SEGMENTS_URI" in first.not_begun) == (1, True)
    assert importer.load().not_begun == first.not_begun, "as long as no node was ever seen"
    report = RoleReport("champion", 1, "sha256:1", "serving")
    importer.records.nodes.report(NAME, "host-7:8000", "boot", generation=1, roles=[report])
    write_segment(importer.settings.home, 2, use_case=NAME)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"host-7:8000 served it .*EVERGREEN_SEGMENTS_URI"):
            importer.load()
    assert importer.asked() == ["r1", "r2"], "what is here is kept back by nothing"
    ship(tmp_path / "node", uri)
    assert importer.load() == Imported()


def test_segments_of_a_node_of_before_tell_that_it_ships(tmp_path: Path, uri: str) -> None:
    write_segment(tmp_path, 1, use_case=NAME)
    (segment,) = closed_segments(tmp_path, NAME)
    SharedPlace(uri).write(NAME, segment.path.name, segment.read())
    assert SharedPlace(uri).has_begun(NAME)
    assert not SharedPlace(uri).has_begun("cards")
