"""What a node has counted, in a file beside its rows: how a killed start's minutes are made whole.

The file holds the windows that the records may not have, and up to which byte of each log they
count. It is written before the records are, so that a start that was killed left all that is
needed: its windows, and behind that byte the lines of the seconds since. Nothing is forced to the
disk: a kill takes nothing of a file that is written, and a loss of power takes the log's last
second too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Final, Literal

import msgspec

from include.files import written_aside
from include.predictions.log import CLOSED, OPEN, folder, recover
from include.predictions.window_counts import Counts

log = logging.getLogger(__name__)

_FORMAT: Final = 1


class Position(msgspec.Struct, frozen=True):
    """A place in a log: a segment and a byte; segments are in the order of their names.

    Where none was open, the name is the time at which that was so, as segments' names begin.
    """

    segment: str
    size: int


class KeptWindow(msgspec.Struct, frozen=True):
    """A window with its sums."""

    use_case: str
    release: str
    step: int
    arm: str
    answering: str
    minute: int
    counts: Counts
    closed: bool = False


class SlowLimit(msgspec.Struct, frozen=True):
    """What counting lines of a release needs: its secret, and from when on an answer is slow."""

    key: bytes
    slow_us: int


class KeptBoot(msgspec.Struct):
    """A start of the node. Its requests' ids begin with `prefix`.

    `positions` are by use case, `releases` by id, `floor` is as `Evidence` has it. `has_ended` says
    that it ended in order: nothing is missing, though the records may not have all.
    """

    boot: str
    prefix: str
    windows: list[KeptWindow] = []
    positions: dict[str, Position] = {}
    releases: dict[str, SlowLimit] = {}
    floor: int = 0
    has_ended: bool = False


class _Content(msgspec.Struct):
    format: Literal[1]  # of another version nobody knows what it means
    boots: list[KeptBoot]


_decode = msgspec.json.Decoder(_Content).decode
_encode = msgspec.json.Encoder().encode


class WindowFile:
    """The file of one node, and a folder with links to the segments that are still to be counted.

    Segments are shipped and imported at any time; a link keeps what is in one.
    """

    def __init__(self, path: Path, home: Path) -> None:
        self.path, self._home = path, home
        self.links = path.with_suffix("")

    def write(self, boots: list[KeptBoot]) -> None:
        """Keep starts; without any, no file is left.

        Raises:
            OSError: it cannot be written; what was there stays.
        """
        if not boots:
            self.path.unlink(missing_ok=True)
            return
        with written_aside(self.path, mode=0o600) as temporary:
            temporary.write_bytes(_encode(_Content(_FORMAT, boots)))

    def read(self) -> list[KeptBoot]:
        """Return the starts that were kept; none where there is no file, or none to be read."""
        try:
            return _decode(self.path.read_bytes()).boots
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            log.error("%s cannot be read and is passed over: %s", self.path, error)
            return []

    def hold(self, boots: list[KeptBoot]) -> None:
        """Keep the segments that hold uncounted lines of starts, whoever takes them away.

        Called before this start writes a line of its own.
        """
        shutil.rmtree(self.links, ignore_errors=True)
        for boot in boots:
            for use_case, position in boot.positions.items() if not boot.has_ended else ():
                recover(self._home, use_case)
                for path in sorted(folder(self._home, use_case).glob("*")):
                    if path.suffix in (OPEN, CLOSED) and path.stem >= position.segment:
                        self._link(path, self.links / boot.boot / use_case)

    def _link(self, path: Path, place: Path) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
            os.link(path, place / f"{path.stem}{CLOSED}")
        except OSError as error:  # then its lines are not counted, and its start stays unknown
            log.warning("%s cannot be kept until it is counted: %s", path, error)

    def held(self, boot: KeptBoot, use_case: str) -> list[Path]:
        """Return the segments of a start that were kept, oldest first."""
        return sorted((self.links / boot.boot / use_case).glob(f"*{CLOSED}"))

    def let_go(self, boot: KeptBoot) -> None:
        """Forget the segments of a start that is counted."""
        shutil.rmtree(self.links / boot.boot, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds those of another start
            self.links.rmdir()
