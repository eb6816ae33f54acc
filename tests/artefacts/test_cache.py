"""Copies of a store's artefacts: taken while it is away, never when damaged, and bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from include import object_stores
from include.artefacts.address import Address
from include.artefacts.cache import LEFT_SECONDS, USED_SECONDS
from include.artefacts.manifest import NAME
from include.artefacts.store import ArtefactStore
from include.errors import Unavailable
from tests.artefacts.conftest import SMALL
from tests.artefacts.test_store import FILES, contents
from tests.builders.object_stores import S3Store, forget_connections
from tests.builders.ports import free_port


@pytest.fixture
def filled(s3_store: S3Store, tmp_path: Path) -> tuple[ArtefactStore, str]:
    """A machine that has a copy of an artefact, and its address."""
    store = ArtefactStore(s3_store.uri, tmp_path / "home", cache_bytes=SMALL)
    uri = store.put("bundles", "loans", FILES)
    store.get(uri)
    return store, uri


@pytest.fixture
def away(filled: tuple[ArtefactStore, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store be away."""
    monkeypatch.setattr(object_stores, "RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    forget_connections()


@pytest.mark.usefixtures("away")
def test_what_was_had_once_is_there_while_the_store_is_away(
    filled: tuple[ArtefactStore, str],
) -> None:
    store, uri = filled
    assert contents(store.get(uri)) == FILES
    with pytest.raises(Unavailable, match=r"cannot be read in s3://.*EVERGREEN_STORE_URI"):
        store.get(f"store:bundles/loans/{'ab' * 32}")
    with pytest.raises(Unavailable, match="cannot be written"):
        store.put("bundles", "loans", {"other": b"x"})
    with pytest.raises(Unavailable, match="cannot be read"):
        store.entries("bundles", "loans")


@pytest.mark.slow
@pytest.mark.parametrize("hurt", ["changed", "removed", "added", "manifest"])
def test_a_damaged_copy_is_fetched_again(filled: tuple[ArtefactStore, str], hurt: str) -> None:
    store, uri = filled
    folder = store.get(uri)
    if hurt == "changed":
        (folder / "model.txt").write_bytes(b"bad")
    elif hurt == "removed":
        (folder / "model.txt").unlink()
    elif hurt == "added":
        (folder / "more.pkl").write_bytes(b"bad")
    else:
        (folder.parent / NAME).write_bytes(b"{}")
    assert contents(store.get(uri)) == FILES


@pytest.mark.usefixtures("away")
def test_a_damaged_copy_is_never_given_while_the_store_is_away(
    filled: tuple[ArtefactStore, str],
) -> None:
    store, uri = filled
    (store.home / "cache" / Address.parse(uri).path / "files" / "model.txt").write_bytes(b"bad")
    with pytest.raises(Unavailable):
        store.get(uri)


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(
    s3_store: S3Store, tmp_path: Path
) -> None:
    store = ArtefactStore(s3_store.uri, tmp_path / "home", cache_bytes=2500)
    uris = [store.put("bundles", "loans", {"file": bytes([n]) * 1000}) for n in range(5)]
    for age, uri in enumerate(uris[:3]):
        manifest = store.get(uri).parent / NAME
        # The first was used last, the third within the hour.
        seconds = (2 if age == 0 else 3 if age == 1 else 0) * USED_SECONDS
        old = manifest.stat().st_mtime - seconds
        os.utime(manifest, (old, old))
    store.get(uris[3])
    had = {entry.uri for entry in store.copies("bundles", "loans")}
    assert had == {uris[2], uris[3]}, "over the bound both older ones went"
    store.get(uris[4])
    assert len(store.copies("bundles", "loans")) == 3, "used within the hour: somebody may read it"


KILLED = """
import os, signal
from pathlib import Path
from include.artefacts.store import ArtefactStore
store = ArtefactStore({root!r}, Path({home!r}), cache_bytes=10**6)
with store.written("store:reports/loans/page.html") as path:
    path.write_bytes(b"half a page")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_first_copy_a_day_later(
    s3_store: S3Store, tmp_path: Path
) -> None:
    home, cache = tmp_path / "home", tmp_path / "home" / "cache"
    for _ in range(2):
        script = KILLED.format(root=s3_store.uri, home=str(home))
        ended = subprocess.run([sys.executable, "-c", script], check=False)
        assert ended.returncode == -signal.SIGKILL
    old, young = cache.glob(".put.*")
    before = time.time() - LEFT_SECONDS - 1
    os.utime(old, (before, before))
    store = ArtefactStore(s3_store.uri, home, cache_bytes=SMALL)
    uri = store.put("bundles", "loans", FILES)
    assert contents(store.get(uri)) == FILES
    assert sorted(path.name for path in cache.iterdir()) == [young.name, "bundles"]
