"""What a person said of a table: by options of `evergreen new`, or in answer to its questions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import date

from include.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known; None where nobody said anything, and a guess stands.

    `key`, `time`, `label` are headers; `positive` values of the label that count as 1; `known`
    (when a row is known) and `outcome` (when its outcome is) headers or `event + DURATION`;
    `within` a time in which an outcome counts, or `ever`; `written_later` headers of what is
    written after the decision, all of it, unless `at_decision` has headers of what is known at it:
    then each column was asked for, and a guess stands for what is in neither. With `guesses`
    nothing else is asked.
    """

    key: str | None = None
    time: str | None = None
    label: str | None = None
    snapshot: date | None = None
    known: str | None = None
    outcome: str | None = None
    written_later: tuple[str, ...] | None = None
    at_decision: tuple[str, ...] | None = None
    positive: tuple[str, ...] | None = None
    within: str | None = None
    guesses: bool | None = None

    def with_others(self, others: Answers) -> Answers:
        """Return these answers, and of `others` what these leave open."""
        left = {
            field.name: getattr(others, field.name)
            for field in fields(self)
            if getattr(self, field.name) is None
        }
        # What a person lists anew is the whole answer.
        if self.written_later is not None:
            left.pop("at_decision", None)
        # A time and a snapshot exclude each other: the newer answer stands.
        if self.time is not None:
            left.pop("snapshot", None)
        if self.snapshot is not None:
            left.pop("time", None)
        return replace(self, **left)

    def as_json(self) -> str:
        """Return what was said as one line of JSON, safe in a comment."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(said, default=str)

    @classmethod
    def from_json(cls, text: str) -> Answers:
        """Return the answers of such a line.

        Raises:
            ValueError: it is none.
        """
        said = json.loads(text)
        known = {field.name for field in fields(cls)}
        if not isinstance(said, dict) or not set(said) <= known:
            raise ValueError(f"{text!r} holds no answers")
        if said.get("snapshot") is not None:
            said["snapshot"] = date.fromisoformat(said["snapshot"])
        for name in ("written_later", "at_decision", "positive"):
            if said.get(name) is not None:
                said[name] = tuple(said[name])
        return cls(**said)


NOTHING = Answers()


class Undecided(ConfigError):
    """What only a person can say, and without which there is no draft.

    `field` of the answers is asked by `question`; `choices` are what may be said, as far as it is
    known, and `option` of `evergreen new` says it without a terminal.
    """

    def __init__(
        self, message: str, *, field: str, question: str, choices: tuple[str, ...], option: str
    ) -> None:
        super().__init__(message)
        self.field, self.question, self.choices, self.option = field, question, choices, option
