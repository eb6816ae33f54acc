"""Nodes of several hosts, each with a home of its own, and one store of artefacts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.artefacts.cache import USED_SECONDS
from include.artefacts.manifest import NAME as MANIFEST
from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.models.bento_archive import put_bento
from include.models.bento_sources import read_sources, sources_folder
from tests.artefacts.test_store import damage
from tests.builders.isolated import HELLO, write_bento
from tests.builders.object_stores import S3Store, forget_connections
from tests.builders.ports import free_port
from tests.builders.serving import NAME, ROW, Desk, Node, until

TAG = "loans_scorer:one"


@pytest.fixture(params=["folder", "s3"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    """A host that trains and packages; no node runs on it."""
    if request.param == "folder":
        return Desk(tmp_path / "trains", store_uri=str(tmp_path / "mounted"))
    return Desk(tmp_path / "trains", store_uri=request.getfixturevalue("s3_store").uri)


def host_of(desk: Desk, home: Path, **changes: object) -> Settings:
    """Return the settings of another host: the same records and store, a home of its own."""
    home.mkdir()
    values = {
        "home": home,
        "node_port": free_port(),
        "records_url": SecretStr(desk.settings.records_address),
        "signing_keys": desk.settings.signing_keys_folder,  # which a node is given, as its records
        "usecases": str(home / "none"),
    }
    return desk.settings.model_copy(update={**values, **changes})


@pytest.fixture
def node(desk: Desk, tmp_path: Path) -> Iterator[Node]:
    """A node of a host whose home is empty."""
    made = Node(host_of(desk, tmp_path / "serves"))
    try:
        yield made
    finally:
        made.stop()


def take_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store be away: not mounted, or not answering."""
    if "://" in desk.settings.store_uri:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        forget_connections()
    else:
        Path(desk.settings.store_uri).rename(f"{desk.settings.store_uri}.gone")


def package(desk: Desk, tmp_path: Path, first: str = HELLO) -> str:
    """Put a Bento into the store as packaging does, and leave none on the host; return its address.

    It is only a process that speaks the node's protocol.
    """
    write_bento(desk.settings.home, TAG, first)
    source = sources_folder(desk.settings.home, TAG)
    export, receipt = tmp_path / "loans_scorer-one.bento", tmp_path / "receipt.json"
    with tarfile.open(export, "w:gz") as archive:
        archive.add(source, "./src")
    files = {
        f"bentos/loans_scorer/one/src/{name}": hashlib.sha256(content).hexdigest()
        for name, content in read_sources(source).items()
    }
    told = {"bento_tag": TAG, "model_tag": "loans_model:one", "files": files}
    receipt.write_text(json.dumps(told))
    return put_bento(ArtefactStore.of(desk.settings), NAME, export, receipt)


@pytest.mark.slow
def test_a_node_with_an_empty_home_serves_what_another_host_trained(
    desk: Desk, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=2, previous=1)
    node.start()
    node.serves(2)
    first = node.predict(features=ROW).body["score"]
    until(
        lambda: node.get(f"/v1/{NAME}/model").body.get("previous") is not None,
        what="the model that a rollback would bring back",
    )
    node.stop()
    shutil.rmtree(desk.settings.home / "models", ignore_errors=True)
    if "://" in desk.settings.store_uri:  # a folder has no copies: it is read in place
        take_away(desk, monkeypatch)
    node.start()
    node.serves(2)
    assert node.predict(features=ROW).body["score"] == first, "by its copies, the store is away"


OFTEN = "from include.serving import upkeep; upkeep.LOOK_SECONDS = 0.1"


def test_the_copy_of_who_answers_outlives_a_full_cache(s3_store: S3Store, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trains", store_uri=s3_store.uri)
    model = desk.train(1)
    desk.record_route(champion=1)
    node = Node(host_of(desk, tmp_path / "serves", cache_megabytes=0.001), OFTEN)
    store = ArtefactStore.of(node.settings)
    try:
        node.start()
        node.serves(1)
        (copy,) = store.copies("bundles", NAME)
        manifest = store.home / "cache" / "bundles" / NAME / copy.name / MANIFEST
        loaded = time.time() - 2 * USED_SECONDS
        os.utime(manifest, (loaded, loaded))
        until(lambda: manifest.stat().st_mtime > loaded + 1, what="the mark that it is needed")
        store.get(store.put("bundles", NAME, {"model.txt": b"of the next challenger"}))
        assert model.bundle_uri in {entry.uri for entry in store.copies("bundles", NAME)}
    finally:
        node.stop()


def test_another_mount_point_is_no_other_address(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trains", store_uri=str(tmp_path / "mounted"))
    desk.train(1)
    desk.record_route(champion=1)
    (tmp_path / "mounted").rename(tmp_path / "mounted-elsewhere")
    there = {"store_uri": str(tmp_path / "mounted-elsewhere")}
    node = Node(host_of(desk, tmp_path / "serves", **there))
    try:
        node.start()
        node.serves(1)
    finally:
        node.stop()


def test_what_the_store_holds_damaged_never_displaces_who_answers(desk: Desk, node: Node) -> None:
    desk.train(1)
    bad = desk.train(2)
    damage(ArtefactStore.of(desk.settings), str(bad.bundle_uri), "model.txt", b"tree\nnonsense")
    desk.record_route(champion=1)
    node.start()
    node.serves(1)
    desk.record_route(champion=2, previous=1)

    def refused() -> bool:
        role = node.health["roles"]["champion"]
        return bool(role["state"] == "refused" and "was changed" in role["reason"])

    until(refused, what="the refusal of a damaged artefact")
    assert node.predict(features=ROW).body["model_version"] == 1


def test_a_store_that_is_away_keeps_a_new_champion_waiting_until_it_is_back(
    desk: Desk, node: Node, tmp_path: Path
) -> None:
    if "://" in desk.settings.store_uri:
        pytest.skip("a running process keeps the address of its store")
    desk.train(1)
    desk.train(2)
    desk.record_route(champion=1)
    node.start()
    node.serves(1)
    (tmp_path / "mounted").rename(tmp_path / "away")
    desk.record_route(champion=2, previous=1)

    def waits() -> bool:
        role = node.health["roles"]["champion"]
        return bool(role["state"] == "could_not" and "not mounted" in role["reason"])

    until(waits, what="a new try later")
    assert node.predict(features=ROW).body["model_version"] == 1
    (tmp_path / "away").rename(tmp_path / "mounted")
    node.serves(2)


@pytest.mark.slow
def test_a_model_of_other_pins_runs_by_its_bento_from_the_store(
    desk: Desk, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = package(desk, tmp_path)
    model = desk.train(1, pins="sha256:of another installation", bento_tag=TAG, bento_uri=uri)
    assert model.bento_digest is not None
    shutil.rmtree(desk.settings.home / "bento")
    desk.record_route(champion=1)
    node.start()
    node.serves(1)
    assert node.get(f"/v1/{NAME}/model").body["champion"]["in_process"] is False
    lane = sources_folder(node.settings.home, TAG) / "lane.py"
    code = lane.read_bytes()
    node.stop()
    lane.write_bytes(b"import os; os._exit(3)\n")  # is never run: it comes from the store again
    node.start()
    node.serves(1)
    assert lane.read_bytes() == code
    node.stop()
    if "://" in desk.settings.store_uri:
        take_away(desk, monkeypatch)
    node.start()
    node.serves(1)


def test_a_bento_whose_code_is_not_the_recorded_one_is_never_run(
    desk: Desk, node: Node, tmp_path: Path
) -> None:
    uri = package(desk, tmp_path)
    desk.train(2, pins="sha256:of another installation", bento_tag=TAG, bento_uri=uri)
    other = package(desk, tmp_path, f"open('ran', 'w')\n{HELLO}")
    desk.records.models.update(NAME, 2, bento_uri=other)
    shutil.rmtree(desk.settings.home / "bento")
    desk.train(1)
    desk.record_route(champion=2, previous=1)
    node.start(healthy=False)
    until(lambda: node.predict(features=ROW).status == 200, what="an answer")
    assert node.predict(features=ROW).body["model_version"] == 1
    until(
        lambda: node.health["roles"]["champion"]["state"] == "refused",
        what="the refusal",
    )
