"""Read from the prediction log how a use case is asked, for simulated releases of its own.

What it takes: how often each entity asks, the hours of the day, and how much a slow minute has
slow ones behind it. Errors, scores and restarts are drawn all the same: two models that are equal,
or worse by a known amount, are in no log.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from include.deployment.sequential import Floats
from include.deployment.simulated_traffic import Ints, Traffic
from include.deployment.traffic import ASKED, LOOKED_BACK, count_traffic, scan_log
from include.errors import SourceError
from include.lake.sql import connect
from include.lake.tables import Lake

LEAST_REQUESTS, LEAST_ENTITIES = 1_000, 50  # of a week; fewer say nothing of its shape
# An answer counts as slow above this quantile of the week: what is slow for callers is rare where
# all is well, and then nothing could be learned of how it comes.
SLOW_QUANTILE = 0.95
MOST_BURSTS, MOST_LASTING = 3.0, 0.99  # few slow answers could tell of any


def traffic_of_log(lake: Lake, use_case: str, at: datetime) -> Traffic:
    """Return the traffic of the seven days before `at`, as the simulation draws from it.

    Raises:
        SourceError: the lake cannot be read, or holds too little.
    """
    since = at - LOOKED_BACK
    span = {"since": since, "until": at}
    with connect() as con:
        scan_log(con, lake, use_case, since, at)
        by_entity = con.execute(
            f"SELECT count(*) FROM asked WHERE {ASKED} GROUP BY coalesce(entity, request_id) "
            "ORDER BY 1 DESC",
            span,
        ).fetchall()
        by_hour = con.execute(
            f'SELECT floor(epoch("at") / 3600)::BIGINT % 24, count(*) FROM asked WHERE {ASKED} '
            "GROUP BY 1",
            span,
        ).fetchall()
        # Rows of a batch share their time, so theirs says nothing.
        by_minute = con.execute(
            f"WITH timed AS (SELECT * FROM asked WHERE {ASKED} AND model_us IS NOT NULL AND NOT "
            "batch), bound AS (SELECT quantile_disc(model_us, $slow) AS us FROM timed) "
            'SELECT floor(epoch("at") / 60)::BIGINT, count(*), count(*) FILTER (model_us > us) '
            "FROM timed, bound GROUP BY 1 ORDER BY 1",
            span | {"slow": SLOW_QUANTILE},
        ).fetchall()
    asked = tuple(int(count) for (count,) in by_entity)
    if sum(asked) < LEAST_REQUESTS or len(asked) < LEAST_ENTITIES:
        raise SourceError(
            f"the log of {use_case} holds {sum(asked)} requests of {len(asked)} entities of the 7 "
            f"days before {at:%Y-%m-%d %H:%M} UTC; to draw from it takes {LEAST_REQUESTS} of "
            f"{LEAST_ENTITIES}; run `evergreen import-predictions {use_case}`, or leave "
            "out --from-log"
        )
    hours = dict(by_hour)
    bursts, lasting = burstiness(*np.asarray(by_minute or np.zeros((0, 3)), int).T)
    return Traffic(
        requests_a_day=count_traffic(lake, use_case, at).requests,
        entities=len(asked),
        asked=asked,
        hours=tuple(float(hours.get(hour, 0)) for hour in range(24)),
        bursts=bursts,
        lasting=lasting,
    )


def burstiness(minute: Ints, answers: Ints, slow: Ints) -> tuple[float, float]:
    """Return `bursts` and `lasting` of `Traffic`, from the slow answers of each minute.

    The chance of a slow answer is taken for a mean times exp(state), the state normal and of first
    order. Then the product of the shares of two minutes that are k apart is, on average, the mean
    squared times exp(bursts² lasting^k): of two k both follow, and no binomial noise is in it, as
    it is in the variance of a minute.
    """
    if not slow.sum():
        return 0.0, 0.0
    mean = slow.sum() / answers.sum()
    first, second = (_excess(minute, answers, slow, mean, apart) for apart in (1, 2))
    if first <= 0 or second <= 0:  # nothing lasts: what is left is noise
        return 0.0, 0.0
    lasting = min(second / first, MOST_LASTING)
    return min(float(np.sqrt(first / lasting)), MOST_BURSTS), float(lasting)


def _excess(minute: Ints, answers: Ints, slow: Ints, mean: float, apart: int) -> float:
    """Return the log of how much likelier than chance slow answers are so many minutes apart."""
    at = np.minimum(np.searchsorted(minute, minute + apart), minute.size - 1)
    found = minute[at] == minute + apart
    # Weighted by their answers: a minute of one answer says as much as one answer.
    together: Floats = (slow[found] * slow[at[found]]).sum()
    expected = mean**2 * (answers[found] * answers[at[found]]).sum()
    return float(np.log(together / expected)) if together and expected else 0.0
