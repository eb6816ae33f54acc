"""What a judgement of a release comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Word = Literal["pass", "hold", "fail"]
Action = Literal["stay", "advance", "promote", "suspend", "resume", "abort", "roll_back"]


@dataclass(frozen=True)
class Decision:
    """What a release is found to be, and what is to be done with it.

    `action` promote means of a watched release that its watch is over, resume that a suspended one
    goes on with its step. `causes` is what the errors may come of, as data. `asks_about` is what a
    person is to look at, whatever is done: kinds of reasons, in words that stay the same while the
    figures of the reason move. `ends_at` is when the step, or the watch, ends.
    """

    word: Word
    action: Action
    reason: str
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    causes: list[dict[str, Any]] = field(default_factory=list)
    ends_at: datetime | None = None
    asks_about: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether a person is asked."""
        return bool(self.asks_about)
