"""A disk that is full, or may not be written: the error names it, and nothing half is seen."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from include.artefacts import folder
from include.artefacts.store import ArtefactStore
from include.errors import ArtefactError, Unavailable
from tests.artefacts.conftest import SMALL

FILES = {"a": b"1", "b": b"2", "c": b"3"}
URI = "store:reports/loans/2026-03-01/drift.html"


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=SMALL)


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.EACCES])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Let the n-th write from now on fail, as a disk would; return the number of the error."""

    def after(count: int) -> int:
        left = [count]
        write = Path.write_bytes

        def write_bytes(path: Path, content: bytes) -> int:
            left[0] -= 1
            if left[0] < 0:
                write(path, content[: len(content) // 2])
                raise OSError(request.param, os.strerror(request.param), str(path))
            return write(path, content)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        return int(request.param)

    return after


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_put_that_fails_at_any_write_leaves_nothing_to_find(
    store: ArtefactStore, failing: Callable[..., int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = failing(count)
    remedy = {errno.ENOSPC: "free some space", errno.EROFS: "mount it"}.get(number, "permissions")
    with pytest.raises(Unavailable, match=f"{store.root} cannot be written.*{remedy}"):
        store.put("bundles", "loans", FILES)
    assert store.entries("bundles", "loans") == []
    monkeypatch.undo()
    assert store.holds(store.put("bundles", "loans", FILES))


def test_what_is_written_anew_stays_as_it_was(
    store: ArtefactStore, failing: Callable[..., int]
) -> None:
    store.write(URI, "before")
    failing(0)
    with pytest.raises(Unavailable, match=f"{store.root} cannot be written"):
        store.write(URI, "after")
    assert store.read(URI) == b"before"
    assert [path.name for path in Path(store.where(URI)).parent.iterdir()] == ["drift.html"]


def test_a_write_that_ends_in_the_middle_of_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    """The kernel refuses the write in the middle of a file, as on a full disk."""
    import resource
    import signal

    store = ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=SMALL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(Unavailable, match="cannot be written"):
            store.put("bundles", "loans", {"a": b"small", "b": b"x" * 200_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert store.entries("bundles", "loans") == []


def test_what_lies_in_the_way_and_comes_back_ends_with_an_error(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store.put("bundles", "loans", FILES)
    shutil.rmtree(Path(store.where(uri)) / "files")
    monkeypatch.setattr(folder, "remove_whole", lambda path: None)
    with pytest.raises(ArtefactError, match="cannot be put in place"):
        store.put("bundles", "loans", FILES)
