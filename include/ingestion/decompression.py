"""Files from outside, unpacked and checked, with caps on their size; texts become plain UTF-8."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from include.ingestion.dialects import mixed_ends

MAX_BYTES = 8 << 30
MAX_RATIO = 200  # unpacked bytes a packed byte
RATIO_FROM = 32 << 20  # bytes: small files of repeated lines pack better than that
CHUNK = 1 << 20  # bytes
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
# First bytes of formats, their names, and what to do where another format is expected.
_FORMATS = (
    *((head, "a zip file (or an Excel workbook)", "write format: xlsx") for head in ZIP_HEADS),
    (
        b"\xd0\xcf\x11\xe0",
        "an old Excel workbook (.xls), or one with a password",
        "save it as .xlsx without a password",
    ),
    (b"PAR1", "a Parquet file", "write format: parquet"),
    (b"PARE", "an encrypted Parquet file", "write it without a key"),
    (b"ARROW1", "a Feather (Arrow) file", "write format: feather"),
    (b"FEA1", "a Feather file of version 1", "write format: feather"),
    (b"\xfd7zXZ", "an xz file", "pack it as .gz, .zst or .zip"),
    (b"BZh", "a bzip2 file", "pack it as .gz, .zst or .zip"),
    (b"7z\xbc\xaf", "a 7z archive", "pack it as .gz, .zst or .zip"),
    (b"Rar!", "a rar archive", "pack it as .gz, .zst or .zip"),
)
# The first bytes of formats that are no text.
_BINARY = {
    "parquet": ("Parquet file", (b"PAR1",)),
    "feather": ("Feather file", (b"ARROW1", b"FEA1")),
    "xlsx": ("Excel workbook", ZIP_HEADS),
}


class Refused(Exception):
    """The file is damaged or hostile; the message says where and what to do."""


class NotUtf8(Refused):
    """The text is in another encoding than UTF-8.

    `encodings` are those that it may be in, the likelier first.
    """

    def __init__(self, message: str, *encodings: str) -> None:
        super().__init__(message)
        self.encodings = encodings


@dataclass(frozen=True, slots=True)
class Text:
    """A checked text: the file that holds it in UTF-8, and the digest of the original.

    `mixed` tells whether its lines end in several ways.
    """

    path: Path
    sha256: str
    mixed: bool


def read_text(source: Path, head: bytes, unpacked: Path, *, encoding: str = "utf-8") -> Text:
    """Return a file as checked UTF-8 text without a byte order mark.

    `head` are its first eight bytes, `unpacked` where it is written if it is not such a text as it
    stands: compressed, in another encoding, or with a mark.

    Raises:
        Refused: it is damaged, too large, of another format or in another encoding.
    """
    utf8 = codecs.lookup(encoding).name == "utf-8"
    _refuse_binary(head)
    if utf8 and head.startswith(_UTF16):
        raise _utf16()
    state = hashlib.sha256()
    pieces = _pieces_of(head)
    rewrite = pieces is not _read or not utf8 or head.startswith(codecs.BOM_UTF8)
    decoder, position, size, ends = codecs.getincrementaldecoder(encoding)(), 0, 0, _Ends()
    letters = _Utf8Letters(encoding)
    with source.open("rb") as file, unpacked.open("wb") if rewrite else io.BytesIO() as copy:
        for given in pieces(file, state):
            if utf8 and not position and (found := _utf16_by_zeros(given)) is not None:
                raise NotUtf8(
                    "is UTF-16 without a mark of byte order, by its NUL bytes; write encoding: "
                    f"{found} under the source, or save it as UTF-8",
                    found,
                )
            try:
                text = decoder.decode(given)
            except UnicodeDecodeError as error:
                if utf8 and letters.stand_in_lines(given):
                    raise _two_encodings(given, position + error.start) from None
                raise _other_encoding(
                    given, position + error.start, error.reason, encoding
                ) from None
            except UnicodeError:  # of UTF-16 and UTF-32, at the beginning
                raise Refused(
                    f"has no mark of byte order at its beginning, so it is no {encoding}; write "
                    f"encoding: {encoding}-le (or -be), or leave it out where it is UTF-8"
                ) from None
            letters.look_at(given)
            piece = given if utf8 else text.encode("utf-8")
            _check_nul(piece, size)
            if rewrite:
                copy.write(piece[3:] if size == 0 and piece.startswith(codecs.BOM_UTF8) else piece)
            ends.count(piece)
            position, size = position + len(given), size + len(piece)
            if size > MAX_BYTES:
                raise Refused(f"is larger than {MAX_BYTES >> 30} GB; split it")
    if not utf8 and letters.are_all:
        raise Refused(
            f"is UTF-8, and not {encoding}: read so, its letters would be others; leave encoding "
            "out, or save all files of the source alike"
        )
    if decoder.getstate()[0]:
        raise Refused(f"ends in the middle of a character at offset {position}; it was cut off")
    return Text(
        unpacked if rewrite else source, state.hexdigest(), mixed_ends(ends.crlf, ends.lf, ends.cr)
    )


class _Utf8Letters:
    """The letters beyond ASCII in a text that are UTF-8.

    Of a text with one byte a letter hardly any two neighbours are, and not those of one letter.
    """

    def __init__(self, encoding: str) -> None:
        self._seen: set[str] = set()
        # Where a letter has several bytes, other texts may be UTF-8 too.
        table = bytes(range(128, 256)).decode(encoding, "replace")
        single = len(table) == 128 and table.count("\ufffd") < 64
        self._declared = codecs.lookup(encoding).name == "utf-8"
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._fits = single or self._declared

    @property
    def are_all(self) -> bool:
        """Whether all of the text is UTF-8, and has such letters."""
        return self._fits and not self._decoder.getstate()[0] and _are_letters(self._seen)

    def look_at(self, piece: bytes) -> None:
        """Take in the next piece."""
        enough = self._declared and _are_letters(self._seen)
        if not self._fits or enough or (piece.isascii() and not self._decoder.getstate()[0]):
            return
        try:
            self._see(self._decoder.decode(piece))
        except UnicodeDecodeError:
            self._fits = False

    def stand_in_lines(self, piece: bytes) -> bool:
        """Tell whether they stand in pieces before one that is no UTF-8, or in lines of it."""
        for line in piece.split(b"\n") if not _are_letters(self._seen) else ():
            if not line.isascii():
                with contextlib.suppress(UnicodeDecodeError):
                    self._see(line.decode())
        return _are_letters(self._seen)

    def _see(self, text: str) -> None:
        if not _are_letters(self._seen):
            self._seen |= set(re.findall(r"[^\x00-\x7f]", text))


def _are_letters(seen: set[str]) -> bool:
    """Tell whether letters are too many, or of too common a kind, to be UTF-8 by chance."""
    return len(seen) > 1 or "\ufeff" in seen or bool(seen and min(seen) < "\u0100")


class _Ends:
    """The marks that end lines, counted over pieces of a text; a CRLF counts in all three."""

    def __init__(self) -> None:
        self.crlf = self.lf = self.cr = 0
        self._last = b""

    def count(self, piece: bytes) -> None:
        """Count those of the next piece."""
        self.crlf += piece.count(b"\r\n") + (self._last == b"\r" and piece[:1] == b"\n")
        self.lf += piece.count(b"\n")
        self.cr += piece.count(b"\r")
        self._last = piece[-1:] or self._last


def read_binary(source: Path, head: bytes, unpacked: Path, *, kind: str) -> Path:
    """Return a file of a format that is no text, unpacked where it is compressed.

    `head` are its first eight bytes, `unpacked` where it is written if it is compressed.

    Raises:
        Refused: it is damaged, too large or of another format.
    """
    pieces, path = _pieces_of(head), source
    if pieces is not _read:
        size, path = 0, unpacked
        with source.open("rb") as file, unpacked.open("wb") as out:
            for piece in pieces(file, hashlib.sha256()):
                size += len(piece)
                if size > MAX_BYTES:
                    raise Refused(f"is larger than {MAX_BYTES >> 30} GB; split it")
                out.write(piece)
        with unpacked.open("rb") as file:
            head = file.read(8)
    name, heads = _BINARY[kind]
    if head and not head.startswith(heads):
        found = next((name for magic, name, _ in _FORMATS if head.startswith(magic)), None)
        seen = f"by its first bytes it is {found}" if found else f"it begins with {head!r}"
        raise Refused(
            f"is no {name}: {seen}; mend its ending, set format under the source, or export it "
            "again"
        )
    return path


def _pieces_of(head: bytes) -> Callable[[BinaryIO, Any], Iterator[bytes]]:
    """Return what yields the plain pieces of a file, by its first bytes."""
    if head.startswith(_GZIP):
        return _gunzip
    return _unzstd if head.startswith(_ZSTD) else _read


def _refuse_binary(head: bytes) -> None:
    """Refuse formats that are no text, by their first bytes."""
    for magic, name, remedy in _FORMATS:
        if head.startswith(magic):
            raise Refused(f"is {name}; {remedy}, or store it as plain text, .gz or .zst")


def _utf16() -> NotUtf8:
    return NotUtf8(
        "is UTF-16 (byte 0); write encoding: utf-16 under the source, or save it as UTF-8", "utf-16"
    )


def _check_nul(piece: bytes, offset: int) -> None:
    """Refuse a NUL byte: parsers take it for the end of a text, so what follows would be lost."""
    at = piece.find(b"\0")
    if at >= 0:
        raise Refused(
            f"holds a NUL byte at offset {offset + at} of its text; text files have none: export "
            "it again, or write encoding: utf-16-le (or utf-16-be) where it is "
            "UTF-16 without its mark"
        )


def _utf16_by_zeros(piece: bytes) -> str | None:
    """Return the UTF-16 in which a text is: every second byte of its digits and commas is NUL."""
    low, high = piece[::2].count(0), piece[1::2].count(0)
    if piece.startswith(_UTF16):
        return None
    if min(low, high) == 0 and max(low, high) > max(8, len(piece) / 40):
        return "utf-16-le" if high else "utf-16-be"
    return None


def _two_encodings(piece: bytes, offset: int) -> Refused:
    """Return the refusal of a text some of whose lines are UTF-8 and others are not."""
    return Refused(
        f"is UTF-8 in other lines, and not at offset {offset} of its text: texts of two encodings "
        "were put together. Save the parts as UTF-8 before they are joined, or write encoding: "
        f"{western(piece)} under the source if its letters read right so"
    )


def _other_encoding(piece: bytes, offset: int, reason: str, encoding: str) -> Refused:
    """Return the refusal of bytes that are no text of an encoding, with those they may be of."""
    if codecs.lookup(encoding).name != "utf-8":
        return Refused(
            f"is not {encoding} at offset {offset} of its text ({reason}); mend encoding, or save "
            "it as UTF-8"
        )
    if offset == 0 and piece.startswith(_UTF16):  # in a compressed file
        return _utf16()
    return NotUtf8(
        f"is not UTF-8 at offset {offset} of its text ({reason}); save it as UTF-8, or write "
        f"encoding: {western(piece)} under the source if its letters read right so",
        "cp1252",
        "latin-1",
    )


def western(piece: bytes) -> str:
    """Return the encoding of a text of western Europe, which has one byte a character.

    Five bytes stand for nothing in cp1252; in latin-1 all 256 stand for something.
    """
    try:
        piece.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _read(file: BinaryIO, state: Any) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        state.update(piece)
        yield piece


def _gunzip(file: BinaryIO, state: Any) -> Iterator[bytes]:
    """Yield the unpacked pieces of a gzip file, which may be several joined to one."""
    # 31: a gzip header, and a window of any size.
    unpacker, packed, size, whole = zlib.decompressobj(31), 0, 0, False
    while piece := file.read(CHUNK // 4):
        state.update(piece)
        packed += len(piece)
        while piece:
            if whole:
                unpacker, whole = zlib.decompressobj(31), False
            try:
                text = unpacker.decompress(piece, CHUNK)
            except zlib.error as error:
                at = packed - len(piece)
                raise Refused(
                    f"is a damaged gzip file, at byte {at} or soon after ({error}); fetch it again"
                ) from None
            size += len(text)
            check_ratio(size, packed)
            if text:
                yield text
            whole = unpacker.eof
            piece = unpacker.unused_data if whole else unpacker.unconsumed_tail
            # Tapes and block devices pad a file with zeros.
            if whole and not piece.strip(b"\0"):
                break
    if not whole:
        raise Refused(f"is a gzip file cut off at byte {packed}; fetch it again")


def _unzstd(file: BinaryIO, state: Any) -> Iterator[bytes]:
    counted = _Counted(file, state)
    size = 0
    with pa.CompressedInputStream(pa.PythonFile(counted, mode="r"), "zstd") as stream:
        while True:
            try:
                text = stream.read(CHUNK)
            except OSError as error:
                raise Refused(
                    f"is a damaged zstd file near byte {counted.position} ({first_line(error)}); "
                    "fetch it again"
                ) from None
            if not text:
                return
            size += len(text)
            check_ratio(size, counted.position)
            yield text


class _Counted(io.RawIOBase):
    """A file that counts and digests what is read from it."""

    def __init__(self, file: BinaryIO, state: Any) -> None:
        super().__init__()
        self._file, self._state, self.position = file, state, 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        piece = self._file.read(CHUNK if size < 0 else size)
        self._state.update(piece)
        self.position += len(piece)
        return piece


def check_ratio(size: int, packed: int) -> None:
    if size > RATIO_FROM and size > packed * MAX_RATIO:
        raise Refused(
            f"unpacks to more than {MAX_RATIO} times its size (byte {packed}); it looks like a "
            "bomb: store it unpacked"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened."""
    return re.sub(
        r"\s+",
        " ",
        str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
    )[:400]
