"""A zip archive gives its one table; more than one, damage and bombs are told by member."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from include.ingestion import archives, decompression
from include.ingestion.archives import Member, is_office, unpack_member
from include.ingestion.decompression import Refused

ROWS = "id,name\n1,Ann\n"


def packed(
    folder: Path, *members: tuple[str, str], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    path = folder / "in.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return path


def unpacked(path: Path, wanted: str | None = None, kind: str = "zip") -> Member:
    return unpack_member(path, path.parent / "member", wanted=wanted, kind=kind)


def test_the_one_table_is_taken_or_the_member_that_is_named(tmp_path: Path) -> None:
    path = packed(
        tmp_path,
        ("data/", ""),
        ("data/loans.csv", ROWS),
        ("about.pdf", "x"),
        ("__MACOSX/data/._loans.csv", "x"),
        (".DS_Store", "x"),
    )
    member = unpacked(path)
    assert (member.name, member.others) == ("data/loans.csv", ("about.pdf",))
    assert member.path.read_text() == ROWS
    assert unpacked(path, "about.pdf").path.read_text() == "x"
    with pytest.raises(Refused, match=r"no member 'b.csv'; write one of 'data/loans.csv'"):
        unpacked(path, "b.csv")


def test_several_tables_are_named_and_a_known_format_picks_among_them(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.csv", ROWS), ("b.parquet", "x"))
    with pytest.raises(Refused, match=r"holds 2 tables \('a.csv', 'b.parquet'\); write the one"):
        unpacked(path)
    assert unpacked(path, kind="csv").name == "a.csv"
    with pytest.raises(Refused, match="holds 2 tables"):
        unpacked(path, kind="arff")
    assert unpacked(packed(tmp_path, ("table", ROWS)), kind="csv").name == "table"
    with pytest.raises(Refused, match=r"no member whose ending says its format \('table'\)"):
        unpacked(packed(tmp_path, ("table", ROWS)))
    with pytest.raises(Refused, match="empty zip file"):
        unpacked(packed(tmp_path))


@pytest.mark.parametrize(
    "name", ["../a.csv", "/etc/a.csv", "C:/a.csv", "x/../../a.csv", "..\\a.csv"]
)
def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="name leaves the archive"):
        unpacked(packed(tmp_path, (name, ROWS)))
    assert not (tmp_path.parent / "a.csv").exists()


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damage_is_told_by_its_member(tmp_path: Path, compression: int) -> None:
    path = packed(tmp_path, ("a.csv", ROWS * 500), compression=compression)
    whole = path.read_bytes()
    assert unpacked(path).path.read_text() == ROWS * 500
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(Refused, match=r"is damaged in 'a.csv'"):
        unpacked(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match="damaged zip file, or one that was cut off"):
        unpacked(path)


def test_an_encrypted_member_and_a_foreign_compression_are_told(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.csv", ROWS))
    whole = path.read_bytes()
    index = whole.index(b"PK\x01\x02")
    path.write_bytes(whole[: index + 8] + struct.pack("<H", 1) + whole[index + 10 :])
    with pytest.raises(Refused, match=r"is encrypted .*'a.csv'.*without a password"):
        unpacked(path)
    path.write_bytes(whole[: index + 10] + struct.pack("<H", 99) + whole[index + 12 :])
    with pytest.raises(Refused, match="in a way that cannot be read"):
        unpacked(path)


def test_a_bomb_is_refused_whatever_its_index_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, ("a.csv", "0" * (8 << 20)))
    monkeypatch.setattr(decompression, "RATIO_FROM", 1 << 20)
    with pytest.raises(Refused, match="more than 200 times its size"):
        unpacked(path)
    whole = path.read_bytes()
    index = whole.index(b"PK\x01\x02")
    lie = struct.pack("<I", 8 << 20)  # as if it were not compressed
    path.write_bytes(whole[: index + 20] + lie + whole[index + 24 :])
    with pytest.raises(Refused, match=r"more than 200 times its size|damaged"):
        unpacked(path)
    monkeypatch.setattr(archives, "MAX_BYTES", 10)
    with pytest.raises(Refused, match=r"'a.csv' of more than 0 GB"):
        unpacked(packed(tmp_path, ("a.csv", ROWS)))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(Refused, match="zip file of 2 files"):
        unpacked(packed(tmp_path, ("a.csv", ROWS), ("b.csv", ROWS)))


def test_documents_of_office_programs_are_told_from_archives(tmp_path: Path) -> None:
    assert not is_office(packed(tmp_path, ("a.csv", ROWS)))
    assert is_office(packed(tmp_path, ("[Content_Types].xml", "<x/>")))
    assert is_office(packed(tmp_path, ("mimetype", "x")))
