"""What a partition is compared with: the opponent's sample, or else the partition before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from include.config.durations import midnight
from include.evaluation.verdict import judgement
from include.features import feature_sets
from include.features.feature_sets import FeatureSet
from include.pipeline.drift_outputs import ComparedWith
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.feature_outputs import FeatureOutputs
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.records.records import Model


@dataclass(frozen=True)
class Reference:
    """The partition whose rows are the reference; without a model it is the partition before."""

    key: str
    feature_set: FeatureSet
    model: Model | None = None

    @property
    def kind(self) -> Literal["opponent", "before"]:
        """Which of the two references it is."""
        return "before" if self.model is None else "opponent"

    def recorded(self) -> ComparedWith:
        """Return the reference as it is recorded."""
        version = None if self.model is None else self.model.version
        return ComparedWith(kind=self.kind, partition=self.key, version=version)


def choose_reference(context: StageContext) -> Reference | None:
    """Return the reference of a partition; None: no older opponent, and no partition before.

    Raises:
        MissingPartition: the partition is not judged, or its features are not there.
    """
    name = context.use_case.name
    (result,) = context.need("materialize_features", [context.key])
    version = optional(EvaluationOutputs.of(judgement(context)).opponent)
    model = None if version is None else context.records.models.get(name, version)
    if (
        model is not None
        and model.partition < context.key
        and model.feature_set in FeatureOutputs.of(result).feature_sets
    ):
        return Reference(
            model.partition, feature_sets.recorded(context.records, name, model.feature_set), model
        )
    before = partitions.earlier(context.use_case, context.key)
    earlier = None if before is None else context.result("materialize_features", before)
    if before is None or earlier is None or earlier.state != "done":
        return None
    current = feature_sets.current(context.use_case)
    if current.version not in FeatureOutputs.of(earlier).feature_sets:
        return None
    return Reference(before, current)


def feature_keys(context: StageContext, reference: Reference) -> list[str]:
    """Return the partitions whose feature rows can matter to either side."""
    ttl = max(view.ttl for view in reference.feature_set.views)
    keys = set(partitions.lookback(context.use_case, context.key, ttl))
    if reference.model is None:
        keys |= set(partitions.lookback(context.use_case, reference.key, ttl))
    if any(view.grain == "event" for view in reference.feature_set.views):
        keys |= set(training_window(context, reference))
    return sorted(keys)


def training_window(context: StageContext, reference: Reference) -> list[str]:
    """Return the partitions that the opponent trained on; without one, the partition before."""
    if reference.model is None:
        return [reference.key]
    end = partitions.period(context.use_case, reference.key).as_of
    span: timedelta = context.use_case.training.window or end - midnight(
        context.use_case.history.first
    )
    return partitions.lookback(context.use_case, reference.key, span)
