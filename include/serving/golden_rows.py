"""Ask a model in a process of its own its golden rows: what it says of itself is no proof."""

from __future__ import annotations

import json

from include.errors import ArtefactError
from include.models.golden import TOLERANCE
from include.serving.http import Refusal
from include.serving.snapshot import RemoteScorer


async def ask_golden(model: RemoteScorer, content: bytes) -> int:
    """Ask the golden rows of a verified bundle and return how many there are.

    Raises:
        ArtefactError: there are none, one is refused, or an answer differs by more than the
            tolerance.
        Unavailable: the process gives no answer.
    """
    golden = json.loads(content)
    rows, expected = golden["rows"], golden["scores"]
    if not rows or len(rows) != len(expected):
        raise ArtefactError("golden.json holds no rows to ask; train the model again")
    for number, (row, score) in enumerate(zip(rows, expected, strict=True)):
        try:
            answer = (await model.ask(row)).value
        except Refusal as error:
            raise ArtefactError(
                f"golden row {number} is refused by the model's process ({error}); its bento was "
                "changed. Package the model again"
            ) from error
        if not abs(answer - score) <= TOLERANCE:  # not `>`: NaN must not pass
            raise ArtefactError(
                f"golden row {number}: the model's process answers {answer!r}, recorded is "
                f"{score!r}; its bento was changed. Package the model again"
            )
    return len(rows)
