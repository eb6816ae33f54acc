"""Zip archives with a table in them; part of the child process that opens foreign files."""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.ingestion.decompression import CHUNK, MAX_BYTES, Refused, check_ratio, first_line
from include.ingestion.formats import ZIP, kind_of

MAX_MEMBERS = 10_000
_OFFICE = ("[Content_Types].xml", "mimetype")  # an Excel workbook; a sheet of OpenDocument


@dataclass(frozen=True, slots=True)
class Member:
    """The table of an archive: its name there, and where it was unpacked.

    `others` are the archive's other files that may be tables.
    """

    name: str
    path: Path
    others: tuple[str, ...]


def is_office(path: Path) -> bool:
    """Tell whether a zip file is a document of an office program, such as an Excel workbook."""
    with open_archive(path) as archive:
        names = set(archive.namelist())
    return any(name in names for name in _OFFICE)


def unpack_member(path: Path, unpacked: Path, *, wanted: str | None, kind: str) -> Member:
    """Unpack the one table of a zip archive, or the member that is `wanted`.

    Nothing is written but `unpacked`, whatever the members are called.

    Raises:
        Refused: there is none or more than one, or it is encrypted, damaged, too large or a bomb.
    """
    with open_archive(path) as archive:
        files = [info for info in archive.infolist() if not _is_beside(info)]
        info, others = _pick(files, wanted, kind)
        with unpacked.open("wb") as out:
            for piece in member_pieces(archive, info, path.stat().st_size):
                out.write(piece)
    return Member(info.filename, unpacked, others)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip file of which no member is read yet.

    Raises:
        Refused: it is damaged, or has more members than anybody packs by hand.
    """
    try:
        archive = zipfile.ZipFile(path)
    # A hostile index has names in no encoding, or offsets that no file has.
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise Refused(
            f"is a damaged zip file, or one that was cut off ({first_line(error)}); fetch it again"
        ) from None
    if len(archive.filelist) > MAX_MEMBERS:
        archive.close()
        raise Refused(
            f"is a zip file of {len(archive.filelist)} files; at most {MAX_MEMBERS} are looked "
            "through: pack the table alone"
        )
    return archive


def member_pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo, packed: int) -> Iterator[bytes]:
    """Yield the unpacked pieces of a member, within the limits that hold for gzip.

    `packed` is the size of the archive: no member is larger, whatever the index says.

    Raises:
        Refused: it is encrypted, damaged, too large or a bomb.
    """
    if info.flag_bits & 1:
        raise Refused(f"is encrypted (member {_shown(info.filename)}); store it without a password")
    size, packed = 0, max(1, min(info.compress_size, packed))
    try:
        with archive.open(info) as file:
            while piece := file.read(CHUNK):
                size += len(piece)
                check_ratio(size, packed)
                if size > MAX_BYTES:
                    raise Refused(
                        f"holds {_shown(info.filename)} of more than {MAX_BYTES >> 30} GB; split it"
                    )
                yield piece
    except NotImplementedError as error:
        raise Refused(
            f"packs {_shown(info.filename)} in a way that cannot be read ({first_line(error)}); "
            "pack it by deflate, as most programs do"
        ) from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise Refused(
            f"is damaged in {_shown(info.filename)} ({first_line(error)}); fetch it again"
        ) from None


def _pick(
    files: Sequence[zipfile.ZipInfo], wanted: str | None, kind: str
) -> tuple[zipfile.ZipInfo, tuple[str, ...]]:
    """Return the member that is the table, and the names of the others that may be."""
    if wanted is not None:
        tables = [info for info in files if info.filename == wanted]
        if not tables:
            raise Refused(f"has no member {wanted!r}; write one of {_names(files)} as member")
    elif kind == ZIP:
        tables = [info for info in files if kind_of(info.filename) not in (None, ZIP)]
    else:  # the format is known: what is beside, such as a description, is none of it
        tables = [info for info in files if kind_of(info.filename) == kind] or list(files)
    if not files:
        raise Refused("is an empty zip file: no member is a file; pack the table again")
    if not tables:
        raise Refused(
            f"holds no member whose ending says its format ({_names(files)}); write format, and "
            "member where there are several, under the source, or unpack it"
        )
    if len(tables) > 1:
        raise Refused(
            f"holds {len(tables)} tables ({_names(tables)}); write the one that is meant as "
            "member under the source (of `evergreen new`: --member NAME), or unpack it"
        )
    name = tables[0].filename
    # Nothing is written under that name; but who packs so means to write elsewhere.
    if re.search(r"^[/\\]|^[A-Za-z]:|\\|\0", name) or ".." in name.split("/"):
        raise Refused(
            f"has a member whose name leaves the archive, {_shown(name)}; pack it again by its "
            "plain name"
        )
    return tables[0], tuple(info.filename for info in files if info is not tables[0])


def _is_beside(info: zipfile.ZipInfo) -> bool:
    """Tell whether a member is none that a person packed: a folder, or what a system adds."""
    parts = info.filename.split("/")
    return info.is_dir() or parts[0] == "__MACOSX" or re.match(r"[.][^.]", parts[-1]) is not None


def _names(files: Sequence[zipfile.ZipInfo]) -> str:
    names = ", ".join(_shown(info.filename) for info in files[:8])
    return f"{names}, ..." if len(files) > 8 else names or "none"


def _shown(name: str) -> str:
    return repr(name[:80])


def answer_of(member: Member | None) -> dict[str, Any]:
    """Return what the reader says of a member: its name and the others, None and () of none."""
    if member is None:
        return {"member": None, "members": []}
    return {"member": member.name, "members": list(member.others[:20])}
