"""The collection in the store: in a folder and behind S3, with copies, shared by equal models."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include import object_stores
from include.artefacts.folder import REMOVED
from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.errors import Unavailable
from include.records.records import Model
from include.retention.garbage import Place
from tests.builders.object_stores import S3Store, forget_connections
from tests.builders.ports import free_port
from tests.builders.serving import NAME
from tests.retention.place import NOW, Home, digest


class Shared(Home):
    """A home whose artefacts are in a store, under the digests of their files."""

    def __init__(self, home: Path, uri: str) -> None:
        super().__init__(home)
        self.settings = Settings(home=home, store_uri=uri)
        self.store = ArtefactStore.of(self.settings)

    def train(self, *versions: int, **changes: Any) -> None:
        for version in versions:
            names = ("bundles", "references", "bentos")
            uris = [self.store.put(kind, NAME, self.content(kind, version)) for kind in names]
            fields = dict(zip(("bundle_uri", "reference_uri", "bento_uri"), uris, strict=True))
            model = Model(
                NAME, version, digest(version), self.key(version), NOW, "live", "fs", "a path"
            )
            self.records.models.add(dataclasses.replace(model, **{**fields, **changes}))

    def content(self, kind: str, version: int) -> dict[str, bytes]:
        return {"file": f"{kind} {version}".encode()}

    def there(self) -> list[int]:
        return [
            model.version
            for model in self.records.models.of(NAME)
            if self.store.holds(str(model.bundle_uri))
        ]

    def uris(self) -> set[str | None]:
        kinds = ("bundles", "references", "bentos")
        return {each.uri for kind in kinds for each in self.store.entries(kind, NAME)}


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    if request.param == "folder":
        return Shared(tmp_path / "home", str(tmp_path / "store"))
    return Shared(tmp_path / "home", request.getfixturevalue("s3_store").uri)


def test_what_nothing_needs_goes_from_the_store_and_what_a_rollback_needs_stays(
    shared: Shared,
) -> None:
    shared.train(*range(1, 7))
    for version in (1, 2):
        shared.release(version)
    done = shared.collect()
    assert (done.versions, done.put_off) == ([3, 4], [])
    assert shared.there() == [1, 2, 5, 6], "champion, previous, and the newest two"
    assert len(shared.uris()) == 4 * 3
    assert done.totals(done.removed)["models"]["count"] == 4
    assert shared.collect().found == []
    assert shared.records.audit.verify() is None


def test_what_is_young_stays_and_what_no_record_names_goes_once_it_is_old(shared: Shared) -> None:
    shared.train(1)
    orphan = shared.store.put("bundles", NAME, {"file": b"of a training that was killed"})
    assert shared.collect(at=NOW + timedelta(hours=47)).found == []
    assert [each.why for each in shared.collect().removed] == ["no record names it"]
    assert not shared.store.holds(orphan)
    assert shared.there() == [1]


def test_models_with_equal_files_share_them_until_the_last_goes(shared: Shared) -> None:
    shared.train(1, 2, 3)
    first = shared.records.models.get(NAME, 1)
    assert first is not None
    equal = dataclasses.replace(first, version=4, partition=shared.key(4))
    shared.records.models.add(equal)
    assert shared.collect(newest=1).versions == [2, 3]
    assert shared.there() == [1, 4]
    shared.train(5, 6)
    assert shared.collect(newest=1).versions == [1, 4, 5]
    assert shared.there() == [6]


def test_training_again_makes_a_collected_version_whole_where_its_files_are_now(
    shared: Shared,
) -> None:
    shared.train(1, 2, 3, bundle_uri=f"store:bundles/{NAME}/{'ab' * 32}")
    model = shared.records.models.get(NAME, 1)
    assert model is not None
    shared.records.models.update(NAME, 1, collected_at=NOW)
    uri = shared.store.put("bundles", NAME, {"file": b"again"})
    again = dataclasses.replace(model, version=9, bundle_uri=uri, bundle="another path")
    shared.records.models.add(again)
    whole = shared.records.models.get(NAME, 1)
    assert whole is not None
    assert (whole.collected_at, whole.bundle_uri, whole.bundle) == (None, uri, "another path")


def test_a_stage_that_finds_its_artefact_while_it_is_put_aside_keeps_it(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = shared.store.put("bundles", NAME, {"file": b"found again"})
    answers = iter([None, None, None, None, "train_model is at work"])
    monkeypatch.setattr(Place, "at_work", lambda self: next(answers, None))
    done = shared.collect()
    assert next(answers, "asked") == "asked"
    assert done.removed == []
    assert shared.store.holds(orphan)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("needed", [True, False])
def test_a_removal_that_was_killed_is_finished_or_taken_back(shared: Shared, needed: bool) -> None:
    shared.train(1, 2, 3)
    uri = str(shared.records.models.of(NAME)[0].bundle_uri)
    (entry,) = [each for each in shared.store.entries("bundles", NAME) if each.uri == uri]

    def dies() -> bool:
        raise Killed

    with pytest.raises(Killed):
        shared.store.remove(entry, still_unneeded=dies)
    assert not shared.store.holds(uri)
    if not needed:  # as is on record before anything is removed
        shared.records.models.update(NAME, 1, collected_at=NOW)
    shared.collect(newest=3)
    assert shared.store.holds(uri) is needed
    left = [str(each.uri or each.name) for each in shared.store.entries("bundles", NAME)]
    assert len(left) == 3 if needed else uri not in left
    assert not [name for name in left if REMOVED in name]


def test_copies_of_what_was_collected_go_too(s3_store: S3Store, tmp_path: Path) -> None:
    shared = Shared(tmp_path / "home", s3_store.uri)
    shared.train(1, 2, 3)
    for model in shared.records.models.of(NAME):
        shared.store.get(str(model.bundle_uri))
    assert len(shared.store.copies("bundles", NAME)) == 3
    done = shared.collect()
    assert done.totals(done.removed)["copies"]["count"] == 1
    kept = {model.bundle_uri for model in shared.records.models.of(NAME)[1:]}
    assert {copy.uri for copy in shared.store.copies("bundles", NAME)} == kept


def test_a_store_that_is_away_stops_the_collection_before_anything_is_marked(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Shared(tmp_path / "home", s3_store.uri)
    shared.train(1, 2, 3)
    monkeypatch.setattr(object_stores, "RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    forget_connections()
    with pytest.raises(Unavailable, match="cannot be read in s3://"):
        shared.collect()
    assert shared.collected() == []


def test_a_dry_run_touches_nothing(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.train(1, 2, 3)
    before = shared.uris()

    def fails(*_: object, **__: object) -> bool:
        raise AssertionError

    for name in ("remove", "remove_copy", "finish"):
        monkeypatch.setattr(ArtefactStore, name, fails)
    told = shared.collect(dry_run=True)
    assert (told.versions, len(told.found), shared.uris()) == ([1], 3, before)


def test_what_a_killed_writer_left_goes_once_it_is_old(tmp_path: Path) -> None:
    shared = Shared(tmp_path / "home", str(tmp_path / "store"))
    shared.train(1)
    left = tmp_path / "store" / "bundles" / NAME / ".put.0123456789ab"
    (left / "files").mkdir(parents=True)
    assert shared.collect(at=NOW + timedelta(hours=47)).found == []
    old = NOW.timestamp() - 90 * 86400
    os.utime(left, (old, old))
    assert [each.name for each in shared.collect().removed] == ["bundles/.put.0123456789ab"]
    assert not left.exists()
