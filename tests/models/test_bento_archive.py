"""A Bento from the store: what its receipt names, all of it, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.errors import ArtefactError, Unavailable
from include.models.bento_archive import have_bento, place_from_store, put_bento
from include.models.bento_sources import read_vouched, sources_digest
from include.records.models import Model
from tests.builders.serving import NOW

TAG, MODEL_TAG = "loans_scorer:0-1", "loans_model:0-1"
FILES = {
    "src/lane.py": b"print()\n",
    "src/include/__init__.py": b"",
    "bento.yaml": b"name: loans_scorer\n",
    "models/loans_model/0-1/bundle/model.txt": b"tree",
}


def receipt_of(files: dict[str, bytes]) -> dict[str, object]:
    named = {
        name if name.startswith("models/") else f"bentos/loans_scorer/0-1/{name}": content
        for name, content in files.items()
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in named.items()}
    return {"bento_tag": TAG, "model_tag": MODEL_TAG, "files": digests}


def put(
    store: ArtefactStore,
    folder: Path,
    files: dict[str, bytes],
    *,
    receipt: object = None,
    change: Callable[[tarfile.TarFile], object] = lambda archive: None,
) -> str:
    """Put an export of files into the store, with the receipt of FILES; return its address."""
    export, told = folder / "loans_scorer-0-1.bento", folder / "receipt"
    with tarfile.open(export, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        change(archive)
    told.write_text(json.dumps(receipt_of(FILES) if receipt is None else receipt))
    return put_bento(store, "loans", export, told)


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=10**7)


def model(uri: str, **changes: str) -> Model:
    code = {name.removeprefix("src/"): FILES[name] for name in FILES if name.startswith("src/")}
    values = {"bento_tag": TAG, "bento_uri": uri, "bento_digest": sources_digest(code), **changes}
    return Model("loans", 1, "sha256:x", "2026-03-01", NOW, "live", "f", "nowhere", **values)  # type: ignore[arg-type]


def test_a_bento_comes_from_the_store_with_its_model_and_its_receipt(
    store: ArtefactStore, tmp_path: Path
) -> None:
    have_bento(store, model(put(store, tmp_path, FILES)))
    home = store.home / "bento"
    assert (home / "models/loans_model/0-1/bundle/model.txt").read_bytes() == b"tree"
    assert (home / "bentos/loans_scorer/latest").read_text() == "0-1"
    assert sorted(read_vouched(store.home, "loans", TAG)) == ["include/__init__.py", "lane.py"]
    assert list((home / "staging").iterdir()) == []


def test_packaging_has_the_export_too_and_who_runs_the_bento_does_not(
    store: ArtefactStore, tmp_path: Path
) -> None:
    uri, export = put(store, tmp_path, FILES), store.home / "bento/exports/loans_scorer-0-1.bento"
    have_bento(store, model(uri))
    assert not export.exists()
    place_from_store(store, "loans", TAG, uri)
    assert export.read_bytes() == (tmp_path / "loans_scorer-0-1.bento").read_bytes()


def test_what_was_changed_here_is_replaced_from_the_store_and_what_is_whole_is_not(
    store: ArtefactStore, tmp_path: Path
) -> None:
    known = model(put(store, tmp_path, FILES))
    have_bento(store, known)
    lane = store.home / "bento/bentos/loans_scorer/0-1/src/lane.py"
    before = lane.stat().st_ino
    have_bento(store, known)
    assert lane.stat().st_ino == before
    lane.write_bytes(b"evil()\n")
    have_bento(store, known)
    assert lane.read_bytes() == FILES["src/lane.py"]


def test_a_file_that_the_receipt_does_not_name_is_not_put_in_place(
    store: ArtefactStore, tmp_path: Path
) -> None:
    have_bento(store, model(put(store, tmp_path, {**FILES, "src/more.py": b"evil()\n"})))
    assert not (store.home / "bento/bentos/loans_scorer/0-1/src/more.py").exists()


def link(archive: tarfile.TarFile) -> None:
    member = tarfile.TarInfo("./src/evil.py")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive.addfile(member)


def outside(archive: tarfile.TarFile) -> None:
    archive.addfile(tarfile.TarInfo("../../evil.py"), io.BytesIO(b""))


def huge(archive: tarfile.TarFile) -> None:
    member = tarfile.TarInfo("./src/huge.py")
    member.size = 0
    for _ in range(10_001):
        archive.addfile(member)


@pytest.mark.parametrize(
    ("files", "change", "said"),
    [
        ({**FILES, "src/lane.py": b"evil()\n"}, None, "not what its receipt names"),
        ({name: FILES[name] for name in list(FILES)[1:]}, None, "lacks"),
        (FILES, link, "no plain file"),
        (FILES, outside, "no plain file"),
        (FILES, huge, "more than a Bento may have"),
    ],
)
def test_an_export_that_is_not_what_its_receipt_says_changes_nothing(
    store: ArtefactStore,
    tmp_path: Path,
    files: dict[str, bytes],
    change: Callable[[tarfile.TarFile], object] | None,
    said: str,
) -> None:
    have_bento(store, model(put(store, tmp_path, FILES)))
    before = {path: path.read_bytes() for path in store.home.rglob("*") if path.is_file()}
    uri = put(store, tmp_path, files, change=change or (lambda archive: None))
    with pytest.raises(ArtefactError, match=said):
        place_from_store(store, "loans", TAG, uri)
    assert before == {path: path.read_bytes() for path in store.home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("receipt", [[], {}, {"bento_tag": 1}, {**receipt_of(FILES), "files": 3}])
def test_a_receipt_that_is_none_is_refused(
    store: ArtefactStore, tmp_path: Path, receipt: object
) -> None:
    with pytest.raises(ArtefactError, match="no receipt that can be read"):
        place_from_store(store, "loans", TAG, put(store, tmp_path, FILES, receipt=receipt))


def test_another_bento_s_artefact_is_refused(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"is bento loans_scorer:0-1, not loans_scorer:0-2"):
        place_from_store(store, "loans", "loans_scorer:0-2", put(store, tmp_path, FILES))


def test_a_bento_that_the_store_does_not_have_is_away(store: ArtefactStore) -> None:
    with pytest.raises(Unavailable, match="is not in"):
        have_bento(store, model(f"store:bentos/loans/{'ab' * 32}"))


def test_a_home_that_cannot_be_written_is_named(store: ArtefactStore, tmp_path: Path) -> None:
    uri = put(store, tmp_path, FILES)
    store.home.mkdir()
    (store.home / "bento").write_text("a file in the way")
    with pytest.raises(Unavailable, match=f"{store.home}/bento: .*cannot be put there"):
        place_from_store(store, "loans", TAG, uri)
