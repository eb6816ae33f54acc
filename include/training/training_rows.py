"""The rows of a training: mature decisions, divided into parts, with their features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.durations import format_duration
from include.config.remedies import remedy, rounded_up
from include.config.use_case import UseCase
from include.errors import EvergreenError
from include.features import feature_sets, frames
from include.features.spine import Spine, build_spine
from include.models.matrix import Parts
from include.pipeline.stage import StageContext
from include.pipeline.training_outputs import Counts, PartCount, Split
from include.point_in_time import partitions
from include.point_in_time.curated import ARROW_TYPES, label_table
from include.point_in_time.row_copies import one_entity
from include.training import splits

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROS = 1_000_000  # in a second

Moments = NDArray[np.int64]  # UTC microseconds


@dataclass(frozen=True)
class Prepared:
    """The rows of a training, sorted by time and entity, and what is to be known of them.

    `parts` are those of the frame's rows; embargoed decisions are not among them. Without a frame
    there are too few rows, and `reason` says of what. `versions` are those of the lake's tables.
    """

    frame: pa.Table | None
    parts: Parts
    split: Split
    counts: Counts
    versions: dict[str, int | None]
    reason: str = ""

    def in_parts(self, *names: str) -> pa.Table:
        """Return the rows of some parts."""
        numbers = [splits.PARTS.index(name) for name in names]
        return self.rows.filter(pa.array(np.isin(self.parts, numbers)))

    def with_part_names(self) -> pa.Table:
        """Return all rows as they are stored, each with the name of its part."""
        names = pa.array(splits.PARTS, pa.string()).take(pa.array(self.parts, pa.int8()))
        return self.rows.append_column("split", names)

    @property
    def rows(self) -> pa.Table:
        """The frame, where there is one."""
        if self.frame is None:
            raise EvergreenError(f"there are no training rows: {self.reason}")
        return self.frame


def prepare_rows(context: StageContext, feature_set: feature_sets.FeatureSet) -> Prepared:
    """Return the training rows as known at as_of, within the window and `training.max_rows`."""
    use_case, training = context.use_case, context.use_case.training
    versions = frames.table_versions(context.lake, use_case, feature_set)
    since = None if training.window is None else context.as_of - training.window
    spine = build_spine(
        context.lake,
        use_case,
        context.as_of,
        version=versions[label_table(context.lake, use_case)],
        since=since,
    )
    key = use_case.entity.key
    decisions = spine.rows.sort_by([("event_timestamp", "ascending"), (key, "ascending")])
    entities, moments = decisions.column(key).to_pylist(), _moments(decisions)
    kept = splits.subsample(entities, moments, limit=training.max_rows, seed=training.seed)
    decisions, moments = decisions.take(pa.array(kept)), moments[kept]
    entities = one_entity(decisions.column(key), use_case).to_pylist()
    bounds = splits.boundaries(
        moments, training.split, embargo=training.embargo, delay=use_case.label.delay
    )
    parts = splits.assign(entities, moments, training.split, training.seed, bounds)
    used = parts != splits.NO_PART
    embargoed = int((~used).sum())
    decisions, parts, moments = decisions.filter(pa.array(used)), parts[used], moments[used]
    counts = _counts(use_case, spine, bounds, decisions, parts, embargoed)
    split = _split(bounds, parts, moments, context.as_of)
    lacking = _describe_lacking_times(bounds) or describe_lacking_class(use_case, counts)
    if lacking:
        reason = f"{_describe_censored(counts, use_case.label.max_censored)}too few mature rows: "
        return Prepared(None, parts, split, counts, versions, reason + lacking)
    frame = frames.training_frame(
        context.settings,
        use_case,
        feature_set,
        replace(spine, rows=decisions),
        versions,
        records=context.records,
        until=context.key,
    )
    if len(frame) != len(decisions):
        raise EvergreenError(
            f"{use_case.name}: the join returned {len(frame)} rows for {len(decisions)} "
            "decisions; report this"
        )
    columns = [key, "event_timestamp", "label", *feature_set.feature_types]
    return Prepared(frame.select(columns), parts, split, counts, versions)


def no_rows(use_case: UseCase) -> pa.Table:
    """Return an empty training set without features, which replaces one of an earlier run."""
    columns = [
        (use_case.entity.key, ARROW_TYPES[use_case.entity.type]),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("label", pa.float64()),
        ("split", pa.string()),
    ]
    return pa.schema(columns).empty_table()


def _moments(rows: pa.Table) -> Moments:
    column = rows.column("event_timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _counts(
    use_case: UseCase,
    spine: Spine,
    bounds: splits.Boundaries,
    decisions: pa.Table,
    parts: Parts,
    embargoed: int,
) -> Counts:
    """Return the counts of the parts, and of the decisions that are in none."""
    labels = np.asarray(decisions.column("label").cast(pa.float64()).to_numpy(zero_copy_only=False))

    def part(name: str) -> PartCount:
        own = labels[parts == splits.PARTS.index(name)]
        return PartCount(rows=len(own), positive=int((own == 1.0).sum()))

    return Counts(
        train=part(splits.TRAIN),
        tune=part(splits.TUNE),
        evaluation=part(splits.EVALUATION),
        mature=len(spine.rows),
        used=len(decisions),
        embargoed=embargoed,
        immature=spine.immature,
        **_flagged(use_case, spine, bounds),
    )


def _flagged(use_case: UseCase, spine: Spine, bounds: splits.Boundaries) -> dict[str, Any]:
    """Count censored and restated decisions: of the window, and of those judged; used or not."""
    split, seed = use_case.training.split, use_case.training.seed
    entities = one_entity(spine.mature.column(use_case.entity.key), use_case).to_pylist()
    judged = splits.judged(entities, _moments(spine.mature), split, seed, bounds)
    counts: dict[str, Any] = {
        "decisions": len(spine.mature),
        "decisions_judged": int(judged.sum()),
    }
    for name in ("censored", "restated"):
        column = spine.mature.column(f"__{name}").to_numpy(zero_copy_only=False)
        flags = np.asarray(column, dtype=bool)
        counts[name], counts[f"{name}_judged"] = int(flags.sum()), int(flags[judged].sum())
        counts[f"{name}_share"] = float(flags.mean()) if len(flags) else 0.0
        counts[f"{name}_share_judged"] = float(flags[judged].mean()) if judged.any() else 0.0
    return counts


def _describe_censored(counts: Counts, limit: float) -> str:
    """Say that decisions without an outcome are why rows are few, or nothing."""
    share = max(counts.censored_share or 0.0, counts.censored_share_judged or 0.0)
    if share <= limit:
        return ""
    line = remedy(("label", "max_censored"), min(rounded_up(share, 2), 1.0))
    return (
        f"{counts.censored:,} of {counts.decisions:,} decisions past label.delay have no "
        f"known outcome ({share:.1%}, the limit is {limit:.1%}; look at the label's source and "
        f"its times; {line} would go on without them); "
    )


def _describe_lacking_times(bounds: splits.Boundaries) -> str:
    """Say that decisions have too few different times to be divided by it, or nothing."""
    if not bounds.reason:
        return ""
    line = remedy(("training", "split", "by"), "hash")
    return (
        f"{bounds.reason}; {line} divides by entity, which says nothing of how the model will do "
        "later"
    )


def describe_lacking_class(use_case: UseCase, counts: Counts) -> str:
    """Say which part lacks rows of a class and what can be done about it, or nothing.

    The evaluation part needs `gates.min_rows` of each class, the others enough to train at all.
    """
    parts = {splits.EVALUATION: use_case.gates.min_rows, splits.TRAIN: 2, splits.TUNE: 2}
    for name, least in parts.items():
        part: PartCount = getattr(counts, name)
        negative = part.rows - part.positive
        if min(part.positive, negative) < least:
            embargoed = counts.embargoed if name != splits.EVALUATION else 0
            note = f" ({embargoed:,} rows are embargoed)" if embargoed else ""
            return (
                f"the {name} part has {part.positive} of class 1 and {negative} of class 0; each "
                f"class needs {least}{note}. {_more_rows(use_case, counts, name)}"
            )
    return ""


def _more_rows(use_case: UseCase, counts: Counts, name: str) -> str:
    """Return what gives a part more rows of the rarer class, or lets fewer do."""
    part: PartCount = getattr(counts, name)
    fewest = min(part.positive, part.rows - part.positive)
    if counts.mature == 0 and counts.immature:
        younger = f"{counts.immature:,} decisions are younger than label.delay"
        return f"{younger}: {describe_maturing(use_case)}"
    if name == splits.EVALUATION and fewest:
        line = remedy(("gates", "min_rows"), fewest)
        return (
            f"Wait for more outcomes; {line} would judge on {fewest} rows of the rarer class, "
            "where chance alone moves the AUC far"
        )
    if name != splits.EVALUATION and counts.embargoed:
        line = remedy(("training", "embargo"), "0s")
        return f"Wait for more outcomes; {line} would judge a fresher model than can ever serve"
    line = remedy(("training", "split"), {"tune": 0.25, "evaluation": 0.35})
    return f"Wait for more outcomes of both kinds; {line} gives what is judged more of the rows"


def describe_maturing(use_case: UseCase) -> str:
    """Return how decisions become mature where none is: by waiting, or by a shorter delay."""
    sooner = remedy(("label", "delay"), format_duration(use_case.label.delay / 2))
    history = use_case.history
    if history.last is None:
        return f"wait, or write {sooner} if every outcome is known by then"
    # Nothing comes after a closed history: a later end is all that makes its decisions older.
    end = partitions.key_within(use_case, history.last + use_case.label.delay + timedelta(days=1))
    later = remedy(("history", "last"), date.fromisoformat(end))
    return f"{later} ends the history when theirs are known; {sooner} if all are known by then"


def _split(bounds: splits.Boundaries, parts: Parts, moments: Moments, as_of: datetime) -> Split:
    """Return the boundaries, and how much older the newest trained decision is than others."""
    evaluation = parts == splits.PARTS.index(splits.EVALUATION)
    newest = int(moments[~evaluation].max()) if (~evaluation).any() else None
    gap_when_judged = gap_when_serving = None
    if newest is not None:
        gap_when_serving = ((as_of - EPOCH) // timedelta(microseconds=1) - newest) / MICROS
        if evaluation.any() and bounds.by == "time":
            gap_when_judged = float(moments[evaluation].min() - newest) / MICROS
    return Split(
        by=bounds.by,
        tune_from=_instant(bounds.tune_from),
        evaluation_from=_instant(bounds.evaluation_from),
        gap_when_judged=gap_when_judged,
        gap_when_serving=gap_when_serving,
    )


def _instant(micros: int | None) -> str | None:
    return None if micros is None else (EPOCH + timedelta(microseconds=micros)).isoformat()
