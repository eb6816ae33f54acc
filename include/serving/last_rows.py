"""The rows that a node has read last, in a file beside its artefacts.

A node that starts while the records cannot be reached serves by them. The file holds rows and no
models: what it names is verified by digest like anything else.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Final, Literal

import msgspec

from include.files import written_aside
from include.records.epochs import FIRST
from include.records.records import ServingRow, ServingRows

log = logging.getLogger(__name__)

_FORMAT: Final = 1


class _Content(msgspec.Struct):
    format: Literal[1]  # of another version nobody knows what it means
    rows: list[ServingRow]
    head: int = 0  # of the audit log; files of before have none, nor an epoch
    epoch: int = FIRST


_decode = msgspec.json.Decoder(_Content).decode
_encode = msgspec.json.Encoder().encode


class LastRows:
    """The file of one node; `path` is made with the first rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: bytes | None = None

    def write(self, rows: ServingRows) -> None:
        """Keep rows, epoch and the audit log's head, unless they are those that were kept last.

        Without the judges' beats, which a node that starts must hear anew.

        Raises:
            OSError: they cannot be written; what was there stays.
        """
        kept = [dataclasses.replace(row, beat=None) for row in rows.rows]
        content = _encode(_Content(_FORMAT, kept, rows.head, rows.epoch))
        if content == self._written:
            return
        # Durable: what it is for begins with a machine that came back without its database.
        with written_aside(self.path, mode=0o600, durable=True) as temporary:
            temporary.write_bytes(content)
        self._written = content

    def read(self) -> ServingRows:
        """Return what was kept; no rows where there is no file, or none that can be read."""
        try:
            content = _decode(self.path.read_bytes())
            return ServingRows(tuple(content.rows), head=content.head, epoch=content.epoch)
        except FileNotFoundError:
            return ServingRows(())
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read and is passed over: %s", self.path, error)
            return ServingRows(())
