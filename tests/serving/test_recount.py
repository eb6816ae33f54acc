"""What a killed start has answered is counted from its log as it would have counted it itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from include.predictions.line import DEGRADED
from include.predictions.line_writer import LineWriter, Source
from include.predictions.log import PredictionLog, folder
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    NEITHER,
    NOBODY,
    PAIRED,
    REQUESTS,
    SHADOW,
    Counts,
    add,
)
from include.records.records import Window
from include.serving.answer_log import Asked
from include.serving.evidence import Evidence, WindowKey
from include.serving.recount import recounted
from include.serving.snapshot import Served, ServedRelease
from include.serving.tally import INVALID_SCORE
from include.serving.window_file import KeptBoot, KeptWindow, Position, SlowLimit, WindowFile
from tests.builders.application import Client
from tests.builders.serving import NAME

RELEASE = ServedRelease("a" * 12, 1, "canary", 2500, bytes(range(16)), slow_us=900)
MINUTE = 29_000_000
THRESHOLD = 0.5


class Killed:
    """A start that noted and logged requests, and was killed before it had told anybody."""

    def __init__(self, home: Path, served: Served) -> None:
        self.home, self.served, self.evidence = home, served, Evidence(lambda: str)
        self.log = PredictionLog(home, NAME)
        self.writer = LineWriter(self.log)
        self.draw = random.Random(4)
        self.file = WindowFile(home / "serving" / "windows-1.json", home)

    def boot(self, **changes: object) -> KeptBoot:
        limits = {RELEASE.id: SlowLimit(RELEASE.key, RELEASE.slow_us)}
        return KeptBoot("boot1", "req-", **{"releases": limits, **changes})  # type: ignore[arg-type]

    def request(
        self, number: int, assigned: str, arm: str | None, reason: str = "", flag: str = ""
    ) -> None:
        """Note and log a request as the node does."""
        asked = Asked(f"req-{number:x}", None, batch=number % 7 == 0)
        asked.at = MINUTE * 60_000_000 + number * 100_000  # 600 a minute
        entity = None if number % 5 == 0 else number % 40
        is_answered = arm not in (None, "both fail")
        score = round(self.draw.random(), 6) if is_answered else None
        micros = self.draw.randrange(1000) if is_answered else None
        self.evidence.note(
            self.served,
            asked,
            assigned=assigned,
            answering={None: NOBODY, "both fail": NEITHER}.get(arm, arm),
            entity=entity,
            score=None if flag else score,
            model_us=micros,
            above=not flag and score is not None and score >= THRESHOLD,
            error=reason or None,
        )
        outcome = "answered" if is_answered else "failed"
        logged = "fallback" if arm == "both fail" else arm
        self.put(asked, entity, assigned, logged, score, micros, outcome, reason, flag)
        if arm == assigned and not reason and not flag:
            assert score is not None
            self.mirror(asked, entity, score, assigned)

    def mirror(self, asked: Asked, entity: int | None, answered: float, arm: str) -> None:
        error = INVALID_SCORE if self.draw.random() < 0.1 else ""
        behind = CHALLENGER if arm == CHAMPION else CHAMPION
        score = None if error else round(self.draw.random(), 6)
        self.evidence.shadow(
            self.served,
            asked,
            entity,
            score=score,
            model_us=70,
            above=score is not None and score >= THRESHOLD,
            error=error or None,
            answered=(answered, answered >= THRESHOLD),
            by=behind,
        )
        self.put(asked, entity, arm, behind, score, 70, "shadow", error)

    def put(
        self,
        asked: Asked,
        entity: int | None,
        assigned: str,
        arm: str | None,
        score: float | None,
        micros: int | None,
        outcome: str,
        reason: str,
        flag: str = "",
    ) -> None:
        template = self.writer.template(
            Source(
                version=1,
                digest="d",
                feature_set="f",
                arm=arm,
                assigned=assigned,
                generation=3,
                threshold=THRESHOLD,
                release=RELEASE.id,
                step=RELEASE.step,
                batch=asked.batch,
            )
        )
        line = self.writer.line(
            template,
            request_id=asked.own_id,
            caller_id=None,
            at=asked.at,
            entity=entity,
            features=b'{"income":1}',
            latency_us=9,
            score=score,
            decision=None,
            model_us=micros,
            outcome=outcome.encode(),
            reason=reason.encode(),
            flags=[flag, "fallback"] if flag else (),
        )
        self.writer.write(line)

    def requests(self, numbers: range) -> None:
        kinds = [
            (CHAMPION, CHAMPION, ""),
            (CHAMPION, CHAMPION, ""),
            (CHALLENGER, CHALLENGER, ""),
            (CHALLENGER, CHAMPION, "model_late"),
            (CHALLENGER, CHAMPION, "store_away"),
            (CHAMPION, None, "model_failed"),
            (CHAMPION, "both fail", "invalid_score"),
            (CHAMPION, "fallback", "no_features"),
            (CHALLENGER, CHALLENGER, "", DEGRADED),
        ]
        for number in numbers:
            self.request(number, *kinds[number % len(kinds)])

    def counted(self) -> dict[WindowKey, Counts]:
        self.evidence.fold()
        return {key: window.tally.counts() for key, window in self.evidence.windows.items()}


@pytest.fixture
def killed(tmp_path: Path, client: Client) -> Killed:
    return Killed(tmp_path, Served(client.use_case, release=RELEASE))


def rows_of(windows: list[Window]) -> dict[WindowKey, Counts]:
    return {
        WindowKey(w.use_case, w.release_id, w.step, w.arm, w.answering, w.minute): Counts.read(
            w.counts
        )
        for w in windows
    }


def test_lines_are_counted_as_the_requests_were(killed: Killed) -> None:
    killed.requests(range(1500))
    expected = killed.counted()
    boot = killed.boot(positions={NAME: Position("0", 0)})
    killed.file.hold([boot])
    windows = recounted(killed.file, boot, "node1")
    closing = WindowKey(NAME, RELEASE.id, 1, CHAMPION, CHAMPION, MINUTE + 2)
    expected[closing] = add(expected[closing], Counts(unclean=1))
    assert rows_of(windows) == expected
    assert {window.minute for window in windows} == {MINUTE, MINUTE + 1, MINUTE + 2}
    for behind in (CHALLENGER, CHAMPION):
        pairs = expected[closing._replace(arm=SHADOW, answering=behind)].pairs
        assert sum(row[PAIRED] for row in pairs) > 10
    assert [window for window in windows if window.closed] == [
        window
        for window in windows
        if window.arm == window.answering == CHAMPION and window.minute == MINUTE + 2
    ]
    assert {(window.node, window.boot) for window in windows} == {("node1", "boot1")}


def test_what_was_counted_before_it_was_killed_is_added_to(killed: Killed) -> None:
    killed.requests(range(900))
    before = killed.counted()
    position = Position(*killed.log.position)
    kept = [KeptWindow(*key, counts) for key, counts in before.items()]
    killed.requests(range(900, 1000))
    expected = killed.counted()
    boot = killed.boot(positions={NAME: position}, windows=kept)
    killed.file.hold([boot])
    found = rows_of(recounted(killed.file, boot, "node1"))
    assert sum(one.unclean for one in found.values()) == 1
    for counts in found.values():
        counts.unclean = 0
    assert found == expected


def test_lines_of_other_starts_and_releases_are_not_counted(killed: Killed) -> None:
    killed.requests(range(10))
    killed.put(asked("other-1"), 1, CHAMPION, CHAMPION, 0.5, 9, "answered", "")
    killed.log.append(b"no line\n")
    boot = killed.boot(positions={NAME: Position("0", 0)})
    killed.file.hold([boot])
    found = rows_of(recounted(killed.file, boot, "node1"))
    whole = sum(counts.column(REQUESTS) for key, counts in found.items() if key.arm != SHADOW)
    assert whole == 10
    boot = KeptBoot(boot.boot, boot.prefix, positions=boot.positions)
    assert recounted(killed.file, boot, "node1") == []


def asked(own_id: str) -> Asked:
    request = Asked(own_id, None)
    request.at = MINUTE * 60_000_000
    return request


def test_segments_that_are_taken_away_meanwhile_are_counted(killed: Killed) -> None:
    killed.requests(range(100))
    expected = killed.counted()
    boot = killed.boot(positions={NAME: Position(killed.log.position[0], 0)})
    killed.log.close()
    killed.file.hold([boot])
    for path in folder(killed.home, NAME).iterdir():
        path.unlink()  # imported
    windows = recounted(killed.file, boot, "node1")
    assert rows_of(windows).keys() == expected.keys()
    assert sum(window.closed for window in windows) == 1
    killed.file.let_go(boot)
    assert not killed.file.links.exists()


def test_a_start_whose_segment_was_gone_already_stays_unknown(killed: Killed) -> None:
    killed.requests(range(600))
    kept = [KeptWindow(*key, counts) for key, counts in killed.counted().items()]
    position = Position(*killed.log.position)
    killed.log.close()
    for path in folder(killed.home, NAME).iterdir():
        path.unlink()
    boot = killed.boot(positions={NAME: position}, windows=kept)
    killed.file.hold([boot])
    windows = recounted(killed.file, boot, "node1")
    assert not any(window.closed for window in windows)
    assert sum(counts.unclean for counts in rows_of(windows).values()) == 1
    # Of a start that had no segment open none can be missing.
    boot = killed.boot(positions={NAME: Position("1" * 20, 0)}, windows=kept)
    assert any(window.closed for window in recounted(killed.file, boot, "node1"))


def test_a_start_that_ended_in_order_is_closed_as_it_was_kept(killed: Killed) -> None:
    killed.requests(range(10))
    expected = killed.counted()
    kept = [KeptWindow(*key, counts) for key, counts in expected.items()]
    boot = killed.boot(positions={NAME: Position("0", 0)}, windows=kept, has_ended=True)
    killed.file.hold([boot])
    windows = recounted(killed.file, boot, "node1")
    assert rows_of(windows) == expected
    assert [window.closed for window in windows].count(True) == 1
