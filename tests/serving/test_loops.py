"""The node's loops go on whatever happens in a turn, and its log stays bounded."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path

import pytest

from include.serving import loops, quiet
from include.serving.quiet import Quiet


@pytest.mark.anyio
async def test_a_loop_outlives_any_exception_counts_it_and_logs_each_kind_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loops, "LONGEST_PAUSE", 0.001)
    faults = [OSError(24, "Too many open files"), KeyError("x"), OSError(5, "EIO")]
    failed, done = list[str](), asyncio.Event()

    async def turn() -> None:
        if faults:
            raise faults.pop(0)
        done.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(loops.keep_going("rows", turn, failed.append))
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    assert failed == ["rows"] * 3
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len([one for one in errors if one.name == loops.__name__]) == 2


def test_pauses_grow_up_to_a_bound() -> None:
    pauses = [loops.pause_after(count, longest=30.0) for count in (1, 2, 3, 10, 10_000)]
    assert pauses == [0.2, 0.4, 0.8, 30.0, 30.0]


def endless(tree: ast.AST) -> list[int]:
    """Return the lines of the loops without an end of their own."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and bool(node.test.value)
    ]


def test_every_endless_loop_of_the_node_is_the_one_that_keeps_going() -> None:
    folder = Path(loops.__file__).parent
    found = {path.name: endless(ast.parse(path.read_text())) for path in folder.glob("*.py")}
    assert [name for name, lines in sorted(found.items()) if lines] == ["loops.py"]


def test_of_a_kind_of_line_few_are_written_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(quiet.time, "monotonic", lambda: clock[0])
    bound = Quiet()

    def write(text: str, count: int) -> list[str]:
        records = [
            logging.LogRecord("node", logging.WARNING, "", 0, text, (number,), None)
            for number in range(count)
        ]
        return [record.getMessage() for record in records if bound.filter(record)]

    clock[0] = 100.0
    assert len(write("%d was refused", 1000)) == quiet.BURST
    assert len(write("%d swapped", 2)) == 2, "another kind has its own bound"
    clock[0] += quiet.PAUSE_SECONDS
    assert write("%d was refused", 50) == ["0 was refused (995 more like this were left out)"]
