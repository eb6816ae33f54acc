"""The questions of the command `new` in a terminal: what no draft can do without, then the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from include.cli.output import print_line
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.cli.draft_target import Target
    from include.onboarding.answers import Answers
    from include.onboarding.draft import Draft
    from include.onboarding.profile import Table
    from include.onboarding.questions import Question

ASKED = ("label", "time", "known", "outcome", "within", "written_later")
"""The fields of answers, in the order of their questions: the first may change the others."""


def draft_asking(target: Target, tables: list[Table], answers: Answers) -> Draft:
    """Return the draft by answers; ask for what there is none without, until there is one.

    Raises:
        ConfigError: no answer would help.
    """
    from include.onboarding.answers import Undecided
    from include.onboarding.draft_yaml import one_line
    from include.onboarding.questions import answered, question_of

    try:
        return target.draft(tables, answers)
    except Undecided as undecided:
        print_line(one_line(str(undecided)))
        question = question_of(undecided)
    while True:
        try:
            return draft_asking(target, tables, answered(question, _prompt(question), answers))
        except ConfigError as error:
            print_line(f"  {one_line(str(error))}")


def ask_open_questions(target: Target, tables: list[Table], drafted: Draft) -> Draft:
    """Ask what only a person knows, one by one; return the draft by the answers."""
    from include.onboarding.draft_yaml import one_line
    from include.onboarding.questions import answered, answered_lines

    for field in ASKED:
        question = next((each for each in drafted.questions if each.field == field), None)
        if question is None:
            continue
        print_line()
        said = _ask_lines(question)
        while True:
            try:
                answers = (
                    answered_lines(question, said, _prompt_others(), drafted.answers)
                    if said
                    else answered(question, _prompt(question), drafted.answers)
                )
                drafted = draft_asking(target, tables, answers)
                break
            except ConfigError as error:
                print_line(f"  {one_line(str(error))}")
    return drafted


def _ask_lines(question: Question) -> dict[str, bool]:
    """Ask for each column of a question whether it is one; of a question without print its hints.

    What was answered once is not asked again where another answer is wrong.
    """
    from include.onboarding.draft_yaml import one_line

    if not question.lines:
        for hint in question.hints:
            print_line(f"  {one_line(hint)}")
        return {}
    print_line(one_line(question.text))
    said = {}
    for line in question.lines:
        print_line(f"  {one_line(line.header)}: {one_line(line.marks)}")
        text = one_line(f"  Is {line.header} written after the decision?")
        said[line.header] = typer.confirm(text, default=line.guess)
    return said


def _prompt_others() -> str:
    from include.onboarding.questions import NONE

    return str(typer.prompt(f"  Which others? [{NONE}]", default=NONE, show_default=False))


def _prompt(question: Question) -> str:
    """Return what a person types; of a question with a guess, Enter means the guess."""
    from include.onboarding.draft_yaml import one_line

    others = f" ({'or' if question.guess else 'one of'}: {', '.join(question.choices)})"
    guess = f" [{question.guess}]" if question.guess else ""
    # The default is shown here, not by typer: headers may hold what a terminal would obey.
    shown = one_line(f"{question.text}{others if question.choices else ''}{guess}")
    suffix = " " if shown.endswith("?") else ": "
    given = typer.prompt(
        shown, default=question.guess or None, show_default=False, prompt_suffix=suffix
    )
    return str(given)
