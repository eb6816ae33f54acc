"""How much of one kind of message a node's log takes."""

from __future__ import annotations

import logging

import pytest

from include.serving import quiet


class Kept(logging.Handler):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's message."""
        self.told.append(record.getMessage())


def test_every_handler_gets_the_same_and_a_record_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers, now = [Kept(), Kept(), Kept()], [100.0]
    monkeypatch.setattr(quiet.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(logging.getLogger(), "handlers", handlers)
    quiet.bound_log()
    quiet.bound_log()  # whoever hangs it twice gets no less
    log = logging.getLogger("of.a.node")
    for number in range(quiet.BURST + 3):
        log.warning("row %d is wrong", number)
    log.warning("another kind")
    wanted = [f"row {number} is wrong" for number in range(quiet.BURST)]
    assert [one.told for one in handlers] == [[*wanted, "another kind"]] * 3
    now[0] += quiet.PAUSE_SECONDS
    log.warning("row %d is wrong", 9)
    log.warning("row %d is wrong", 10)
    wanted = ["another kind", "row 9 is wrong (3 more like this were left out)"]
    assert [one.told[-2:] for one in handlers] == [wanted] * 3
