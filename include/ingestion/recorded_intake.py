"""What ingestion has recorded of the sources, over all partitions of a use case."""

from __future__ import annotations

from include.pipeline.outputs import IngestedSource, IngestOutputs, StaticVersion
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.records.records import StageResult

STAGE = "ingest_data"


class RecordedIntake:
    """The recorded ingestions of a use case, each decoded once.

    A range asks for all of them in each of its partitions. Results are told apart by identity: one
    that is recorded anew is another object, so it is decoded again.
    """

    def __init__(self) -> None:
        # The result is kept beside what it decodes to, so that no other object gets its id.
        self._decoded: dict[int, tuple[StageResult, IngestOutputs]] = {}

    def done(self, context: StageContext) -> dict[str, IngestOutputs]:
        """Return what each ingested partition recorded, by key."""
        return {
            result.key: self._outputs(result)
            for result in _results(context)
            if result.state == "done"
        }

    def expected(self, name: str, context: StageContext) -> dict[str, IngestedSource]:
        """Return what each ingested partition recorded of a source that it expects, by key."""
        recorded = {key: outputs.sources.get(name) for key, outputs in self.done(context).items()}
        return {
            key: source
            for key, source in recorded.items()
            if source is not None and source.is_expected
        }

    def versions(self, name: str, context: StageContext) -> dict[str, StaticVersion]:
        """Return the version of a static source that each ingested partition knows, by key."""
        recorded = {
            key: StaticVersion.of(outputs.sources[name])
            for key, outputs in self.done(context).items()
            if name in outputs.sources
        }
        return {key: version for key, version in recorded.items() if version is not None}

    def _outputs(self, result: StageResult) -> IngestOutputs:
        if id(result) not in self._decoded:
            self._decoded[id(result)] = (result, IngestOutputs.of(result))
        return self._decoded[id(result)][1]


def is_newest(context: StageContext) -> bool:
    """Tell whether this run takes what is late or new.

    That is the run of the newest complete partition, while that partition is not recorded.
    """
    result = context.result(STAGE)
    if result is not None and result.state == "done":
        return False
    return partitions.newest_complete(context.use_case, context.started) == context.key


def _results(context: StageContext) -> list[StageResult]:
    if context.preloaded is not None:
        return [result for (stage, _), result in context.preloaded.items() if stage == STAGE]
    return context.records.results.of(context.use_case.name, stage=STAGE)
