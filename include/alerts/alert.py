"""What is told to a person: one thing that happened, with a name by which it is told once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person is to know of, at once.

    `id` is the same however often it is sent: who gets it twice knows it by that. `event` is what
    happened, in the words of the audit log; `text` says it in a sentence.
    """

    id: str
    event: str
    use_case: str
    text: str
    at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it as it is sent."""
        return {
            "id": self.id,
            "event": self.event,
            "use_case": self.use_case,
            "text": self.text,
            "at": self.at.isoformat(timespec="seconds"),
            "details": dict(self.details),
        }
