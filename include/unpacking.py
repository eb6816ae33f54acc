"""Text files from outside, as plain UTF-8: unpacked and checked byte by byte, with caps on size and on compression."""

from __future__ import annotations

import codecs
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

MAX_BYTES = 8 << 30
MAX_RATIO = 200
RATIO_FROM = 32 << 20
CHUNK = 1 << 20


class Refused(Exception):
    """The file is damaged or hostile; the message says where and what to do."""


def plain(source: Path, head: bytes, unpacked: Path) -> tuple[Path, str]:
    """Return the file as checked UTF-8 text without BOM (unpacked where it is compressed), and the digest of the original."""
    for magic, name in ((b"PK\x03\x04", "zip"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2"), (b"PAR1", "Parquet")):
        if head.startswith(magic):
            raise Refused(f"is a {name} file; set format, or store it as plain text, .gz or .zst")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused("is UTF-16 (byte 0); save it as UTF-8")
    state = hashlib.sha256()
    if head.startswith(b"\x1f\x8b"):
        pieces: Callable[[BinaryIO, Any], Iterator[bytes]] = _gunzip
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        pieces = _unzstd
    else:
        pieces = _read
    rewrite = pieces is not _read or head.startswith(codecs.BOM_UTF8)
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with source.open("rb") as file, unpacked.open("wb") if rewrite else io.BytesIO() as copy:
        for piece in pieces(file, state):
            at = piece.find(b"\0")
            if at >= 0:
                raise Refused(f"holds a NUL byte at offset {position + at} of its text; text files have none: export it again")
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                raise Refused(
                    f"is not UTF-8 at offset {position + error.start} of its text ({error.reason}); save it as UTF-8"
                ) from None
            if rewrite:
                copy.write(piece[3:] if position == 0 and piece.startswith(codecs.BOM_UTF8) else piece)
            position += len(piece)
            if position > MAX_BYTES:
                raise Refused(f"is larger than {MAX_BYTES >> 30} GB; split it")
    if decoder.getstate()[0]:
        raise Refused(f"ends in the middle of a character at offset {position}; it was cut off")
    return (unpacked if rewrite else source), state.hexdigest()


def _read(file: BinaryIO, state: Any) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        state.update(piece)
        yield piece


def _gunzip(file: BinaryIO, state: Any) -> Iterator[bytes]:
    unpacker, packed, made, whole = zlib.decompressobj(31), 0, 0, False
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
                raise Refused(f"is a damaged gzip file, at byte {at} or soon after ({error}); fetch it again") from None
            made += len(text)
            _check_ratio(made, packed)
            if text:
                yield text
            whole = unpacker.eof
            piece = unpacker.unused_data if whole else unpacker.unconsumed_tail
            if whole and not piece.strip(b"\0"):
                break
    if not whole:
        raise Refused(f"is a gzip file cut off at byte {packed}; fetch it again")


def _unzstd(file: BinaryIO, state: Any) -> Iterator[bytes]:
    counted = _Counted(file, state)
    made = 0
    with pa.CompressedInputStream(pa.PythonFile(counted, mode="r"), "zstd") as stream:
        while True:
            try:
                text = stream.read(CHUNK)
            except OSError as error:
                raise Refused(
                    f"is a damaged zstd file near byte {counted.position} ({first_line(error)}); fetch it again"
                ) from None
            if not text:
                return
            made += len(text)
            _check_ratio(made, counted.position)
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


def _check_ratio(made: int, packed: int) -> None:
    if made > RATIO_FROM and made > packed * MAX_RATIO:
        raise Refused(f"unpacks to more than {MAX_RATIO} times its size (byte {packed}); it looks like a bomb: store it unpacked")


def first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened."""
    return re.sub(r"\s+", " ", str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)[:400]
