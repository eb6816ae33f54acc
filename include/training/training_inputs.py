"""The labels and features that a training reads, as earlier stages have recorded them."""

from __future__ import annotations

from collections.abc import Sequence

from include.errors import MissingPartition
from include.features import feature_sets
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time import partitions
from include.point_in_time.curated import label_table
from include.records.records import StageResult
from include.validation import labels


def find_inputs(
    context: StageContext, current: feature_sets.FeatureSet
) -> tuple[list[StageResult], list[StageResult]]:
    """Return the validation and feature results up to this partition, within the window.

    Where all sources allow gaps, only those that are there.

    Raises:
        MissingPartition: some are not there; the message has the command that fills them.
    """
    use_case = context.use_case
    keys = partitions.training_lookback(use_case, context.key)
    if all(source.gaps == "allow" for source in use_case.sources.values()):
        states = context.records.results.states(use_case.name)
        done = {where for where, state in states.items() if state == "done"}
        keys = [
            key
            for key in keys
            if key == context.key or {("validate_data", key), ("materialize_features", key)} <= done
        ]
    validated = context.need("validate_data", keys)
    materialized = context.need("materialize_features", keys)
    _refuse_other_labels(context, validated)
    lacking = feature_sets.keys_without(materialized, current)
    if lacking:
        raise _missing(
            context, lacking, f"do not hold feature set {current.version}, which is defined now"
        )
    return validated, materialized


def _refuse_other_labels(context: StageContext, validated: Sequence[StageResult]) -> None:
    """Refuse labels of another definition than today's, or in the table of other types.

    The training would not see them, and silently learn from fewer rows.

    Raises:
        MissingPartition: some are; the message has the command that fills them.
    """
    use_case = context.use_case
    table, rules = label_table(context.lake, use_case), labels.rules_digest(use_case)
    lacking = []
    for result in validated:
        recorded = optional(ValidationOutputs.of(result).labels)
        if recorded is None or not recorded.rows:
            continue
        # Records of before tables had a digest in their name, or rules one, are of today's.
        same_table = (recorded.table or f"{use_case.name}/labels") == table
        same_rules = (recorded.rules or rules) == rules
        if not (same_table and same_rules):
            lacking.append(result.key)
    if lacking:
        raise _missing(context, lacking, "hold no labels as label is defined now")


def _missing(context: StageContext, keys: Sequence[str], what: str) -> MissingPartition:
    name = context.use_case.name
    fill = f"`evergreen load-history {name} --from {keys[0]} --to {keys[-1]}`"
    return MissingPartition(
        f"{name}: {len(keys)} partitions ({keys[0]} to {keys[-1]}) {what}. Fill them with {fill}",
        keys=list(keys),
    )
