"""Gather what is known of a release beside its windows, and read it for the judge.

Gathered is where the prediction log is imported, once an hour, and where a release begins: it reads
the lake and the online store, which takes seconds. The judge, who looks every few seconds, reads a
few rows of the records. What could not be found out is said, and is never taken for good.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from include.deployment.description import Description
from include.deployment.metric_verdicts import Offline
from include.deployment.probation import describe_probation
from include.deployment.release_plan import ReleasePlan
from include.deployment.sequential import Ratio, Tally
from include.errors import EvergreenError
from include.predictions.window_counts import CLUSTERS
from include.records.records import AuditEntry, Records, Release
from include.records.release_reports import Gathered

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.lake.tables import Lake

PARITY, AUC = "parity", "auc"
NONE = ""  # the source of what is not known
NAMED = 5  # features that differ most
_NOT_YET = "nobody has looked yet: it is gathered once an hour, when the log is imported"

log = logging.getLogger(__name__)


def gather(
    settings: Settings, lake: Lake, records: Records, use_case: UseCase, at: datetime
) -> list[str]:
    """Put on record what is known of the release in its steps, if there is one; return of what.

    Probations are moved too, as far as calendar and records say exactly what they are.
    `at` is when it is: outcomes that became known later are not looked at. Nothing fails because
    of it: why something is not known is put on record in its place.
    """
    import duckdb

    review = AuditEntry("probation.reviewed", use_case.name, "", "judge", {}, at)
    for moved in records.probations.review(use_case.name, review):
        say = log.error if moved.state in ("due", "not_good") else log.info
        say("%s: %s", use_case.name, describe_probation(moved))
    release = records.releases.running(use_case.name)
    if release is None or release.state != "running":
        return []
    try:
        metrics = ReleasePlan.read(release.id, release.plan).metrics
    except EvergreenError as error:  # of another version; its judge says so
        log.warning("%s: %s", use_case.name, error)
        return []
    found: dict[str, tuple[str, dict[str, Any]] | None] = {}
    for metric, find in ((PARITY, _parity), (AUC, _auc)):
        if metric not in metrics:
            continue
        try:
            found[metric] = find(settings, lake, records, use_case, release, at)
        except (EvergreenError, OSError, ValueError, duckdb.Error) as error:
            # An import must not fail by it every hour; and what a library says may tell of rows.
            is_ours = isinstance(error, (EvergreenError, OSError))
            why = str(error) if is_ours else f"it cannot be reckoned ({type(error).__name__})"
            log.warning("%s: %s of a release is not known: %s", use_case.name, metric, why)
            found[metric] = NONE, {"reason": why}
    for metric, one in found.items():
        if one is not None:
            records.releases.put_gathered(release, metric, *one)
    return sorted(found)


def read_offline(rows: Iterable[Gathered]) -> Offline:
    """Return what was gathered of a release, over all its steps, as the verdict takes it."""
    newest: dict[tuple[str, str], Gathered] = {}
    for row in sorted(rows, key=lambda one: one.at):
        newest[row.metric, row.source] = row  # of one source a later look is no further evidence
    told: dict[str, dict[str, Any]] = {}
    for metric in (PARITY, AUC):
        why = newest.get((metric, NONE))
        told[metric] = {"reason": _NOT_YET if why is None else why.content["reason"]}
    known = [row for (metric, source), row in newest.items() if source != NONE]
    parity, common = _read_parity([row for row in known if row.metric == PARITY], told)
    return Offline(
        parity, _read_auc([row for row in known if row.metric == AUC], told), common, told
    )


def _parity(
    settings: Settings,
    lake: Lake,
    records: Records,
    use_case: UseCase,
    release: Release,
    _at: datetime,
) -> tuple[str, dict[str, Any]] | None:
    """Return what is online of the challenger's features; None: it was looked at in this step."""
    from include.features import online_parity

    model = records.models.get(release.use_case, release.challenger)
    if model is None:
        return NONE, {"reason": f"model {release.challenger} is not on record"}
    if not any(view.online for view in Description.of(use_case).features.values()):
        return NONE, {"reason": "no feature is kept online: all come with the requests"}
    described = online_parity.published(settings, use_case.name, model.feature_set)
    if described is None:
        return NONE, {"reason": f"nothing of feature set {model.feature_set} is online"}
    looked = records.releases.gathered(release.use_case, release.id)
    mine = (release.step, PARITY, described.digest)
    if any((one.step, one.metric, one.source) == mine for one in looked):
        return None
    found = online_parity.compare(settings, lake, records, use_case, described)
    if not found.rows:
        return NONE, {"reason": f"feature set {model.feature_set} is online, without a row"}
    asked, bad = [0] * CLUSTERS, [0] * CLUSTERS
    for entity, is_same in found.rows.items():
        cluster = zlib.crc32(entity.encode("utf-8", "surrogatepass")) % CLUSTERS
        asked[cluster] += 1
        bad[cluster] += not is_same
    champion = None
    if release.champion is not None:
        champion = records.models.get(release.use_case, release.champion)
    worst = sorted(found.differ.items(), key=lambda one: (-one[1], one[0]))[:NAMED]
    return found.publication, {
        "asked": asked,
        "bad": bad,
        "partition": found.partition,
        "differ": dict(worst),
        # What is wrong with them is no fault of the challenger alone.
        "common": champion is not None and champion.feature_set == model.feature_set,
    }


def _auc(
    settings: Settings,
    lake: Lake,
    _records: Records,
    use_case: UseCase,
    release: Release,
    at: datetime,
) -> tuple[str, dict[str, Any]]:
    """Return the loss of AUC on the pairs of a release."""
    from include.deployment import pair_auc

    found = pair_auc.measure(settings, lake, use_case, release, at)
    if isinstance(found, str):
        return NONE, {"reason": found}
    return "pairs", {
        "loss": float(found.loss.value),
        "error": float(found.loss.error),
        "df": float(found.loss.df),
        "champion": found.champion,
        "challenger": found.challenger,
        "pairs": found.pairs,
        "entities": found.entities,
    }


def _read_parity(
    rows: Sequence[Gathered], told: dict[str, dict[str, Any]]
) -> tuple[Tally | None, bool]:
    """Return the sum over publications, and whether any is the champion's too."""
    if not rows:
        return None, False
    bad, asked = (
        np.asarray([row.content[name] for row in rows], float).sum(0) for name in ("bad", "asked")
    )
    told[PARITY] = {
        "rows": int(asked.sum()),
        "partition": max(str(row.content["partition"]) for row in rows),
    }
    if differ := {name: n for row in rows for name, n in row.content["differ"].items()}:
        told[PARITY]["differ"] = ", ".join(f"{name} {n}" for name, n in differ.items())
    return Tally(bad, asked), any(row.content["common"] for row in rows)


def _read_auc(rows: Sequence[Gathered], told: dict[str, dict[str, Any]]) -> Ratio | None:
    if not rows:
        return None
    content = rows[-1].content
    told[AUC] = {name: content[name] for name in ("champion", "challenger", "pairs", "entities")}
    return Ratio(*(np.asarray(content[name], float) for name in ("loss", "error", "df")))
