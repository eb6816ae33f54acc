"""What ingestion has recorded of the sources, over all partitions of a use case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from include.pipeline.ingest_outputs import IngestedSource, IngestOutputs, StaticVersion
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.records.records import StageResult

STAGE = "ingest_data"


class _Decoded(NamedTuple):
    result: StageResult  # kept, so that no other object gets its id
    outputs: IngestOutputs
    versions: dict[str, StaticVersion]


class RecordedIntake:
    """The recorded ingestions of a use case, each decoded once.

    A range asks for all of them in each of its partitions. Results are told apart by identity: one
    that is recorded anew is another object, so it is decoded again. A single run reads them once.
    """

    def __init__(self) -> None:
        self._decoded: dict[int, _Decoded] = {}
        self._read: list[StageResult] | None = None

    def done(self, context: StageContext) -> dict[str, IngestOutputs]:
        """Return what each ingested partition recorded, by key."""
        return {decoded.result.key: decoded.outputs for decoded in self._done(context)}

    def expected(self, name: str, context: StageContext) -> dict[str, IngestedSource]:
        """Return what each ingested partition recorded of a source that it expects, by key."""
        return {
            key: outputs.sources[name]
            for key, outputs in self.done(context).items()
            if name in outputs.sources and outputs.sources[name].is_expected
        }

    def versions(self, name: str, context: StageContext) -> dict[str, StaticVersion]:
        """Return the version of a static source that each ingested partition knows, by key."""
        return {
            decoded.result.key: decoded.versions[name]
            for decoded in self._done(context)
            if name in decoded.versions
        }

    def _done(self, context: StageContext) -> Iterator[_Decoded]:
        for result in self._results(context):
            if result.state == "done":
                yield self._decoded.get(id(result)) or self._decode(result)

    def _results(self, context: StageContext) -> list[StageResult]:
        if context.preloaded is not None:
            return [result for (stage, _), result in context.preloaded.items() if stage == STAGE]
        if self._read is None:
            self._read = context.records.results.of(context.use_case.name, stage=STAGE)
        return self._read

    def _decode(self, result: StageResult) -> _Decoded:
        outputs = IngestOutputs.of(result)
        versions = {name: StaticVersion.of(source) for name, source in outputs.sources.items()}
        static = {name: version for name, version in versions.items() if version is not None}
        decoded = self._decoded[id(result)] = _Decoded(result, outputs, static)
        return decoded


def is_newest(context: StageContext) -> bool:
    """Tell whether this run takes what is late or new.

    That is the run of the newest complete partition, while that partition is not recorded.
    """
    result = context.result(STAGE)
    if result is not None and result.state == "done":
        return False
    return partitions.newest_complete(context.use_case, context.started) == context.key
