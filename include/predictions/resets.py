"""Pass over segments of before a reset: a node of another machine may bring them after it.

A node notices a reset a moment later, or at its next start. What it has logged until then belongs
to predictions that were deleted; a use case that is made anew under the name must not hold it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from include.predictions.log import Segment, began_at

log = logging.getLogger(__name__)

# A segment that begins so shortly after a reset is of before: a node had not noticed it, or the
# clocks differ. A use case made anew trains and packages a model before it answers.
SETTLE = timedelta(seconds=10)


def drop_forgotten(
    use_case: str, segments: Sequence[Segment], reset: datetime | None
) -> list[Segment]:
    """Return the segments of after the newest reset of their use case, and remove the others.

    The name of a segment says when it began; one that spans a reset, a minute long at most, is of
    before. One that cannot be removed is passed over all the same.
    """
    if reset is None:
        return list(segments)
    kept, removed = list[Segment](), 0
    for segment in segments:
        began = began_at(segment.name)
        if began is None or began >= reset + SETTLE:
            kept.append(segment)
            continue
        try:
            segment.remove()
            removed += 1
        except OSError as error:
            log.warning("segment %s of before a reset is not removed: %s", segment.path, error)
    if removed:
        log.warning(
            "%s: %d segments of before its reset at %s are removed; they are not imported",
            use_case,
            removed,
            f"{reset:%Y-%m-%d %H:%M:%S}",
        )
    return kept
