"""What a wrong argument was probably meant to be: a stage, use case, partition key or command."""

from __future__ import annotations

import re
import shlex
from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING

from include.errors import ConfigError
from include.pipeline.flow import ENTRY, STAGES

if TYPE_CHECKING:
    from include.config.use_case import UseCase

# A year, a month and perhaps a day with anything or nothing between them; what follows the day (a
# time) is passed over: 2025-3-1, 2025/03, 20250301, 2025-03-01T00:00.
_DAY = re.compile(r"(\d{4})\D?(\d{1,2})(?:\D?(\d{1,2})(?:\D.*)?)?")


class Mistake(ConfigError):
    """An argument is wrong, and `meant` is what comes nearest to it, or None."""

    def __init__(self, message: str, *, wrong: str, meant: str | None) -> None:
        super().__init__(message)
        self.wrong, self.meant = wrong, meant

    def with_suggestion(self, arguments: Sequence[str]) -> str:
        """Return the message, with the whole command as it was probably meant."""
        if self.meant is None:
            return str(self)
        return f"{self}. Did you mean `{corrected(arguments, self.wrong, self.meant)}`?"


def corrected(arguments: Sequence[str], wrong: str, meant: str) -> str:
    """Return the command with its wrong argument replaced.

    Where that is only a part of another argument, the right one is returned alone.
    """
    # The whole argument, or all behind the = of an option; `\Z`, since `$` matches before a final
    # line break. A function replaces, so that a backslash in `meant` stays one.
    whole = re.compile(rf"(^|(?<==)){re.escape(wrong)}\Z")
    mended = [whole.sub(lambda _: meant, argument) for argument in arguments]
    return meant if mended == [*arguments] else shlex.join(["evergreen", *mended])


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that comes nearest to a word, without regard to case, or None."""
    by_lower = {name.lower(): name for name in names}
    matches = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None


def stage_words() -> dict[str, str]:
    """Return stages by the words that people have for them: package, module, what they make."""
    words = {"bento": "package_model", "drift": "check_drift"}
    return words | {part: stage for stage in STAGES for part in ENTRY[stage].split(".")[1:]}


def meant_by(word: str, words: Mapping[str, str]) -> str | None:
    """Return what the nearest of some words stands for, or None."""
    match = nearest(word, words)
    return None if match is None else words[match]


def nearest_key(use_case: UseCase, key: str, now: datetime) -> str | None:
    """Return the complete partition that comes nearest to a key; None where none is complete yet.

    A day that no calendar has is taken for the last one before it; a text that names no day, for
    the newest.
    """
    from include.point_in_time.partitions import key_within, newest_complete

    newest, written = newest_complete(use_case, now), _DAY.fullmatch(key.strip())
    if newest is None or written is None:
        return newest
    year, month, day = (max(int(part or 1), 1) for part in written.groups())
    month = min(month, 12)
    key = key_within(use_case, date(year, month, min(day, monthrange(year, month)[1])))
    return min(max(key, use_case.history.first.isoformat()), newest)
