"""Tell what each partition is: done, running, waiting for what, refused why, stale, missing.

Pure but for `status_rows`: records in, rows out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from include.clock import utc_now
from include.errors import ArtefactError, ConfigError
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.feature_outputs import FeatureOutputs
from include.pipeline.flow import BESIDE, CHAIN, GOAL
from include.pipeline.ingest_outputs import IngestOutputs
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time.partitions import between, newest_complete

if TYPE_CHECKING:
    from datetime import datetime

    from include.config.use_case import UseCase
    from include.records.records import Records

Kind = Literal["done", "running", "waiting", "refused", "stale", "missing"]

LOOKBACK = "loaded as lookback of later partitions; nothing asks more of it"
# Errors that another try may not meet again.
PASSING = ("MissingPartition", "Unavailable", "Busy", "Conflict")


class RecordedPartition(Protocol):
    """What is read of a partition's record."""

    @property
    def key(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def target(self) -> str: ...


class RecordedResult(Protocol):
    """What is read of a stage's record."""

    @property
    def key(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def outputs(self) -> Mapping[str, Any]: ...
    @property
    def reads(self) -> Sequence[Sequence[str]]: ...


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One partition.

    `stage` is the one that `kind` is about: the last, the running, the awaited or the refusing one.
    """

    key: str
    kind: Kind
    stage: str
    detail: str
    mode: str = ""
    target: str = ""


def rows(
    use_case: str,
    *,
    partitions: Iterable[RecordedPartition],
    results: Iterable[RecordedResult],
    running: Mapping[tuple[str, str], str],
    expected: Sequence[str] = (),
    loaded: Mapping[str, Collection[str]] | None = None,
) -> list[StatusRow]:
    """Return a row a partition, oldest first.

    `running` maps (stage, key) to the holder of a live lease; `expected` are the keys that should
    be there: those of them that no record knows are missing. `loaded` is what `keys_of_load`
    returns.
    """
    by_key: dict[str, dict[str, RecordedResult]] = {}
    for result in results:
        by_key.setdefault(result.key, {})[result.stage] = result
    digests = current_digests(use_case, by_key)
    _mark_stale(use_case, by_key, digests)
    partitions_by_key = {partition.key: partition for partition in partitions}
    recorded = [
        _row(use_case, partition, by_key.get(key, {}), running, digests, loaded or {})
        for key, partition in partitions_by_key.items()
    ]
    fill = "evergreen load-history {0} --from {1} --to {1}"
    gaps = [
        StatusRow(
            key, "missing", "ingest_data", f"never ingested; fill it: {fill.format(use_case, key)}"
        )
        for key in expected
        if key not in partitions_by_key
    ]
    return sorted([*recorded, *gaps], key=lambda row: row.key)


def current_digests(
    use_case: str, by_key: Mapping[str, Mapping[str, RecordedResult]]
) -> dict[tuple[str, str], str]:
    """Return the digest that each recorded table partition has now, by (table or stage, key)."""
    digests: dict[tuple[str, str], str] = {}
    for key, stages in by_key.items():
        for stage, result in stages.items():
            digests[stage, key] = result.digest
            for table, digest in _tables(use_case, result):
                digests[table, key] = digest
    return digests | _restated_versions(by_key)


def _restated_versions(
    by_key: Mapping[str, Mapping[str, RecordedResult]],
) -> dict[tuple[str, str], str]:
    """Return the digest of each static version that was restated, for all partitions that know it.

    Several partitions hold one version of a static source; the newest restatement counts for all.
    """
    versions = [
        (key, f"raw/{name}", source.version, source.restated or 0, source.digest)
        for key, stages in by_key.items()
        if "ingest_data" in stages
        for name, source in IngestOutputs.of(stages["ingest_data"]).sources.items()
        if source.version
    ]
    newest: dict[tuple[str, str], tuple[int, str]] = {}  # how often it was restated, its digest
    for _, table, version, restated, digest in versions:
        if restated > newest.get((table, version), (0, ""))[0]:
            newest[table, version] = restated, digest
    return {
        (table, key): newest[table, version][1]
        for key, table, version, _, _ in versions
        if (table, version) in newest
    }


def _mark_stale(
    use_case: str,
    by_key: Mapping[str, Mapping[str, RecordedResult]],
    digests: dict[tuple[str, str], str],
) -> None:
    """Mark what was made from restated rows as restated too: what read it counts as stale."""
    # In the order of the flow, so that a mark is there before the next stage is looked at.
    for stage in ("validate_data", "materialize_features"):
        for key, stages in by_key.items():
            if (result := stages.get(stage)) is not None and stale_reads(use_case, result, digests):
                digests.update({(table, key): "stale" for table, _ in _tables(use_case, result)})


def stale_reads(
    use_case: str, result: RecordedResult, digests: Mapping[tuple[str, str], str]
) -> list[str]:
    """Return the `table key` that a result read and that have another content now."""
    reads = [(_without_use_case(use_case, read[0]), read[1], read[2]) for read in result.reads]
    return [
        f"{table} {key}"
        for table, key, digest in reads
        if digests.get((table, key), digest) != digest
    ]


def verdict(result: RecordedResult) -> str:
    """Return the verdict of an evaluation.

    A judgement that was not reached, or whose record is none that we understand, is a hold.
    """
    try:
        return EvaluationOutputs.of(result).verdict if result.state == "done" else "hold"
    except ArtefactError:
        return "hold"


def _row(
    use_case: str,
    partition: RecordedPartition,
    stages: Mapping[str, RecordedResult],
    running: Mapping[tuple[str, str], str],
    digests: Mapping[tuple[str, str], str],
    loaded: Mapping[str, Collection[str]],
) -> StatusRow:
    def row(kind: Kind, stage: str, detail: str = "") -> StatusRow:
        return StatusRow(partition.key, kind, stage, detail, partition.mode, partition.target)

    for stage in (*CHAIN, *BESIDE):
        if (stage, partition.key) in running:
            return row("running", stage, f"held by {running[stage, partition.key]}")
    kind, stage, detail = _progress(partition.target, stages)
    if (
        kind == "waiting"
        and partition.target == "data"
        and _is_lookback(loaded, stage, partition.key)
    ):
        kind, stage, detail = "done", _last_done(stages), LOOKBACK
    stale = sorted(
        {read for result in stages.values() for read in stale_reads(use_case, result, digests)}
    )
    if stale:
        more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
        again = f"run it again: evergreen run all --use-case {use_case} --partition {partition.key}"
        return row("stale", stage, f"restated since: {', '.join(stale[:3])}{more}; {again}")
    return row(kind, stage, detail)


def _progress(target: str, stages: Mapping[str, RecordedResult]) -> tuple[Kind, str, str]:
    """Return how far the recorded stages bring a partition towards its target."""
    wanted = CHAIN[: CHAIN.index(GOAL[target]) + 1]
    last = ""
    for stage in wanted:
        result = stages.get(stage)
        if result is None:
            return "waiting", stage, f"for {stage}"
        if result.state == "failed":
            error = result.outputs.get("error")
            # Another champion than it was judged against.
            if stage == "deploy_model" and error == "Conflict":
                return "waiting", "evaluate_model", result.reason
            return ("waiting" if error in PASSING else "refused"), stage, result.reason
        if result.state == "waiting":
            return "waiting", stage, result.reason
        if result.state == "unreadable":
            return "waiting", stage, f"unreadable, tried again: {result.reason}"
        if result.state != "done":
            return "refused", stage, result.reason or result.state
        last = stage
        if stage == "evaluate_model" and verdict(result) != "pass":
            reasons = result.outputs.get("reasons") or [result.reason or "no reason recorded"]
            beside = _beside(wanted, stages)
            return beside or (
                "refused",
                stage,
                f"{verdict(result)}: {'; '.join(map(str, reasons))}",
            )
    return _beside(wanted, stages) or ("done", last, "")


def _is_lookback(loaded: Mapping[str, Collection[str]], stage: str, key: str) -> bool:
    """Tell whether a load took a partition in, and asked this stage of later partitions only."""
    return key in loaded.get(CHAIN[0], ()) and key not in loaded[stage]


def _last_done(stages: Mapping[str, RecordedResult]) -> str:
    return [stage for stage in CHAIN if stage in stages and stages[stage].state == "done"][-1]


def _beside(
    wanted: Sequence[str], stages: Mapping[str, RecordedResult]
) -> tuple[Kind, str, str] | None:
    for stage, after in BESIDE.items():
        if after in wanted and stage not in stages:
            return "waiting", stage, f"for {stage}"
        if after in wanted and stages[stage].state == "unreadable":
            return "waiting", stage, f"unreadable, tried again: {stages[stage].reason}"
    return None


def _tables(use_case: str, result: RecordedResult) -> list[tuple[str, str]]:
    """Return the lake tables (without the use case's name) that a result wrote, with digests."""
    if result.stage == "ingest_data":
        return [
            (f"raw/{name}", source.digest)
            for name, source in IngestOutputs.of(result).sources.items()
        ]
    if result.stage == "validate_data":
        outputs = ValidationOutputs.of(result)
        curated = [
            (f"curated/{name}", source.curated_digest) for name, source in outputs.sources.items()
        ]
        return curated + ([("labels", outputs.labels.digest)] if outputs.labels else [])
    if result.stage == "materialize_features":
        return [
            (_without_use_case(use_case, view.table), view.digest)
            for views in FeatureOutputs.of(result).feature_sets.values()
            for view in views.values()
        ]
    return []


def _without_use_case(use_case: str, table: str) -> str:
    return table.removeprefix(f"{use_case}/")


def status_rows(records: Records, use_case: UseCase) -> list[StatusRow]:
    """Return what each partition of a use case is, from the records as they are now."""
    partitions = records.partitions.of(use_case.name)
    now = utc_now()
    newest = newest_complete(use_case, now)
    expected = (
        between(use_case, partitions[0].key, newest)
        if partitions and newest and partitions[0].key <= newest
        else []
    )
    results = records.results.of(use_case.name)
    return rows(
        use_case.name,
        partitions=partitions,
        results=results,
        running={
            (holder.stage, holder.key): str(holder)
            for holder in records.leases.holders(use_case.name)
            if holder.lost is None
        },
        expected=expected,
        loaded=keys_of_load(use_case, results, now),
    )


def keys_of_load(
    use_case: UseCase, results: Iterable[RecordedResult], now: datetime
) -> dict[str, list[str]]:
    """Return, by data stage, the partitions that the oldest one with features has to have.

    A load ingests more partitions than it validates, and validates more than it computes features
    for. Nothing is returned before a load has got as far as features: what it left behind is
    awaited.
    """
    from include.pipeline import history

    goal = GOAL["data"]
    done = [result.key for result in results if result.stage == goal and result.state == "done"]
    if not done:
        return {}
    try:
        return history.plan_load(use_case, min(done), min(done), now)
    except ConfigError:  # the history of the use case begins later now
        return {}
