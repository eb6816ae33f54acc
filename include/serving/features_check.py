"""Whether the features that a challenger reads are online: asked before it may be promoted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from include.errors import EvergreenError, Unavailable
from include.features.online_stores import OnlineStore
from include.models.encoding import InvalidFeature
from include.serving.snapshot import Loaded

SAMPLE = 20  # entities that are scored


@dataclass(frozen=True, slots=True)
class OnlineCheck:
    """What is online for a challenger: the share of the champion's entities, and some rows."""

    entities: int
    share: float
    rows: Sequence[Mapping[str, Any]]


def look_online(store: OnlineStore, feature_set: str, of: str | None) -> OnlineCheck:
    """Return what is online of a feature set, beside the set `of` the champion (None: nobody's).

    Without a champion the share is of the set's own entities, which are those that were alive when
    its partition was published.

    Raises:
        Unavailable: nothing of it is online, or the store does not answer.
    """
    with closing(store):
        online_set = store.describe(feature_set)
        if online_set is None:
            raise Unavailable(
                f"its feature set {feature_set} is not online; run materialize_features for the "
                "newest partition"
            )
        entities, shared = store.count(feature_set), None
        if of is not None and of != feature_set:
            shared = store.shared(of, feature_set)
        share = 1.0 if shared is None or shared[0] == 0 else shared[1] / shared[0]
        rows = [
            dict(zip(online_set.columns, values, strict=False))
            for values in store.sample(feature_set, SAMPLE)
        ]
    return OnlineCheck(entities, share, rows)


def refuse_too_few(check: OnlineCheck, feature_set: str, least: float) -> None:
    """Refuse a challenger whose features are online for too few entities.

    Raises:
        Unavailable: they are; more may be published.
    """
    if not check.entities:
        raise Unavailable(f"of its feature set {feature_set} no entity is online")
    if check.share < least:
        raise Unavailable(
            f"its feature set {feature_set} is online for {check.share:.1%} of the champion's "
            f"entities, less than {least:.1%} (release.online_share); run materialize_features"
        )


async def score_rows(model: Loaded, rows: Sequence[Mapping[str, Any]]) -> None:
    """Have a challenger score rows as they are online.

    Raises:
        Unavailable: it does not; the message has the first reason.
    """
    for row in rows:
        try:
            if model.remote is not None:
                given = {name: row[name] for name in model.remote.features}
                score = await model.remote.ask(given)
            else:
                score = model.scorer.one(row) if model.scorer else math.nan
        except KeyError as error:
            raise Unavailable(
                f"its feature {error} is not online; run materialize_features"
            ) from None
        except (EvergreenError, InvalidFeature) as error:
            raise Unavailable(f"it does not score a row that is online: {error}") from error
        if not 0.0 <= score <= 1.0:  # NaN is neither
            raise Unavailable(f"it answers {score} for a row that is online")
