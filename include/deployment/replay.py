"""Judge a release by past requests, where too few are to come: both models are asked the same rows.

The rows are those of entities that are online for both models, and the ones that were logged last.
Both models are loaded from their verified bundles and asked by the code that a node asks them by,
one row after another, in this process: a node has other requests to answer. So of the time of a
model only that of its own scoring is compared, not the way to it.
"""

from __future__ import annotations

import heapq
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from include.deployment.decision import Decision
from include.deployment.pair_verdict import judge_pairs
from include.deployment.release_plan import ReleasePlan
from include.deployment.traffic import last_rows
from include.errors import ArtefactError
from include.features.online_rows import OnlineRow, unpack
from include.features.online_stores import OnlineStore, open_store
from include.models.encoding import InvalidFeature
from include.models.kinds import ServedModel
from include.models.loading import load_model
from include.models.presence import find_bundle
from include.pipeline.stage import StageContext
from include.records.records import Release

ENTITIES, LOGGED = 1_000, 1_000
LOGGED_ROW = "logged row"  # what stands for the entity of one
Row = Mapping[str, Any]


def rows_to_ask(
    context: StageContext, champion: str, challenger: str
) -> Iterator[tuple[str, Row, Row]]:
    """Yield what both models are asked: the entity, the champion's row and the challenger's.

    `champion` and `challenger` are their feature sets. Of a logged row, which has no entity here,
    the entity is its number.
    """
    store = open_store(context.settings, context.use_case.name)
    with closing(store):
        yield from _online_rows(store, champion, challenger)
    logged = last_rows(context.lake, context.use_case.name, context.started, LOGGED)
    for number, row in enumerate(logged):
        yield f"{LOGGED_ROW} {number}", row, row


def _online_rows(
    store: OnlineStore, champion: str, challenger: str
) -> Iterator[tuple[str, Row, Row]]:
    """Yield the online rows of entities that both feature sets have, the same ones each time."""
    sets = store.describe(champion), store.describe(challenger)
    if sets[0] is None or sets[1] is None:
        return
    chosen = heapq.nsmallest(ENTITIES, store.rows(challenger), key=_place)
    for entity, _, packed in chosen:
        values = unpack(packed)
        row = dict(zip(sets[1].columns, values, strict=False))
        if champion == challenger:
            yield entity, row, row
        elif (other := store.get(champion, entity)) is not None:
            yield entity, dict(zip(sets[0].columns, other[1], strict=False)), row


def _place(row: OnlineRow) -> tuple[int, str]:
    """Return where an entity stands in an order that has nothing to do with its key."""
    return zlib.crc32(row[0].encode()), row[0]


class Pair(NamedTuple):
    """What both models answered of one row; a score is None where the model gave none."""

    entity: str
    champion: float | None
    challenger: float | None
    champion_us: int
    challenger_us: int


def judge_replay(context: StageContext, release: Release, plan: ReleasePlan) -> Decision:
    """Return what past requests say of a release.

    Raises: as `ask_both`.
    """
    pairs, lacks = ask_both(context, release)
    return judge_pairs(
        pairs,
        plan,
        threshold=context.use_case.decision.threshold,
        lacks=lacks,
        everybody=are_everybody(context, release, pairs),
    )


def are_everybody(context: StageContext, release: Release, pairs: Sequence[Pair]) -> bool:
    """Tell whether pairs are of the entities that are online, of which no sample was taken.

    Of as many as must be online for a challenger: of others the champion may have no row. Where
    nobody is online the pairs are of the log, which is a sample of what may come.

    Raises:
        Unavailable: the online store does not answer.
    """
    name = context.use_case.name
    model = context.records.models.get(name, release.challenger)
    with closing(open_store(context.settings, name)) as store:
        if model is None or store.describe(model.feature_set) is None:
            return False
        online = store.count(model.feature_set)
    asked = sum(not pair.entity.startswith(LOGGED_ROW) for pair in pairs)
    return 0 < online <= ENTITIES and asked >= context.use_case.release.online_share * online


def ask_both(context: StageContext, release: Release) -> tuple[list[Pair], Counter[str]]:
    """Ask champion and challenger of a release the same past rows.

    A row without a feature that the champion reads is left out: it was never asked of that model.
    Of those that lack one which the challenger alone reads it is counted how many lack which: as
    champion it would refuse them.

    Raises:
        ArtefactError: a bundle is not the recorded one.
        Unavailable: a bundle, or the online store, does not answer.
    """
    (champions, champion), (challengers, challenger) = (
        _load(context, version) for version in (release.champion, release.challenger)
    )
    pairs, lacks = list[Pair](), Counter[str]()
    for entity, champions_row, challengers_row in rows_to_ask(context, champions, challengers):
        try:
            first = _ask(champion, champions_row)
        except InvalidFeature:
            continue
        try:
            second = _ask(challenger, challengers_row)
        except InvalidFeature as error:
            lacks[error.feature] += 1
            continue
        pairs.append(Pair(entity, first[0], second[0], first[1], second[1]))
    return pairs, lacks


def _load(context: StageContext, version: int | None) -> tuple[str, ServedModel]:
    """Return the feature set of a model, and the model in memory."""
    name = context.use_case.name
    model = None if version is None else context.records.models.get(name, version)
    if model is None:
        raise ArtefactError(f"{name}: model {version} is not on record, so it cannot be replayed")
    folder = find_bundle(context.store, model)
    return model.feature_set, load_model(folder, model.model_digest)


def _ask(model: ServedModel, row: Row) -> tuple[float | None, int]:
    """Return a model's score of a row and its time in microseconds."""
    began = time.perf_counter_ns()
    score = model.one(row)
    micros = (time.perf_counter_ns() - began) // 1000
    return score, micros
