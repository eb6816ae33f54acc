"""The store: whole or not at all, verified by digest, the same in a folder and behind S3."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from include.artefacts.address import Address
from include.artefacts.manifest import NAME
from include.artefacts.store import ArtefactStore
from include.config.settings import ROOT
from include.errors import ArtefactError, Unavailable
from tests.artefacts.conftest import SMALL
from tests.builders.object_stores import S3Store
from tests.builders.synced import Synced

FILES = {"model.txt": b"tree", "schema.json": b"{}", "more/part": b""}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def damage(store: ArtefactStore, uri: str, name: str = "model.txt", text: bytes = b"bad") -> None:
    """Change a file where the store keeps it."""
    place = store.where(uri)
    if store.is_local:
        (path,) = Path(place).rglob(name)
        path.write_bytes(text)
        return
    import fsspec

    system, path = fsspec.core.url_to_fs(place)
    (found,) = [each for each in system.find(path) if each.endswith(f"/{name}")]
    system.pipe_file(found, text)


def test_what_one_machine_puts_another_one_gets(
    store: ArtefactStore, other: ArtefactStore, tmp_path: Path
) -> None:
    (tmp_path / "given").write_bytes(b"from a file")
    uri = store.put("bundles", "loans", {**FILES, "given": tmp_path / "given"})
    assert Address.parse(uri).is_digest
    assert contents(other.get(uri)) == {**FILES, "given": b"from a file"}
    assert store.holds(uri)
    assert other.copies("bundles", "loans") == [] or not store.is_local


def test_a_folder_is_read_in_place_and_copied_nowhere(tmp_path: Path) -> None:
    store = ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=SMALL)
    uri = store.put("bundles", "loans", FILES)
    assert store.get(uri).is_relative_to(tmp_path / "store")
    assert not (tmp_path / "home").exists()


def test_equal_files_have_one_address_and_other_ones_another(store: ArtefactStore) -> None:
    first = store.put("bundles", "loans", FILES)
    assert store.put("bundles", "loans", dict(reversed(FILES.items()))) == first
    others = [
        {**FILES, "model.txt": b"other"},
        {"model.txt": b"tree", "schema.json": b"{}"},
        # Bytes cannot move from a name into a content.
        {"model.txt": b"tree", "schema.jso": b"n{}", "more/part": b""},
    ]
    assert len({first, *(store.put("bundles", "loans", files) for files in others)}) == 4
    assert len(store.entries("bundles", "loans")) == 4


def test_what_was_damaged_in_the_store_is_refused_and_put_right_by_the_next_put(
    store: ArtefactStore, other: ArtefactStore
) -> None:
    uri = store.put("bundles", "loans", FILES)
    damage(store, uri)
    with pytest.raises(ArtefactError, match=r"model\.txt was changed.*again"):
        other.get(uri)
    assert not store.holds(uri)
    assert store.put("bundles", "loans", FILES) == uri
    assert contents(other.get(uri)) == FILES
    damage(store, uri, NAME, b"{}")
    assert not store.holds(uri)
    assert store.put("bundles", "loans", FILES) == uri
    assert store.holds(uri)


@pytest.mark.slow
def test_a_manifest_that_names_other_files_is_another_artefact_s(store: ArtefactStore) -> None:
    first, second = (
        store.put("bundles", "loans", {"model.txt": text}) for text in (b"one", b"two")
    )
    for text in (b'{"files": {"../../x": "00"}}', b"[]", b"{", b"\xff"):
        damage(store, first, NAME, text)
        with pytest.raises(ArtefactError, match="manifest"):
            store.get(first)
    assert contents(store.get(second)) == {"model.txt": b"two"}


def test_a_file_or_a_link_more_is_no_artefact_of_ours(tmp_path: Path) -> None:
    store = ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=SMALL)
    uri = store.put("bundles", "loans", FILES)
    folder = store.get(uri)
    (folder / "model.pkl").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"holds 'model\.pkl', which"):
        store.get(uri)
    (folder / "model.pkl").unlink()
    (folder / "model.txt").unlink()
    (folder / "model.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="link"):
        store.get(uri)


def test_what_is_not_there_is_away_and_says_where_it_was_looked_for(store: ArtefactStore) -> None:
    with pytest.raises(Unavailable, match=f"is not in {store.root}.*EVERGREEN_STORE_URI"):
        store.get(f"store:bundles/loans/{'ab' * 32}")
    with pytest.raises(Unavailable, match="is not in"):
        store.read("store:reports/loans/2026-03-01/drift.html")
    assert not store.holds(f"store:bundles/loans/{'ab' * 32}")
    assert store.entries("bundles", "loans") == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "", ".hidden", "a\0b"])
def test_a_file_of_an_artefact_never_leads_out_of_it(store: ArtefactStore, name: str) -> None:
    with pytest.raises(ArtefactError, match="plain names"):
        store.put("bundles", "loans", {name: b"x"})


def test_what_is_written_anew_is_replaced_as_a_whole(
    store: ArtefactStore, other: ArtefactStore
) -> None:
    uri = "store:reports/loans/2026-03-01/scores.csv"
    assert not store.is_there(uri)
    store.write(uri, "one")
    assert other.read(uri) == b"one"
    with contextlib.suppress(ZeroDivisionError), store.written(uri) as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError
    assert other.read(uri) == b"one"
    with store.written(uri) as path:
        assert path.suffix == ".csv"
        path.write_bytes(b"two")
    assert other.read(uri) == b"two"
    assert other.is_there(uri)
    assert not list((store.home / "cache").glob("**/*")) or store.is_local


def test_what_is_removed_is_put_back_where_somebody_needs_it_after_all(
    store: ArtefactStore, other: ArtefactStore
) -> None:
    uri = store.put("bundles", "loans", FILES)
    (entry,) = store.entries("bundles", "loans")
    assert (entry.uri, entry.bytes > 4) == (uri, True)
    seen: list[bool] = []

    def needed_after_all() -> bool:
        seen.append(store.holds(uri))
        return False

    assert not store.remove(entry, still_unneeded=needed_after_all)
    assert seen == [False], "nobody finds it while that is asked"
    assert contents(other.get(uri)) == FILES
    assert store.remove(entry)
    assert not store.holds(uri)
    assert store.entries("bundles", "loans") == []
    assert not store.remove(entry)


def test_an_upload_during_a_removal_is_whole(store: ArtefactStore) -> None:
    uri = store.put("bundles", "loans", FILES)
    (entry,) = store.entries("bundles", "loans")

    def put_meanwhile() -> bool:
        assert store.put("bundles", "loans", FILES) == uri
        return True

    assert store.remove(entry, still_unneeded=put_meanwhile)
    assert store.holds(uri)


def test_an_upload_that_was_killed_is_not_found_and_goes_as_any_other(
    store: ArtefactStore,
) -> None:
    uri = store.put("bundles", "loans", FILES)
    if store.is_local:
        Path(store.where(uri), NAME).unlink()
    else:
        import fsspec

        system, path = fsspec.core.url_to_fs(store.where(uri))
        system.rm_file(f"{path}/{NAME}")
    assert not store.holds(uri)
    (entry,) = store.entries("bundles", "loans")
    assert store.remove(entry)
    assert store.entries("bundles", "loans") == []


def test_all_of_one_use_case_goes_and_of_one_that_is_called_alike_stays(
    s3_store: S3Store, tmp_path: Path
) -> None:
    store = ArtefactStore(s3_store.uri, tmp_path, cache_bytes=SMALL)
    kept = [store.put("bundles", name, FILES) for name in ("shop", "shop_two")]
    store.write("store:reports/shop/2026-03-01/drift.html", "page")
    assert set(store.sizes("shop")) == {
        f"{s3_store.uri}/{kind}/shop" for kind in ("bundles", "reports")
    }
    store.remove_all("shop")
    assert store.sizes("shop") == {}
    assert [store.holds(uri) for uri in kept] == [False, True]


@pytest.mark.slow
def test_many_processes_and_threads_at_once_get_whole_artefacts(
    store: ArtefactStore, root: str, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from include.artefacts.store import ArtefactStore\n"
        "store = ArtefactStore(sys.argv[1], Path(sys.argv[2]), cache_bytes=10**7)\n"
        "files = {f'f{n}': bytes([n]) * 1000 for n in range(20)}\n"
        "for _ in range(5):\n"
        "    uri = store.put('bundles', 'loans', files)\n"
        "    assert {p.name: p.read_bytes() for p in store.get(uri).iterdir()} == files\n"
        "print(uri)\n"
    )
    home = tmp_path / "shared-home"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, root, str(home)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    (uri,) = answers
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.get(uri.strip()))) for _ in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert not [name for name in os.listdir(found[0].parent.parent) if name.startswith(".")]


def test_a_store_that_was_copied_into_a_folder_or_out_of_it_is_read_there(
    s3_store: S3Store, tmp_path: Path
) -> None:
    import fsspec

    remote = ArtefactStore(s3_store.uri, tmp_path / "home", cache_bytes=SMALL)
    uri = remote.put("bundles", "loans", FILES)
    system, path = fsspec.core.url_to_fs(s3_store.uri)
    system.get(f"{path}/", str(tmp_path / "copied"), recursive=True)
    local = ArtefactStore(str(tmp_path / "copied"), tmp_path / "other", cache_bytes=SMALL)
    assert contents(local.get(uri)) == FILES
    assert local.put("bundles", "loans", FILES) == uri
    remote.remove_all("loans")
    system.put(str(tmp_path / "copied") + "/", f"{path}/", recursive=True)
    assert remote.holds(uri)


def test_a_bucket_that_is_not_there_is_named_with_the_remedy(
    s3_store: S3Store, tmp_path: Path
) -> None:
    store = ArtefactStore("s3://evergreen-no-such-bucket/x", tmp_path, cache_bytes=1000)
    for write in (
        lambda: store.put("bundles", "loans", FILES),
        lambda: store.write("store:reports/loans/a.html", "text"),
    ):
        with pytest.raises(Unavailable, match=r"written \(.*bucket.*\); make the place") as told:
            write()
        assert "None" not in str(told.value)


def test_the_names_of_an_artefact_are_on_the_disk_before_the_records_name_it(
    tmp_path: Path, synced: Synced
) -> None:
    store = ArtefactStore(str(tmp_path / "store"), tmp_path / "home", cache_bytes=SMALL)
    store.put("bundles", "visits", FILES)
    (place,) = (tmp_path / "store" / "bundles" / "visits").iterdir()
    assert synced.names[-1] == "visits", "the name of it all comes last"
    assert "more" in synced.names
    assert place.name in synced.seen_in(place.parent)[-1]
