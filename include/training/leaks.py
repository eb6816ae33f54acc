"""Find features that cannot be right, or are too good to be true, before a model is trained.

All findings come at once, each with its evidence and a remedy. A *refusal* ends training; a
*question* is for a person and stands in the report. `docs/explanation/leak-gate.md` has the rules
with what they come to on real data. Everything is a function of the rows and the use case: equal
rows, equal findings.
"""

from __future__ import annotations

import pyarrow as pa

from include.config.use_case import UseCase
from include.models import metrics
from include.models.matrix import labels_of
from include.training.carrier_leaks import NO_CARRIERS, Carriers, evenly_spread, find_carriers
from include.training.column_leaks import find_leaking, find_useless
from include.training.feature_auc import auc_of_feature
from include.training.leak_findings import Finding, Findings
from include.training.pair_leaks import find_pairs

MAX_ROWS = 100_000


def check(train: pa.Table, use_case: UseCase) -> Findings:
    """Return everything that is wrong with the features on these rows, or asks for a person.

    The frame has the entity's key, `label` (0 or 1) and the features.
    """
    names = use_case.trained_features
    # Over all rows: a sample hides that a text repeats, and shows ids where there are none.
    useless = [find_useless(train, use_case, name) for name in names]
    findings: list[Finding] = [finding for finding in useless if finding is not None]
    settled = {finding.columns[0] for finding in findings}
    if len(train) > MAX_ROWS:
        train = train.take(evenly_spread(len(train), MAX_ROWS))
    labels = labels_of(train) if len(train) else metrics.EMPTY
    if not metrics.computable(labels):
        return _collect(use_case, findings, dict.fromkeys(names, 0.5), NO_CARRIERS)
    feature_auc = {name: auc_of_feature(train.column(name), labels) for name in names}
    for name in names:
        finding = find_leaking(train, use_case, labels, name, feature_auc[name])
        if finding is not None and name not in settled:
            findings.append(finding)
            settled.add(name)
    # Of a pair the one that tells more by itself comes first: it is likelier the later one.
    rest = sorted(
        (name for name in names if name not in settled), key=lambda name: -feature_auc[name]
    )
    findings += find_pairs(train, use_case, labels, rest)
    refused = {
        finding.columns[0]
        for finding in findings
        if finding.level == "refusal" and finding.kind != "pair"
    }
    # Without the refused: what they hide is found in this same run.
    others = [name for name in names if name not in refused]
    carriers = find_carriers(train, use_case, labels, feature_auc, others)
    return _collect(use_case, [*findings, *carriers.findings], feature_auc, carriers)


def _collect(
    use_case: UseCase, findings: list[Finding], feature_auc: dict[str, float], carriers: Carriers
) -> Findings:
    return Findings(
        use_case.name,
        tuple(findings),
        feature_auc,
        carriers.gains,
        carriers.auc,
        tuple(use_case.training.exclude),
    )
