"""A second draft over a first one: what a person changed or answered stays.

A draft carries a mark: the digest of its own text, and the answers that made it. A file that has
the digest was not touched, and may be written anew. One that was changed is compared with the draft
that the same answers make of the same table; what differs is the person's, and wins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from include.config import use_case_file
from include.errors import ConfigError
from include.onboarding.answers import Answers

_MARK = re.compile(
    r"^# Made by `evergreen new`, which keeps what you change: draft ([0-9a-f]{16}), answers "
    r"(\{.*\})$",
    re.MULTILINE,
)


def with_mark(text: str, answers: Answers) -> str:
    """Return a draft with its mark as the last line."""
    return (
        f"{text}# Made by `evergreen new`, which keeps what you change: draft {_digest(text)}, "
        f"answers {answers.as_json()}\n"
    )


def answers_in(text: str) -> Answers | None:
    """Return the answers that made a draft; None where the text is no draft, or lost its mark."""
    match = _MARK.search(text)
    if match is None:
        return None
    try:
        return Answers.from_json(match[2])
    except (ValueError, TypeError):
        return None


def redraft(path: Path, text: str, draft: str, again: Callable[[Answers], str]) -> str:
    """Return a new draft with what a person changed in the old one, which is `text` of `path`.

    `again` makes a draft by answers.

    Raises:
        ConfigError: the file is no draft, or nobody can tell what was changed in it, or the changes
            do not fit the new draft. It stays as it is.
    """
    match, answers = _MARK.search(text), answers_in(text)
    elsewhere = "remove it, or give another --name or --output"
    if match is None or answers is None:
        raise ConfigError(f"{path} exists already and is no draft of `evergreen new`; {elsewhere}")
    body = _without_mark(text)
    if _digest(body) == match[1]:
        return draft
    base = again(answers)
    if _digest(_without_mark(base)) != match[1]:
        raise ConfigError(
            f"{path} exists already and was changed by hand, and the table or Evergreen has "
            "changed since it was drafted, so nobody can tell what is yours; it stays as it is: "
            f"{elsewhere}, and take over your lines"
        )
    merged = "".join(
        _merge(*(_without_mark(one).splitlines(keepends=True) for one in (base, text, draft)))
    )
    try:
        use_case_file.parse(merged, where=str(path), folder=path.parent)
    except ConfigError as error:
        raise ConfigError(
            f"{path} stays as it is: what was changed in it does not fit the new draft ({error}); "
            f"{elsewhere}"
        ) from None
    mark = _MARK.search(draft)
    assert mark is not None
    return f"{merged}{mark[0]}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_mark(text: str) -> str:
    return re.sub(f"{_MARK.pattern}\n?", "", text, count=1, flags=re.MULTILINE)


def _merge(base: Sequence[str], ours: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a three-way merge; where both changed the same lines, ours stand."""
    at_base = at_ours = at_new = 0
    for start, end, in_ours, in_new in _common(base, ours, new):
        old = list(base[at_base:start])
        mine, theirs = list(ours[at_ours:in_ours]), list(new[at_new:in_new])
        if len(old) == len(mine) == len(theirs):
            # Neighbours, such as label_time and delay, may each be changed by somebody else.
            mine = [
                new if my == was else my for was, my, new in zip(old, mine, theirs, strict=True)
            ]
            theirs = mine
        yield from theirs if mine == old else mine
        yield from base[start:end]
        at_base, at_ours, at_new = end, in_ours + end - start, in_new + end - start


def _common(
    base: Sequence[str], ours: Sequence[str], new: Sequence[str]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the runs of lines that all three have: first and end in base, first in the others."""
    runs = [
        SequenceMatcher(None, base, other, autojunk=False).get_matching_blocks()
        for other in (ours, new)
    ]
    for one in runs[0]:
        for two in runs[1]:
            start, end = max(one.a, two.a), min(one.a + one.size, two.a + two.size)
            if start < end:
                yield start, end, one.b + start - one.a, two.b + start - two.a
    yield len(base), len(base), len(ours), len(new)
