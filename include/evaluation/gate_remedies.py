"""What a person can do about each check of the gate that is no pass, as a line of YAML.

The line that loosens a limit always comes with what it means, and after what would mend the cause.
One function a check id; `candidate` and `release` are told by whoever found the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from include.config.remedies import remedy, rounded_down, rounded_up
from include.config.use_case import UseCase
from include.evaluation.gate import Check, is_shifted

MOST = 0.6  # of all rows: a larger part leaves too little to train on
LEFT = 0.2  # of all rows, at least to train on
HAIR = 0.001  # how far a new limit lies beyond a number that has to be inside it

Metrics = Mapping[str, float]
Remedy = Callable[[Check, UseCase, Metrics, Sequence[str]], str]


def with_remedy(
    check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]
) -> Check:
    """Return a check with what can be done about it; one that passed stays as it is.

    `carriers` are the features that tell the most.
    """
    if check.outcome == "pass" or check.id not in REMEDIES:
        return check
    return replace(check, remedy=REMEDIES[check.id](check, use_case, metrics, carriers))


def _mature_rows(check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]) -> str:
    fewest = int(check.value or 0)
    more = f"Wait for more outcomes, or judge on more rows: {_larger(use_case, 'evaluation')}"
    if fewest < 1:
        return more
    return (
        f"{more}; {remedy(('gates', 'min_rows'), fewest)} would judge on {fewest} rows of the "
        f"rarer class, where chance alone moves an AUC by {_by_chance(fewest):.2f} either way"
    )


def _censored_share(
    check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]
) -> str:
    if check.value is None or math.isnan(check.value):
        return "Train the partition again, so that it is counted"
    line = remedy(("label", "max_censored"), min(rounded_up(check.value, 2), 1.0))
    return (
        "Look why outcomes are missing, or wait longer for them (label.delay); "
        f"{line} would judge on the others alone, whose outcomes may differ from those that are "
        "missing"
    )


def _auc(check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]) -> str:
    if check.outcome == "hold":
        return _unanswered(use_case)
    least = max(rounded_down(check.value or 0.0, 2), 0.0)
    line = remedy(("gates", "min_auc"), least)
    if least <= 0.5:
        return (
            f"The features tell nothing of the outcome: add others. {line} would release a model "
            "that ranks no better than chance"
        )
    return (
        f"Add features that tell more; {line} would release a model that ranks a case above a "
        f"non-case {least:.0%} of the time"
    )


def _max_auc(check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]) -> str:
    if check.outcome == "hold" and check.value is None:
        return _unanswered(use_case)
    line = remedy(("gates", "max_auc"), min(rounded_up(check.value or 1.0), 1.0))
    known = f"{line} says that it truly is that easy"
    if not carriers:
        return f"Exclude what is written after the outcome; {known}"
    leave_out = [*use_case.training.exclude, carriers[0]]
    return (
        f"If {carriers[0]}, which tells the most, is written after the outcome: "
        f"{remedy(('training', 'exclude'), leave_out)}; {known}"
    )


def _calibration(check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]) -> str:
    if check.outcome == "hold":
        return _unanswered(use_case)
    error = check.value or 0.0
    chance = metrics.get("calibration_error_by_chance", 0.0)
    # The limit counts from what chance gives on so many rows, where that is known.
    beyond = max(error - (0.0 if math.isnan(chance) else chance), 0.0)
    line = remedy(("gates", "max_calibration_error"), min(rounded_up(beyond + HAIR), 1.0))
    advice = f"Calibrate on more rows: {_larger(use_case, 'tune')}"
    if is_shifted(metrics.get("calibration_in_the_large", 0.0), error):
        advice = (
            "The outcome's rate moves with time, which more rows do not mend: judge a newer "
            "partition, or add a feature that moves with it"
        )
    return (
        f"{advice}; {line} would release scores that are off by {error:.3f} on average: a rank, "
        "but no chances"
    )


def _over_baseline(
    check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]
) -> str:
    if check.outcome == "hold":
        return _unanswered(use_case)
    line = remedy(("gates", "over_baseline"), rounded_down((check.value or 0.0) - HAIR))
    return (
        "Few rows, or features that tell in a straight line, need no trees; "
        f"{line} would release it although a logistic regression ranks as well, or better"
    )


def _opponent(check: Check, use_case: UseCase, metrics: Metrics, carriers: Sequence[str]) -> str:
    if check.outcome == "hold":
        return ""  # the reason says what would have to be done, or that there is nothing to do
    line = remedy(("gates", "margin"), rounded_up(-(check.value or 0.0) + HAIR))
    return (
        f"The model that serves goes on serving; {line} would replace it by one that may rank "
        f"worse by so much"
    )


def _unanswered(use_case: UseCase) -> str:
    """Return the remedy where a number could not be computed: mostly one class is missing."""
    return f"Judge on more rows, of both outcomes: {_larger(use_case, 'evaluation')}"


def _larger(use_case: UseCase, part: str) -> str:
    """Return the line by which a part has more of the rows; where none is left, a plain division.

    Wide parts leave too little to train on.
    """
    split = use_case.training.split
    share, other = split.evaluation, split.tune
    if part == "tune":
        share, other = other, share
    wanted = round(min(share + 0.1, MOST, 1 - LEFT - other), 2)
    if wanted > share:
        return remedy(("training", "split", part), wanted)
    return remedy(("training", "split"), {"tune": 0.2, "evaluation": 0.4})


def _by_chance(fewest: int) -> float:
    """Return half the 95 % interval of the AUC of noise, at so many rows of each class.

    Hanley and McNeil (1982); with more rows of the other class it is narrower.
    """
    return 1.96 * math.sqrt((2 * fewest + 1) / (12 * fewest * fewest))


REMEDIES: dict[str, Remedy] = {
    "mature_rows": _mature_rows,
    "censored_share": _censored_share,
    "auc": _auc,
    "max_auc": _max_auc,
    "calibration_error": _calibration,
    "over_baseline": _over_baseline,
    "opponent": _opponent,
}
"""What is said of a check, by its id."""
