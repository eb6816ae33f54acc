"""Ask a model in a process of its own, within the time of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from include.errors import Unavailable
from include.serving.http import Refusal
from include.serving.predict import check_score
from include.serving.prediction_request import CheckedRequest
from include.serving.snapshot import Loaded, RemoteScore


async def score_remotely(
    model: Loaded,
    row: Mapping[str, Any],
    request: CheckedRequest,
    *,
    seconds: float,
    within: float | None = None,
) -> RemoteScore:
    """Return the probability that a model in a process of its own gives, and the time it took.

    A request waits for `seconds` at most, whichever models are asked in its turn, and for this one
    at most `within`, where that is given.

    Raises:
        Refusal: 422 with the feature that the row lacks, 504 where the time is over.
        Unavailable: the model does not answer a probability.
    """
    if model.remote is None:
        raise Unavailable(f"model {model.version} has no process of its own")
    missing = [name for name in model.remote.features if name not in row]
    if missing:
        raise Refusal(
            422,
            "invalid",
            f"feature {missing[0]!r} is missing; send null",
            field=f"features.{missing[0]}",
        )
    request.until = request.until or asyncio.get_running_loop().time() + seconds
    given = {name: row[name] for name in model.remote.features}
    try:
        async with asyncio.timeout_at(request.until):
            if within is None:
                score = await model.remote.ask(given)
            else:
                score = await model.remote.ask(given, seconds=within)
    except TimeoutError:
        raise out_of_time() from None
    check_score(model, score.value)
    return score


def out_of_time() -> Refusal:
    """Return the refusal of a request whose time is over."""
    return Refusal(
        504,
        "deadline",
        "no answer within the time of a request (EVERGREEN_REQUEST_SECONDS); ask again later",
        headers=[(b"retry-after", b"1")],
    )
