"""Packages that a node has unpacked: they go when nothing needs them, and only those."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.models.bento_archive import have_bento, place_from_store, put_bento
from include.models.bento_sources import package_paths, sources_digest
from include.records.models import Model
from include.retention import aside
from include.serving import unpacked
from include.serving.unpacked import YOUNG_SECONDS, remove_unneeded
from tests.builders.serving import NAME, NOW, Desk, Node, until

# Of a node, as if two days had passed: the time at which a name was given cannot be set.
OFTEN = """
from include.serving import unpacked, upkeep
upkeep.LOOK_SECONDS, unpacked.YOUNG_SECONDS = 0.1, -1.0
"""


def later() -> float:
    """Return a moment by which all that a test has written is old."""
    return time.time() + YOUNG_SECONDS + 1


def version(number: int) -> str:
    return f"{number:016x}-aaaaaaaa"


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=10**7)


def put_package(store: ArtefactStore, use_case: str, version: str) -> Model:
    """Put a small package into the store; return its model."""
    scorer, bundle = f"{use_case}_scorer", f"models/{use_case}_model/{version}/model.txt"
    files = {"src/lane.py": version.encode(), bundle: b"tree"}
    export, receipt = (store.home.parent / f"{scorer}-{version}.bento", store.home.parent / "told")
    with tarfile.open(export, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    named = {
        f"bentos/{scorer}/{version}/src/lane.py": hashlib.sha256(version.encode()).hexdigest(),
        bundle: hashlib.sha256(b"tree").hexdigest(),
    }
    tags = {"bento_tag": f"{scorer}:{version}", "model_tag": f"{use_case}_model:{version}"}
    receipt.write_text(json.dumps({**tags, "files": named}))
    return Model(
        use_case,
        1,
        "sha256:x",
        "2026-03-01",
        NOW,
        "live",
        "f",
        "nowhere",
        bento_tag=tags["bento_tag"],
        bento_uri=put_bento(store, use_case, export, receipt),
        bento_digest=sources_digest({"lane.py": version.encode()}),
    )


def unpack(store: ArtefactStore, number: int, use_case: str = NAME) -> None:
    have_bento(store, put_package(store, use_case, version(number)))


def there(store: ArtefactStore, use_case: str = NAME) -> list[int]:
    """Return the numbers of the packages of which anything is there."""
    return [
        number
        for number in range(10)
        if any(path.exists() for path in package_paths(store.home, use_case, version(number)))
    ]


def test_what_is_old_and_not_needed_goes_whole(store: ArtefactStore) -> None:
    for number in range(3):
        unpack(store, number)
    unpack(store, 4, "cards")
    needed = {f"{NAME}_scorer:{version(1)}"}
    assert remove_unneeded(store.home, needed, time.time()) == 0, "all of it is young"
    assert remove_unneeded(store.home, needed, later()) == 3
    assert (there(store), there(store, "cards")) == ([1], [])
    assert list((store.home / "bento" / "staging").iterdir()) == []
    assert remove_unneeded(store.home, needed, later()) == 0
    unpack(store, 2)
    assert there(store) == [1, 2], "it is unpacked again for whoever wants it again"


def test_what_packaging_has_put_in_place_stays(store: ArtefactStore) -> None:
    for number in (1, 2):
        model = put_package(store, NAME, version(number))
        place_from_store(store, NAME, str(model.bento_tag), str(model.bento_uri))
    export = package_paths(store.home, NAME, version(2))[1]
    export.rename(export.with_name(f"{aside.PREFIX}{export.name}"))  # by a collection, killed then
    assert remove_unneeded(store.home, (), later()) == 0
    assert there(store) == [1, 2]


def test_a_part_that_a_kill_left_goes_and_so_much_at_once(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        unpack(store, number)
        for path in package_paths(store.home, NAME, version(number))[: number + 1]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    (store.home / "bento" / "bentos" / f"{NAME}_scorer" / "latest").write_text("of BentoML")
    monkeypatch.setattr(unpacked, "MOST", 2)
    assert remove_unneeded(store.home, (), later()) == 2
    assert there(store) == [2]
    assert remove_unneeded(store.home, (), later()) == 1
    assert there(store) == []


def test_what_cannot_be_removed_is_logged_and_keeps_nothing_else(
    store: ArtefactStore, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        unpack(store, number)
    staging = store.home / "bento" / "staging"
    staging.rmdir()
    staging.write_text("a file in the way")
    assert remove_unneeded(store.home, (), later()) == 0
    assert caplog.text.count("is not removed") == 2
    staging.unlink()
    assert remove_unneeded(store.home, (), later()) == 2


def test_a_node_removes_what_its_rows_do_not_name(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "home", store_uri=str(tmp_path / "store"))
    desk.train(1, bento_tag=f"{NAME}_scorer:{version(1)}")
    desk.record_route(champion=1)
    store = ArtefactStore.of(desk.settings)
    for number in (1, 2):
        unpack(store, number)
    with desk.node(OFTEN) as node:
        until(lambda: there(store) == [1], what="the removal of the other one")
        node.serves(1)


def test_a_node_that_has_only_the_rows_of_the_last_time_removes_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "home", store_uri=str(tmp_path / "store"))
    desk.train(1)
    desk.record_route(champion=1)
    with desk.node() as node:
        node.serves(1)
    unpack(ArtefactStore.of(desk.settings), 2)
    (desk.settings.home / "records.db").rename(tmp_path / "away.db")
    left = desk.settings.home / "serving" / ".0123456789ab.rows.json"
    left.write_text("of a killed writer")
    old = time.time() - 10 * YOUNG_SECONDS
    os.utime(left, (old, old))
    node = Node(desk.settings, OFTEN)
    try:
        node.start(healthy=False)
        until(lambda: not left.exists(), what="that it tidies")
        node.serves(1)
    finally:
        node.stop()
    assert there(ArtefactStore.of(desk.settings)) == [2]
