"""What of a step looks bad and is too little for its test: it must not pass as what was seen.

A test needs the spread between clusters of entities. Of fewer than it needs, in either arm, it says
nothing, whatever the share of bad answers is: such as of a few heavy entities, or of a champion who
has hardly any traffic left.
"""

from __future__ import annotations

import numpy as np

from include.deployment.metric_verdicts import SHARES
from include.deployment.release_metrics import StepSums
from include.deployment.release_plan import ReleasePlan
from include.deployment.sequential import FEWEST_CLUSTERS, Tally

NOT_KNOWN = "not known"


def unseen(plan: ReleasePlan, sums: StepSums, *, absolute: bool) -> dict[str, str]:
    """Return the shares that no test can judge, with why the step waits, or "" where it need not.

    It waits where the share is above its limit: the challenger may be bad, and nobody can tell.
    """
    found = {}
    for name in SHARES:
        rule = plan.metrics.get(name)
        if rule is None:
            continue
        mine, champion = (arm.tally(name) for arm in sums.arms(name))
        of_mine, of_champion = _clusters(mine), _clusters(champion)
        if min(of_mine, of_mine if absolute else of_champion) >= FEWEST_CLUSTERS:
            continue
        limit = 1.0 if rule.limit is None else rule.limit
        asked, bad = float(mine.asked.sum()), float(mine.bad.sum())
        found[name] = ""
        if bad > limit * asked:
            whose = "its" if of_mine < FEWEST_CLUSTERS else "the champion's"
            found[name] = (
                f"{name}: {bad:.0f} of {asked:.0f} are above the limit of {limit:.2%}, but {whose} "
                "requests are of too few entities to judge it"
            )
    return found


def _clusters(tally: Tally) -> int:
    return int(np.count_nonzero(tally.asked))
