"""Play the story of the drill against a running system, and print what each case came to.

    make drill [CASES="slow,node dead"] [SHORT=1]

Exit code 1: a case ended otherwise than the rules state, or a request failed that no killed process
had in hand.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.drill.stack import Stack, services
from tests.drill.story import Case, chosen
from tests.drill.traffic import RATE, Tally

HEADS = ("case", "what happened", "end", "s", "requests", "failed", "retried", "stated end")


@dataclass(frozen=True)
class Played:
    """What a case came to; `problem` is empty where that is what the rules state."""

    case: Case
    end: str
    seconds: float
    tally: Tally
    problem: str

    @property
    def line(self) -> tuple[str, ...]:
        """Its row of the table."""
        return (
            self.case.name,
            self.case.happens,
            self.end if not self.problem else f"{self.end} (!)",
            f"{self.seconds:.0f}",
            str(self.tally.requests),
            str(len(self.tally.failed)),
            str(self.tally.lost),
            self.case.stated,
        )


def play(cases: Sequence[Case], folder: Path, *, rate: float = RATE) -> Iterator[Played]:
    """Play cases one after the other on one system, and yield what each came to."""
    with services(folder) as servers:
        stack = Stack(folder, servers, rate=rate)
        with stack.running():
            yield _play(cases[0], stack)
            with stack.traffic.running():
                for case in cases[1:]:
                    if all(need in servers for need in case.needs):
                        yield _play(case, stack)


def _play(case: Case, stack: Stack) -> Played:
    stack.traffic.take()
    stack.harmed_at, end, problem = time.monotonic(), "", ""
    try:
        stack.change_plan()
        end = case.play(stack).replace("_", " ").replace("watched", "promoted")
    except Exception as error:  # whatever it is, the cases after it are played
        problem = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    seconds, tally = time.monotonic() - stack.harmed_at, stack.traffic.take()
    if not problem and end != case.stated:
        problem = f"ended as {end}, stated is {case.stated}"
    elif not problem and tally.failed:
        problem = f"{len(tally.failed)} requests failed: {tally.failed[:3]}"
    elif not problem and seconds > case.within:
        problem = f"took {seconds:.0f} s, stated are {case.within:.0f}"
    if release := stack.newest:
        print(f"  [{case.name}] {release.state}: {release.reason}", file=sys.stderr)
    stack.tidy_up()
    return Played(case, end or "none", seconds, tally, problem)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    every = [HEADS, *rows]
    widths = [max(len(row[at]) for row in every) for at in range(len(HEADS))]
    padded = [
        [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in every
    ]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def main(arguments: Sequence[str]) -> int:
    """Play, print the table, and return 0 if every case came to what the rules state."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="", help="names, with commas between; none: all of them")
    parser.add_argument("--short", action="store_true", help="only a few, below 90 s")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    parser.add_argument("--keep", type=Path, help="keep the system's files in this folder")
    options = parser.parse_args(arguments)
    cases = chosen([one for one in options.cases.split(",") if one], short=options.short)
    with tempfile.TemporaryDirectory(prefix="evergreen-drill-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        played = []
        for one in play(cases, folder, rate=options.rate):
            played.append(one)
            print(f"{one.case.name}: {one.problem or one.end} ({one.seconds:.0f} s)", flush=True)
    print("\n" + table([one.line for one in played]))
    problems = [one for one in played if one.problem]
    for one in problems:
        print(f"FAILED {one.case.name}: {one.problem}")
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
