"""Whether a recorded ingestion still stands: its sources hold the same bytes, and the lake its raw
rows.

The answer of the full comparison follows from the sources' bytes, the code and the use case alone,
so where all are as recorded nothing is parsed. Only SQL keeps no bytes to look at: its rows are
read and compared every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from include.errors import EvergreenError
from include.ingestion import static_versions
from include.ingestion.arrival import reach
from include.ingestion.file_reader import FileReader
from include.ingestion.files import files_of, partitioned
from include.ingestion.sources import simulated
from include.lake.digests import combine
from include.pipeline.stage import StageContext
from include.records.records import StageResult


def source_digest(digests: Mapping[str, str]) -> str:
    """Return one digest over those of a source's files."""
    return combine([f"{file}:{sha}" for file, sha in sorted(digests.items())])


def still_valid(pairs: Sequence[tuple[StageContext, StageResult]], reader: FileReader) -> set[str]:
    """Return the keys of the records that still stand; each source, and each table of the lake,
    is looked at once.
    """
    looked = _Look(reader)
    return {context.key for context, recorded in pairs if looked.stands(context, recorded)}


class _Look:
    """What was found of sources and tables, kept for the partitions that share them."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._digests: dict[tuple[str, str], str | None] = {}
        self._stored: dict[str, set[str]] = {}
        self._restatements: bool | None = None

    def stands(self, context: StageContext, recorded: StageResult) -> bool:
        """Tell whether all sources and raw rows of a partition are as recorded."""
        facts: Mapping[str, Mapping[str, Any]] = recorded.outputs.get("sources", {})
        if recorded.state != "done" or set(facts) != set(context.use_case.sources):
            return False
        if lacking := [
            name for name, fact in facts.items() if fact["rows"] and name not in self._stored
        ]:
            # Opening a table is reading its log: mostly waiting.
            with ThreadPoolExecutor(len(lacking)) as pool:
                listed = pool.map(
                    lambda name: set(context.lake.keys(context.table(f"raw/{name}"))), lacking
                )
                self._stored.update(zip(lacking, listed, strict=True))
        return all(
            self._kept(context, name, fact) and self._same(context, name, fact)
            for name, fact in facts.items()
        )

    def _kept(self, context: StageContext, name: str, fact: Mapping[str, Any]) -> bool:
        if not fact["rows"]:
            return True
        return fact.get("version", context.key) in self._stored[name]

    def _same(self, context: StageContext, name: str, fact: Mapping[str, Any]) -> bool:
        source = context.use_case.sources[name]
        # A recorded version is not read again, but a restatement of it is taken over.
        if source.kind == "static":
            return (
                not self._restated(context)
                or static_versions.recorded(name, context)[fact["version"]]["digest"]
                == fact["digest"]
            )
        if not fact.get("expected", True):
            return True  # a source outside its history is not read
        if "waiting" in fact:
            return False  # what waits may be taken since, and more may have come
        asked = (name, context.key if partitioned(source) else "")
        if asked not in self._digests:
            self._digests[asked] = self._digest(context, name)
        return bool(self._digests[asked] == fact["source_digest"])

    def _restated(self, context: StageContext) -> bool:
        if self._restatements is None:
            self._restatements = bool(
                context.records.audit.entries(
                    context.use_case.name, action="partition.restated", limit=1
                )
            )
        return self._restatements

    def _digest(self, context: StageContext, name: str) -> str | None:
        """Return the digest of a source as it is now; None where its rows must tell, or it
        cannot be read.
        """
        source = context.use_case.sources[name]
        if source.sql is not None:
            return None
        if source.simulator is not None:
            return source_digest(simulated(source, context.use_case, context.settings))
        try:
            found = {}
            for key in reach(context.use_case, name, context.key):
                for shown, path in files_of(
                    name, context.use_case, context.settings, key, self._reader
                ):
                    with path.open("rb") as file:
                        found[shown] = hashlib.file_digest(file, "sha256").hexdigest()
            return source_digest(found)
        except (EvergreenError, OSError):
            return None  # the reader says what is wrong, and where
