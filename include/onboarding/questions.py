"""What only a person can answer of a table, with the guess that stands until somebody does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from include.config.durations import format_duration, lag_after_event, parse_duration
from include.errors import ConfigError
from include.onboarding.answers import Answers, Undecided
from include.onboarding.column_roles import Roles
from include.onboarding.date_parts import Expression
from include.onboarding.draft_times import EVER, Horizon
from include.onboarding.joins import Joined

AT_ONCE = "event + 0s"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Line:
    """A column that may be written after the decision: what speaks for it, and the guess."""

    header: str
    marks: str
    guess: bool


@dataclass(frozen=True, slots=True)
class Question:
    """One question: `field` of the answers, the guess, and what else may be said.

    `guessed` are the columns of a guess that is a list: a header may hold a comma. `lines` are the
    columns that a terminal asks for one by one. `option` of `evergreen new` answers it without a
    terminal.
    """

    field: str
    text: str
    guess: str
    choices: tuple[str, ...]
    hints: tuple[str, ...]
    option: str
    guessed: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()

    def as_comment(self) -> str:
        """Return the question as one line of a comment."""
        others = ", ".join(json.dumps(choice[:60]) for choice in self.choices[:6])
        return (
            f"{self.text} Guessed: {json.dumps(self.guess)}; "
            f"{f'or {others}; ' if others else ''}answer with {self.option}, or mend it below"
        )


def open_questions(
    roles: Roles,
    answers: Answers,
    joined: Sequence[Joined] = (),
    horizon: Horizon | None = None,
) -> Iterator[Question]:
    """Yield what nobody has answered yet; the first may change what the later ones ask."""
    if answers.guesses:
        return
    if answers.label is None and not roles.label_sure:
        yield Question(
            "label",
            "Which column is the outcome?",
            roles.label.header,
            tuple(column.header for column in roles.label_rivals),
            (),
            "--label",
        )
    if not roles.snapshot:
        if answers.time is None:
            yield _moment(roles)
        times = [column.header for column in roles.moments if not column.made]
        if answers.known is None:
            guess = AT_ONCE if roles.arrival is None else roles.arrival.header
            yield Question(
                "known",
                "When is a row known?",
                guess,
                tuple(c for c in (*times, "event + 1d") if c not in (guess, roles.event.header)),
                (),
                "--known",
            )
        if answers.outcome is None:
            guess = AT_ONCE if roles.outcome is None else roles.outcome.header
            yield Question(
                "outcome",
                "When is the outcome known?",
                guess,
                tuple(c for c in (*times, "event + 30d") if c not in (guess, roles.event.header)),
                (),
                "--outcome-known",
            )
        if answers.within is None and horizon is not None:
            yield _within(horizon)
    later = _written_later([roles, *joined], answers)
    if answers.written_later is None or (answers.at_decision is not None and later.lines):
        yield later


def question_of(undecided: Undecided) -> Question:
    """Return as a question what a draft could not be made without; it has no guess."""
    return Question(
        undecided.field, undecided.question, "", undecided.choices, (), undecided.option
    )


def _moment(roles: Roles) -> Question:
    made = roles.event.made
    hints = []
    if isinstance(made, Expression) and " - CAST" in made.template:
        hints.append(f"that date, as many days earlier as {made.parts[-1]} says")
    return Question(
        "time",
        "What is the moment of the decision?",
        roles.event.header,
        tuple(c.header for c in roles.moments if c.header != roles.event.header),
        tuple(hints),
        "--time",
    )


def _within(horizon: Horizon) -> Question:
    guess = format_duration(horizon.within)
    hints = []
    if horizon.only_ones:
        hints.append("only the outcome 1 has a time; the other is known when a time is over")
    if horizon.later is not None:
        hints.append(f"{horizon.later:.0%} of the outcomes 1 come later than {guess}: they are 0")
    shares = [f"{share:.0%} within {days}d" for days, share in horizon.covered]
    if shares:
        hints.append(f"of the outcomes 1 come {', '.join(shares)}")
    others = [f"{days}d" for days, _ in horizon.covered if f"{days}d" != guess]
    return Question(
        "within",
        "Within how long does the outcome count?",
        guess,
        (*others, *([] if horizon.only_ones else [EVER])),
        tuple(hints),
        "--within",
    )


def _written_later(tables: Sequence[Roles | Joined], answers: Answers) -> Question:
    said = {*(answers.written_later or ()), *(answers.at_decision or ())}
    guess = [
        column.header
        for table in tables
        for column in table.written_later
        if column.header not in said
    ]
    lines = []
    for table in tables:
        for column in (*table.written_later, *table.features):
            evidence = table.evidence.get(column.header)
            if evidence is None or column.header in said or not (marks := evidence.marks(column)):
                continue
            lines.append(Line(column.header, ", ".join(marks), column.header in guess))
    return Question(
        "written_later",
        "Which columns are written after the decision?",
        ", ".join(guess) or NONE,
        tuple(line.header for line in lines if not line.guess),
        tuple(f"{line.header}: {line.marks}" for line in lines),
        "--written-later",
        tuple(guess),
        tuple(lines),
    )


def answered_lines(
    question: Question, said: Mapping[str, bool], more: str, answers: Answers
) -> Answers:
    """Return the answers with what was said of each line, and of further columns."""
    later = [*(answers.written_later or ()), *(header for header, yes in said.items() if yes)]
    before = [*(answers.at_decision or ()), *(header for header, yes in said.items() if not yes)]
    later += [header for header in split_headers(more) if header not in later]
    return replace(
        answers,
        written_later=tuple(later),
        at_decision=tuple(header for header in before if header not in later),
    )


def answered(question: Question, text: str, answers: Answers) -> Answers:
    """Return the answers with that of one question, as a person typed it.

    Raises:
        ConfigError: it is no answer to the question.
    """
    text = text.strip()
    if question.field == "snapshot":
        try:
            return replace(answers, snapshot=date.fromisoformat(text))
        except ValueError:
            raise ConfigError(f"{text!r} is no day; write it as 2024-05-31") from None
    if question.field == "positive":
        # A value may hold a comma: whoever knows the column's values divides the text again.
        return replace(answers, positive=split_headers(text))
    if question.field == "within":
        return replace(answers, within=checked_within(text))
    if question.field == "written_later":
        headers = question.guessed if text == question.guess.strip() else split_headers(text)
        return replace(answers, written_later=headers)
    if question.field in ("known", "outcome") and text.startswith("event"):
        try:
            lag = lag_after_event(text)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if lag is None:
            raise ConfigError(f"{text!r} is no time; write a column, or such as event + 3d")
    return replace(answers, **{question.field: text})  # type: ignore[arg-type]


def checked_within(text: str) -> str:
    """Return the time within which an outcome counts, as a person wrote it.

    Raises:
        ConfigError: it is no duration, nor `ever`.
    """
    if text != EVER:
        try:
            if parse_duration(text) <= timedelta(0):
                raise ValueError("an outcome takes some time")
        except ValueError as error:
            raise ConfigError(f"--within {text!r}: {error}; write such as 90d, or {EVER}") from None
    return text


def split_headers(text: str) -> tuple[str, ...]:
    """Return the headers of a list with commas; none for `none` and nothing."""
    if text.strip() in ("", NONE):
        return ()
    return tuple(part.strip() for part in text.split(",") if part.strip())
