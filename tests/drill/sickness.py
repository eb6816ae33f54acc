"""Cases in which a model sickens: the challenger in each way, or the champion."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

from tests.builders.serving import NAME, until
from tests.builders.sick import Illness
from tests.drill.clinic import FIRST, FULL, LONG_LAST, OTHER_PINS
from tests.drill.stack import Stack


def sicken(
    illness: Illness, *, step: int = FULL, share: float = 1.0, seconds: float = 0.2
) -> Callable[[Stack], str]:
    """Return a case in which the challenger sickens in a step."""

    def play(stack: Stack) -> str:
        stack.change_plan(steps=LONG_LAST)
        version = stack.release()
        stack.until_step(step)
        stack.harm()
        stack.desk.patients[version].sicken(illness, share=share, seconds=seconds)
        return stack.until_ended()

    return play


def shifted(stack: Stack) -> str:
    stack.release(shift=0.8)
    return stack.until_ended()


def killed(stack: Stack) -> str:
    """Kill the challenger's processes whenever they are there."""
    stack.change_plan(steps=LONG_LAST)
    version = stack.release()
    stack.until_step(FULL)
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for node in range(len(stack.nodes)):
                if (lane := stack.find_lane(node, version)) is not None:
                    lane.kill()
            time.sleep(0.05)

    stack.harm()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        return stack.until_ended()
    finally:
        stop.set()
        killer.join()


def stopped(stack: Stack) -> str:
    stack.change_plan(steps=LONG_LAST)
    version = stack.release()
    stack.until_step(FULL)
    lanes = stack.lanes(version)
    stack.harm()
    for lane in lanes:
        lane.send_signal(signal.SIGSTOP)
    try:
        return stack.until_ended()
    finally:
        for lane in lanes:
            with contextlib.suppress(Exception):
                lane.send_signal(signal.SIGCONT)


def sick_champion(stack: Stack) -> str:
    """The champion stays in a process of its own, since its pins are another installation's."""
    champion = stack.release(pins=OTHER_PINS)
    assert stack.until_ended() in ("promoted", "watched")
    until(lambda: stack.answering == [champion, champion], what=f"model {champion}")
    stack.until_quiet()
    stack.traffic.take()
    stack.release()
    stack.until_step(FIRST)
    stack.desk.patients[champion].sicken("slow", share=0.5, seconds=0.15)
    try:
        return stack.until_ended()
    finally:
        stack.desk.patients[champion].cure()


def watched(stack: Stack) -> str:
    """The new champion sickens while it is watched, in a process of its own."""
    stack.change_plan(watch="60s")
    before = stack.desk.records.routes.get(NAME).champion
    version = stack.release(pins=OTHER_PINS)
    assert stack.until_ended() == "watched"
    until(lambda: stack.answering == [version, version], what=f"model {version}")
    stack.harm()
    stack.desk.patients[version].sicken("errors")

    def is_back() -> bool:
        return stack.desk.records.routes.get(NAME).champion == before

    until(is_back, what=f"model {before} again", seconds=80)
    until(lambda: stack.answering == [before, before], what=f"model {before}")
    release = stack.newest
    assert release is not None
    assert release.rolled_back_by_itself
    return release.state
