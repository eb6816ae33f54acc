"""Count again, from the log, what a start of the node had not counted when it was killed.

Its windows were kept with the place in the log up to which they count; the lines behind that place
are noted as they were when their requests were answered, and added.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from include.predictions.line import DEGRADED, FALLBACK, LoggedLine, UnreadableLine, read_line
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    NEITHER,
    NOBODY,
    SHADOW,
    Counts,
    add,
    place_of,
)
from include.records.records import Window
from include.serving.evidence import MICROS_A_MINUTE, WindowKey
from include.serving.tally import ROW_LACKS_FEATURE, Recent, Tally
from include.serving.window_file import KeptBoot, KeptWindow, WindowFile

log = logging.getLogger(__name__)

NOT_TOLD = ""  # the feature that a row lacked, which its line does not name
# Of a request that was meant for a model which was not there: nobody failed.
_NO_ERROR = frozenset({"", "not_loaded"})


def recounted(file: WindowFile, boot: KeptBoot, node: str) -> list[Window]:
    """Return all windows of a start that has ended, to be written over those of the records.

    One of each step is its closing row. A start that was killed is closed only if all of its
    segments were there; its closing row says that it was unclean.
    """
    sums = {_key_of(window): window.counts for window in boot.windows}
    whole = True
    if not boot.has_ended:
        for use_case, position in boot.positions.items():
            segments = file.held(boot, use_case)
            # A name without a dash is a time at which no segment was open.
            whole = whole and (
                "-" not in position.segment or position.segment in {path.stem for path in segments}
            )
            skipped = {position.segment: position.size}
            lines = _lines(segments, skipped, boot)
            for key, tally in _count(lines, use_case, boot).items():
                counts = tally.counts()
                sums[key] = add(sums[key], counts) if key in sums else counts
    closing = _closing(sums)
    for key in closing:
        counts = sums.get(key, Counts())
        sums[key] = add(counts, Counts(unclean=0 if boot.has_ended else 1))
    if not whole:
        log.warning("segments of the start %s are away: what it answered stays unknown", boot.boot)
    return [
        window_of(key, counts, node=node, boot=boot.boot, closed=whole and key in closing)
        for key, counts in sums.items()
    ]


def window_of(key: WindowKey, counts: Counts, *, node: str, boot: str, closed: bool) -> Window:
    """Return a window as the records keep it."""
    return Window(
        use_case=key.use_case,
        release_id=key.release,
        step=key.step,
        arm=key.arm,
        answering=key.answering,
        node=node,
        boot=boot,
        minute=key.minute,
        counts=counts.plain(),
        closed=closed,
    )


def closing_key(key: WindowKey) -> WindowKey:
    """Return the key of the row by which a start closes a step, in the minute of a window."""
    return key._replace(arm=CHAMPION, answering=CHAMPION)


def _closing(sums: dict[WindowKey, Counts]) -> set[WindowKey]:
    """Return the closing key of each step: that of its last minute."""
    last: dict[tuple[str, str, int], WindowKey] = {}
    for key in sorted(sums, key=lambda one: one.minute):
        last[key.use_case, key.release, key.step] = closing_key(key)
    return set(last.values())


def _key_of(window: KeptWindow) -> WindowKey:
    return WindowKey(
        window.use_case,
        window.release,
        window.step,
        window.arm,
        window.answering,
        window.minute,
    )


def _lines(segments: list[Path], skipped: dict[str, int], boot: KeptBoot) -> Iterator[LoggedLine]:
    """Yield the lines of a start; of each segment the first bytes are skipped."""
    for path in segments:
        with path.open("rb") as file:
            file.seek(skipped.get(path.stem, 0))
            for number, text in enumerate(file):
                try:
                    line = read_line(path.stem, number, text)
                except UnreadableLine as error:  # the import sets it aside
                    log.warning("a line of %s is not counted: %s", path, error)
                    continue
                if line.request_id.startswith(boot.prefix) and line.release in boot.releases:
                    yield line


def _count(lines: Iterator[LoggedLine], use_case: str, boot: KeptBoot) -> dict[WindowKey, Tally]:
    tallies: dict[WindowKey, Tally] = {}
    scores: dict[str, tuple[float, bool]] = {}  # of what was answered, for pairs
    for line in lines:
        if line.release is None or line.step is None:
            continue
        arm, answering = _arms(line)
        minute = max(boot.floor, line.at // MICROS_A_MINUTE)
        key = WindowKey(use_case, line.release, line.step, arm, answering, minute)
        tally = tallies.setdefault(key, Tally())
        limits = boot.releases[line.release]
        place = place_of(limits.key, line.request_id if line.entity is None else line.entity)
        # As a node counts it (`Answering.note_answer`): without its features, no score.
        score = None if DEGRADED in line.flags.split(",") else line.score
        above = score is not None and score >= (line.threshold or 0.0)
        error = None if line.reason in _NO_ERROR else line.reason
        lacks = NOT_TOLD if line.reason == ROW_LACKS_FEATURE else None
        micros = None if line.batch else line.model_us
        own = arm in (SHADOW, answering)
        if (arm, answering) != (SHADOW, CHAMPION):  # of that the pair alone is counted
            answer = place, score, micros, above, error, lacks
            tally.take([answer], limits.slow_us, Recent(), own=own)
        tally.fallbacks += not own
        if line.outcome == "answered" and score is not None:
            scores[line.request_id] = score, above
        elif arm == SHADOW and line.score is not None and line.request_id in scores:
            answered, was_above = scores.pop(line.request_id)
            pair = (answered, line.score) if answering == CHAMPION else (line.score, answered)
            tally.take_pair(place[0], *pair, differ=above != was_above)
    return tallies


def _arms(line: LoggedLine) -> tuple[str, str]:
    if line.outcome == "shadow":
        return SHADOW, line.arm or CHALLENGER
    assigned = line.assigned or CHAMPION
    if line.outcome == "answered":
        return assigned, line.arm or NOBODY
    return assigned, NEITHER if line.arm == FALLBACK else NOBODY
