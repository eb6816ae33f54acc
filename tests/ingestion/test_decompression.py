"""A text from outside is unpacked and checked; a bomb, damage and other encodings are refused."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from include.ingestion import decompression
from include.ingestion.decompression import (
    NotUtf8,
    Refused,
    Text,
    first_line,
    read_binary,
    read_text,
)


def checked(folder: Path, data: bytes, encoding: str = "utf-8") -> Text:
    path = folder / "in.csv"
    path.write_bytes(data)
    return read_text(path, data[:8], folder / "unpacked", encoding=encoding)


TEXT = "id,name\r\n1,café\r\n".encode()


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT, "utf-8"),
        (b"\xef\xbb\xbf" + TEXT, "utf-8"),
        (gzip.compress(TEXT, mtime=0), "utf-8"),
        (gzip.compress(TEXT[:5], mtime=0) + gzip.compress(TEXT[5:], mtime=0) + b"\0\0", "utf-8"),
        (TEXT.decode().encode("utf-16"), "utf-16"),
        (TEXT.decode().encode("cp1252"), "cp1252"),
        (b"\xef\xbb\xbf" + TEXT, "utf-8-sig"),
    ],
    ids=["plain", "bom", "gzip", "two gzips", "utf-16", "cp1252", "utf-8-sig"],
)
def test_a_text_is_utf8_without_a_mark_and_its_digest_is_of_the_original(
    tmp_path: Path, data: bytes, encoding: str
) -> None:
    text = checked(tmp_path, data, encoding)
    assert text.path.read_bytes() == TEXT
    assert text.sha256 == hashlib.sha256(data).hexdigest()
    assert not text.mixed


def test_zstd_is_unpacked_and_a_cut_off_one_is_refused(tmp_path: Path) -> None:
    with (
        pa.OSFile(str(tmp_path / "in.zst"), "wb") as raw,
        pa.CompressedOutputStream(raw, "zstd") as out,
    ):
        out.write(TEXT * 1_000)
    data = (tmp_path / "in.zst").read_bytes()
    assert checked(tmp_path, data).path.read_bytes() == TEXT * 1_000
    with pytest.raises(Refused, match="damaged zstd"):
        checked(tmp_path, data[:20] + b"\xff" * 20)


def test_lines_that_end_in_several_ways_are_told() -> None:
    ends = decompression._Ends()
    for piece in (b"a\r", b"\nb\n", b"c\r\n"):
        ends.count(piece)
    assert (ends.crlf, ends.lf, ends.cr) == (2, 3, 2), "a CRLF may stand over two pieces"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04rest", "is a zip file \\(or an Excel workbook\\)"),
        (b"\xfd7zXZ\x00", "is an xz file"),
        (b"PAR1", "is a Parquet file; write format: parquet"),
        (b"a\0b", "NUL byte at offset 1"),
        ("caf\u00e9".encode()[:-1], "ends in the middle of a character"),
        (gzip.compress(TEXT, mtime=0)[:-9], "cut off at byte"),
        (b"\x1f\x8b" + b"\xff" * 20, "damaged gzip file, at byte"),
    ],
)
def test_damage_and_other_formats_are_refused_by_their_place(
    tmp_path: Path, data: bytes, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        checked(tmp_path, data)


def test_what_is_not_utf8_says_what_it_may_be(tmp_path: Path) -> None:
    for data, encodings in (
        (b"caf\xe9,1", ("cp1252", "latin-1")),
        ("a".encode("utf-16"), ("utf-16",)),
        (gzip.compress("a".encode("utf-16"), mtime=0), ("utf-16",)),
    ):
        with pytest.raises(NotUtf8) as refusal:
            checked(tmp_path, data)
        assert refusal.value.encodings == encodings
    assert decompression.western(b"caf\xe9") == "cp1252"
    assert decompression.western(b"\x81") == "latin-1"
    with pytest.raises(Refused, match="is not ascii at offset 3"):
        checked(tmp_path, b"caf\xe9", "ascii")


@pytest.mark.parametrize("byte_order", ["le", "be"])
def test_utf16_without_its_mark_is_told_by_its_zeros(tmp_path: Path, byte_order: str) -> None:
    data = ("номер,имя\n" + "".join(f"{n},Анна\n" for n in range(9))).encode(f"utf-16-{byte_order}")
    with pytest.raises(NotUtf8, match=f"write encoding: utf-16-{byte_order} under") as refusal:
        checked(tmp_path, data)
    assert refusal.value.encodings == (f"utf-16-{byte_order}",)
    with pytest.raises(Refused, match=r"no mark of byte order at its beginning.* utf-16-le"):
        checked(tmp_path, data, "utf-16")
    assert checked(tmp_path, data, f"utf-16-{byte_order}").path.read_text().count("Анна") == 9


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id,name\n1,Köln\n", "cp1252"),
        ("id\n1,Кот\n", "cp1251"),
        ("\ufeffid,name\n1,a\n", "latin-1"),
    ],
)
def test_utf8_is_not_read_as_the_letters_of_another_encoding(
    tmp_path: Path, text: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes the file has gone over to UTF-8: read as declared, all letters would be others."""
    for size in (1, 3, 1 << 20):
        monkeypatch.setattr(decompression, "CHUNK", size)
        with pytest.raises(Refused, match=f"is UTF-8, and not {encoding}.* leave encoding out"):
            checked(tmp_path, text.encode(), encoding)
    # One pair of neighbours that are a rare letter in UTF-8 is chance.
    chance = "id,name\n1,CAFÉ™\n".encode("cp1252")
    assert checked(tmp_path, chance, "cp1252").path.read_text().endswith("CAFÉ™\n")


@pytest.mark.parametrize("turned", [False, True])
def test_a_text_of_two_encodings_is_refused(tmp_path: Path, turned: bool) -> None:
    parts = ["1,Köln\n".encode(), "2,München\n".encode("cp1252")]
    with pytest.raises(Refused, match="is UTF-8 in other lines, and not at offset") as refusal:
        checked(tmp_path, b"id,name\n" + b"".join(parts[::-1] if turned else parts))
    assert not isinstance(refusal.value, NotUtf8)  # a draft does not take it for the one


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "RATIO_FROM", 1 << 20)
    with pytest.raises(Refused, match="more than 200 times its size"):
        checked(tmp_path, gzip.compress(b"0" * (8 << 20)))
    monkeypatch.setattr(decompression, "MAX_BYTES", 10)
    with pytest.raises(Refused, match="is larger than"):
        checked(tmp_path, b"0" * 11)


def test_an_error_is_told_by_its_first_line_without_runs_of_blanks() -> None:
    assert first_line(ValueError("\n a  b\tc\nmore")) == "a b c"
    assert first_line(ValueError("")) == "ValueError"
    assert len(first_line(ValueError("x" * 1_000))) == 400


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b"id,name\n", "parquet", "is no Parquet file: it begins with b'id,name"),
        (b"PK\x03\x04", "parquet", "by its first bytes it is a zip file"),
        (
            gzip.compress(b"PAR1", mtime=0),
            "feather",
            "no Feather file: by its first .* a Parquet file",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xlsx", r"an old Excel workbook \(.xls\), or one"),
        (b"PARE", "parquet", "an encrypted Parquet file"),
    ],
)
def test_what_is_of_another_format_than_its_name_says_is_named(
    tmp_path: Path, data: bytes, kind: str, says: str
) -> None:
    path = tmp_path / "in"
    path.write_bytes(data)
    with pytest.raises(Refused, match=says):
        read_binary(path, data[:8], tmp_path / "unpacked", kind=kind)


def test_a_format_that_is_no_text_is_unpacked_within_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unpacked = tmp_path / "in", tmp_path / "unpacked"
    path.write_bytes(b"PAR1 and more")
    assert read_binary(path, b"PAR1", unpacked, kind="parquet") == path
    data = gzip.compress(b"PAR1 and more")
    path.write_bytes(data)
    assert read_binary(path, data[:8], unpacked, kind="parquet") == unpacked
    assert unpacked.read_bytes() == b"PAR1 and more"
    monkeypatch.setattr(decompression, "MAX_BYTES", 10)
    with pytest.raises(Refused, match="is larger than"):
        read_binary(path, data[:8], unpacked, kind="parquet")
