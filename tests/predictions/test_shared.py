"""Segments that nodes of other machines have shipped: to a folder, and to an object store."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case_file import parse
from include.errors import SourceError
from include.lake.tables import Lake
from include.predictions import shipping
from include.predictions.import_segments import Imported, import_closed
from include.predictions.log import closed_segments, folder, name_of
from include.predictions.resets import SETTLE
from include.predictions.retention import tidy
from include.predictions.shared import SharedPlace
from include.predictions.shipping import TOLD, Shipped, ship
from include.records.records import AuditEntry, Records, RoleReport
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
    assert ship(node, uri) == Shipped(0, 0)
    assert importer.load() == Imported(), "who ships has begun, though nothing was closed"
    write_segment(node, 1, 2, use_case=NAME)
    (segment,) = closed_segments(node, NAME)
    content = segment.read()
    write_segment(node, 3, use_case="cards")
    assert ship(node, uri) == Shipped(2, 0)
    assert (closed_segments(node, NAME), ship(node, uri)) == ([], Shipped(0, 0))
    write_segment(importer.settings.home, 4, use_case=NAME)
    assert importer.load() == Imported(lines=3, segments=2)
    assert SharedPlace(uri).segments(NAME) == []
    segment.path.write_bytes(content)  # killed between the upload and the removal
    assert ship(node, uri) == Shipped(1, 0)
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


def test_what_cannot_be_read_or_written_keeps_no_other_segment_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, place = tmp_path / "home", tmp_path / "shared"
    for use_case in ("aaa", "cards", NAME):
        for number in range(5 if use_case == "aaa" else 1):
            write_segment(home, number, use_case=use_case)
    # The oldest of a use case, and so the first at each turn.
    unreadable = folder(home, "cards") / f"{name_of(1)}-00.jsonl"
    unreadable.mkdir()
    place.mkdir()
    (place / "aaa").write_text("what should be the folder of a use case")
    assert ship(home, str(place)) == Shipped(2, 6)
    assert (len(closed_segments(home, NAME)), len(closed_segments(home, "aaa"))) == (0, 5)
    assert [one.path for one in closed_segments(home, "cards")] == [unreadable]
    assert f"segment {unreadable} cannot be read: let user " in caplog.text
    assert caplog.text.count(f"cannot be written to {place}/aaa: mend its permissions") == TOLD
    assert "aaa: 2 more segments are left" in caplog.text
    here = Settings(home=home, segments_uri=str(place))
    monkeypatch.setattr(shipping, "settings", lambda: here)
    write_segment(home, 9, use_case="cards")
    assert shipping.main() == 1
    assert [one.path for one in closed_segments(home, "cards")] == [unreadable]
    unreadable.rmdir()
    (place / "aaa").unlink()
    assert shipping.main() == 0
    assert len(SharedPlace(str(place)).segments("aaa")) == 5


def test_a_use_case_that_is_refused_is_tried_again_behind_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def write(self: SharedPlace, use_case: str, name: str, content: bytes) -> None:
        tried.append(use_case)
        if use_case == "aaa":
            raise OSError("no answer")

    monkeypatch.setattr(SharedPlace, "write", write)
    for use_case in ("aaa", NAME):
        for number in range(3):
            write_segment(tmp_path, number, use_case=use_case)
    assert ship(tmp_path, str(tmp_path / "shared")) == Shipped(3, 3)
    assert tried == ["aaa", NAME, NAME, NAME, "aaa", "aaa"]


SECRET = "s3cret-key-of-the-store"
SIGNED = f"PUT https://a.blob/c/x?sv=1&sig=abc%3D was refused for {SECRET}"


@pytest.mark.parametrize("kind", [OSError, PermissionError, RuntimeError])
def test_what_a_store_says_is_told_without_credentials_and_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[Exception],
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def refuse(*_: object, **__: object) -> None:
        raise kind(SIGNED)

    uri = f"memory://{uuid.uuid4().hex}/segments"
    for question in ("ls", "info", "pipe_file"):
        monkeypatch.setattr(MemoryFileSystem, question, refuse)
    with pytest.raises(SourceError, match=r"PUT .* was refused.*EVERGREEN_SEGMENTS_URI") as listed:
        SharedPlace(uri).segments(NAME)
    monkeypatch.setattr(shipping, "settings", lambda: Settings(home=tmp_path, segments_uri=uri))
    assert shipping.main() == 1
    told = capsys.readouterr().err
    assert f"segments cannot be shipped to {uri}: {kind.__name__}: PUT https://a.blob/c/x" in told
    assert "mend the place, its permissions and credentials, or EVERGREEN_SEGMENTS_URI" in told
    for text in (str(listed.value), told):
        assert (SECRET in text, "sig=" in text, "None" in text) == (False, False, False), text


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


def reset(records: Records) -> None:
    entry = AuditEntry("use_case.reset", NAME, NAME, "test", {}, utc_now())
    records.forget(NAME, entry=entry)


def later(home: Path) -> None:
    """Let the newest segment have begun once everybody has noticed a reset of now."""
    path = closed_segments(home, NAME)[-1].path
    began = time.time_ns() + int(SETTLE.total_seconds() + 2) * 10**9
    path.rename(path.with_name(f"{name_of(began)}-{path.name.partition('-')[2]}"))


def test_what_a_node_brings_after_a_reset_is_not_the_new_life_s(
    tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    node, importer = tmp_path / "node", Importer(tmp_path / "importer", uri)
    write_segment(node, 1, use_case=NAME)
    write_segment(node, 1, use_case="cards")
    write_segment(importer.settings.home, 2, use_case=NAME)
    reset(importer.records)
    write_segment(node, 3, use_case=NAME)  # the node has not noticed yet
    assert ship(node, uri) == Shipped(3, 0)
    write_segment(node, 4, use_case=NAME)
    later(node)
    ship(node, uri)
    assert importer.load() == Imported(lines=1, segments=1)
    assert importer.asked() == ["r4"]
    assert f"{NAME}: 2 segments of before its reset" in caplog.text
    assert f"{NAME}: 1 segments of before its reset" in caplog.text
    assert SharedPlace(uri).segments(NAME) == []
    assert closed_segments(importer.settings.home, NAME) == []
    assert len(SharedPlace(uri).segments("cards")) == 1, "it was not reset"


def test_a_node_ships_nothing_of_before_a_reset(tmp_path: Path, uri: str) -> None:
    node, importer = tmp_path / "node", Importer(tmp_path / "importer", uri)
    write_segment(node, 1, use_case=NAME)
    reset(importer.records)
    write_segment(node, 2, use_case=NAME)
    later(node)
    assert ship(node, uri, reset_of=importer.records.newest_reset) == Shipped(1, 0)
    assert closed_segments(node, NAME) == []
    assert importer.load().lines == 1
    assert importer.asked() == ["r2"]
