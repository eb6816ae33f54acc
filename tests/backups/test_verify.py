"""A piece of a backup that rots is found and written anew, and names the backups that it hurts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from include.backups.manifest import Manifest, Piece
from include.backups.repository import Repository, files_of
from include.errors import ArtefactError
from tests.backups.place import Target, back_up, take
from tests.builders.judging import NAME, Bench, new_bench


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """An installation with features in its lake."""
    bench = new_bench(tmp_path_factory.mktemp("verify") / "home")
    bench.write(days=3, recorded=2)
    bench.records.close()
    return bench


@pytest.fixture
def kept(bench: Bench, tmp_path: Path) -> Repository:
    """A place with one backup."""
    repository = Repository(str(tmp_path / "kept"))
    take(bench, repository)
    return repository


def rows_of(kept: Repository, manifest: Manifest) -> Piece:
    """Return a file of the lake, which no backup reads twice."""
    file = next(file for file in files_of(kept, manifest) if file.path.endswith(".parquet"))
    return Piece(file.digest, file.bytes)


def rot(kept: Repository, piece: Piece) -> None:
    path = Path(kept.tree.root) / "objects" / piece.digest[:2] / piece.digest
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_rotted_is_found_and_written_anew(
    bench: Bench, kept: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kept.manifest()
    rot(kept, rows_of(kept, first))
    assert back_up(kept.tree.root) == 0, "it compares sizes alone, else each night reads all"
    second = kept.manifest()
    target = Target(tmp_path / "other", bench.settings.usecases)
    with pytest.raises(ArtefactError, match=r"`evergreen backup TARGET --verify` writes anew"):
        target.restore(kept)
    capsys.readouterr()
    assert back_up(kept.tree.root, verify=True) == 1
    said = capsys.readouterr().out
    for manifest in (first, second):
        assert f"note: backup {manifest.name}: 1 damaged or missing pieces" in said
        assert f"note: backup {manifest.name} is whole again" in said
    assert back_up(kept.tree.root, verify=True) == 0
    assert target.restore(kept, first).files == first.file_count


def test_a_backup_whose_files_are_nowhere_any_more_is_named(
    bench: Bench, kept: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kept.manifest()
    piece = rows_of(kept, first)
    rot(kept, piece)
    shutil.rmtree(bench.home / "lake" / NAME / "labels")
    features = bench.lake.files(next(iter(_feature_tables(bench))))
    for path in features:
        Path(path).unlink()
    assert back_up(kept.tree.root, verify=True) == 1
    said = capsys.readouterr().out
    manifest = Path(kept.tree.root) / "backups" / f"{first.name}.json"
    assert f"1 of its pieces are nowhere any more, so it cannot be restored; remove {manifest}" in (
        said
    )


def _feature_tables(bench: Bench) -> list[str]:
    root = Path(bench.settings.lake_root)
    return [str(each.relative_to(root)) for each in (root / NAME / "features").iterdir()]


def test_a_damaged_manifest_is_named_and_ends_no_later_backup(
    kept: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Path(kept.tree.root) / "backups" / f"{kept.names()[0]}.json"
    manifest.write_text(manifest.read_text().replace('"epoch": 1', '"epoch": 7'))
    assert back_up(kept.tree.root) == 0
    assert f"{manifest} was changed" in capsys.readouterr().out
    assert back_up(kept.tree.root, verify=True) == 1
    assert f"note: {manifest} was changed" in capsys.readouterr().out
    assert len(kept.names()) == 3


@pytest.mark.parametrize("content", [b'{"name": "\xe1"}', b'{"note": ' + b"[" * 100_000])
def test_a_manifest_that_is_no_text_is_damaged(content: bytes) -> None:
    with pytest.raises(ArtefactError, match=r"^that one cannot be read .*restore an earlier one"):
        Manifest.opened(content, "that one")


def test_no_backup_is_removed_where_one_that_stays_cannot_be_read(
    bench: Bench, kept: Repository
) -> None:
    newest = take(bench, kept)
    rot(kept, newest.files)
    before = kept.names()
    with pytest.raises(ArtefactError, match=rf"no older backup is removed, since {newest.name}"):
        kept.forget(1, now=0.0)
    assert kept.names() == before
