"""Whether a recorded ingestion still stands, by the bytes of its sources and the rows in the lake.

The answer of the full comparison follows from the sources' bytes, the code and the use case alone,
so where all are as recorded nothing is parsed. Only SQL keeps no bytes to look at: its rows are
read and compared every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from include.errors import EvergreenError
from include.ingestion import static_versions
from include.ingestion.arrival import readable_partitions
from include.ingestion.file_reader import FileReader
from include.ingestion.files import files_of, has_partition_files
from include.ingestion.recorded_intake import RecordedIntake
from include.ingestion.sources import simulator_digest
from include.lake.digests import combine
from include.pipeline.ingest_outputs import IngestedSource, IngestOutputs
from include.pipeline.stage import StageContext
from include.records.records import StageResult


def source_digest(digests: Mapping[str, str]) -> str:
    """Return one digest over those of a source's files."""
    return combine([f"{file}:{sha}" for file, sha in sorted(digests.items())])


def still_valid(pairs: Sequence[tuple[StageContext, StageResult]], reader: FileReader) -> set[str]:
    """Return the keys of the records that still stand; sources and tables are read once for all."""
    inspection = _Inspection(reader)
    return {context.key for context, result in pairs if inspection.confirms(context, result)}


class _Inspection:
    """What was seen of sources and tables, kept for the partitions that share them."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._recorded = RecordedIntake()
        self._digests: dict[tuple[str, str], str | None] = {}
        self._stored: dict[str, set[str]] = {}
        self._restatements: bool | None = None

    def confirms(self, context: StageContext, result: StageResult) -> bool:
        """Tell whether all sources and raw rows of a partition are as recorded."""
        sources = IngestOutputs.of(result).sources
        if result.state != "done" or set(sources) != set(context.use_case.sources):
            return False
        if unlisted := [
            name for name, source in sources.items() if source.rows and name not in self._stored
        ]:
            # Opening a table is reading its log: mostly waiting.
            with ThreadPoolExecutor(len(unlisted)) as pool:
                keys = pool.map(
                    lambda name: set(context.lake.keys(context.table(f"raw/{name}"))), unlisted
                )
                self._stored.update(zip(unlisted, keys, strict=True))
        return all(
            self._is_stored(context, name, source) and self._is_unchanged(context, name, source)
            for name, source in sources.items()
        )

    def _is_stored(self, context: StageContext, name: str, source: IngestedSource) -> bool:
        return not source.rows or source.stored_under(context.key) in self._stored[name]

    def _is_unchanged(self, context: StageContext, name: str, recorded: IngestedSource) -> bool:
        source = context.use_case.sources[name]
        # A recorded version is not read again, but a restatement of it is taken over.
        if source.kind == "static":
            if not self._restated(context):
                return True
            versions = static_versions.current_versions(self._recorded.versions(name, context))
            return versions[str(recorded.version)].digest == recorded.digest
        if not recorded.is_expected:
            return True  # a source outside its history is not read
        if recorded.waiting:
            return False  # what waits may be taken since, and more may have come
        # Files of no partition are the same for all: they are digested once.
        place = (name, context.key if has_partition_files(source) else "")
        if place not in self._digests:
            self._digests[place] = self._digest(context, name)
        return self._digests[place] == recorded.source_digest

    def _restated(self, context: StageContext) -> bool:
        if self._restatements is None:
            self._restatements = bool(
                context.records.audit.entries(
                    context.use_case.name, action="partition.restated", limit=1
                )
            )
        return self._restatements

    def _digest(self, context: StageContext, name: str) -> str | None:
        """Return the digest of a source as it is now, or None where only its rows can tell."""
        source = context.use_case.sources[name]
        if source.sql is not None:
            return None
        if source.simulator is not None:
            return source_digest(simulator_digest(source, context.use_case, context.settings))
        try:
            digests = {}
            for key in readable_partitions(context.use_case, name, context.key):
                for shown, path in files_of(
                    name, context.use_case, context.settings, key, self._reader
                ):
                    with path.open("rb") as file:
                        digests[shown] = hashlib.file_digest(file, "sha256").hexdigest()
            return source_digest(digests)
        except (EvergreenError, OSError):
            return None  # the reader says what is wrong, and where
