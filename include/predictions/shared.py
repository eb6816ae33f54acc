"""The place to which nodes ship closed segments, where they share no folder with the import.

A folder that all machines mount, or an object store: `EVERGREEN_SEGMENTS_URI`. A segment keeps its
name there, so one that is shipped twice, or shipped again after its import, is known.

A node leaves a mark when it begins to ship. Without one, that nothing is there may as well mean
that the setting names another place, or a folder that is not mounted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.errors import SourceError
from include.files import written_aside
from include.object_stores import explain, explained, filesystem, shown
from include.predictions.log import CLOSED, SET_ASIDE, Segment


@dataclass(frozen=True, slots=True)
class SharedSegment(Segment):
    """A segment in the shared place; `path` is its path there."""

    place: SharedPlace = field(compare=False, kw_only=True)

    @property
    def where(self) -> str:
        """The folder that it lies in, as people find it."""
        return f"{self.place.shown}/{self.use_case}"

    def size(self) -> int:
        """Return its bytes."""
        return int(self.place.ask("info", str(self.path))["size"])

    def read(self) -> bytes:
        """Return its content."""
        return bytes(self.place.ask("cat_file", str(self.path)))

    def remove(self) -> None:
        """Remove it, if it is there."""
        self.place.remove(str(self.path))

    def put_aside(self, name: str, content: bytes) -> None:
        """Keep a file beside it."""
        self.place.write(self.use_case, name, content)


SETTING = "EVERGREEN_SEGMENTS_URI"
MARK = "shipped-by-nodes"  # the name of a file; no use case has a hyphen in its name


class SharedPlace:
    """The shared place; errors of any store are OSErrors, which hold no secret."""

    def __init__(self, uri: str) -> None:
        """Open it.

        Raises:
            ConfigError: the library that speaks to such a store is not installed.
            SourceError: it refuses its address or the credentials.
        """
        self.shown = shown(uri.rstrip("/"))
        with explained(uri, "cannot be opened", f"mend {SETTING} or its credentials"):
            self._fs, self._root = filesystem(uri.rstrip("/"))
        protocols = self._fs.protocol
        self._is_local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)

    def ask(self, question: str, *arguments: Any) -> Any:
        """Return the store's answer.

        Raises:
            OSError: it has none.
        """
        try:
            return getattr(self._fs, question)(*arguments)
        except FileNotFoundError as error:
            raise FileNotFoundError(explain(error)) from None
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            raise OSError(f"{type(error).__name__}: {explain(error)}") from None

    def write(self, use_case: str, name: str, content: bytes) -> None:
        """Write a file as a whole: a reader sees none of it or all.

        Raises:
            OSError: it cannot be written.
        """
        self._write(f"{use_case}/{name}", content)

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        if self._is_local:
            with written_aside(Path(path), mode=0o600, durable=True) as temporary:
                temporary.write_bytes(content)
            return
        self.ask("pipe_file", path, content)  # an object is there when its upload has ended

    def begin(self) -> None:
        """Leave the mark that nodes ship here, if it is not there.

        Raises:
            OSError: it cannot be written.
        """
        if not self._is_there(MARK):
            self._write(MARK, b"Nodes ship closed segments of their prediction logs here.\n")

    def has_begun(self, use_case: str) -> bool:
        """Tell whether nodes ship here; nodes of before left no mark, but segments.

        Raises:
            SourceError: the place cannot be reached.
        """
        try:
            return self._is_there(MARK) or bool(self._list(use_case))
        except OSError as error:
            raise self._cannot_list(use_case, error) from error

    def _is_there(self, name: str) -> bool:
        try:
            self._fs.invalidate_cache()  # others write there
            self.ask("info", f"{self._root}/{name}")
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        try:
            self.ask("rm_file", path)
        except FileNotFoundError:
            return

    def remove_all(self, use_case: str) -> None:
        """Remove all that was shipped of a use case.

        Raises:
            OSError: it cannot be removed.
        """
        self._fs.invalidate_cache()
        if self._is_there(use_case):
            self.ask("rm", f"{self._root}/{use_case}", True)

    def segments(self, use_case: str) -> list[Segment]:
        """Return the segments of a use case that were shipped, oldest first.

        Raises:
            SourceError: the place cannot be reached.
        """
        return [
            SharedSegment(use_case, Path(path).stem, Path(path), place=self)
            for path in self._files(use_case, CLOSED)
        ]

    def set_aside(self, use_case: str) -> list[str]:
        """Return the paths of what was set aside.

        Raises:
            SourceError: the place cannot be reached.
        """
        return self._files(use_case, SET_ASIDE)

    def _files(self, use_case: str, suffix: str) -> list[str]:
        try:
            paths = self._list(use_case)
        except OSError as error:
            raise self._cannot_list(use_case, error) from error
        return sorted(
            path
            for path in paths
            if path.endswith(suffix) and not path.rpartition("/")[2].startswith(".")
        )

    def _list(self, use_case: str) -> list[str]:
        try:
            self._fs.invalidate_cache()  # others write there
            paths: list[str] = self.ask("ls", f"{self._root}/{use_case}", False)
        except FileNotFoundError:
            return []
        return paths

    def _cannot_list(self, use_case: str, error: OSError) -> SourceError:
        return SourceError(
            f"{self.shown}/{use_case}: shipped segments cannot be listed ({explain(error)}); "
            f"check that the place is there and answers, and its permissions, or mend {SETTING}"
        )
