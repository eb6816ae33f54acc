"""Ask the other model of a release what one was asked, once the caller has its answer.

Nobody waits for a shadow. What is to be mirrored stands in a short queue; some of it is sent a
hundred times a second, so that a burst of requests meets few of them. A shadow has a deadline of
its own, and no more are sent than the model answers within half of it: what is late is the model's
fault then, not that of too many questions. Beyond that they are dropped and counted.

Who is mirrored is told by the entity, by the release's secret: in a shadow step everybody, in
later ones some of those of either arm, each a few times. What the champion has answered is asked of
the challenger, and the other way round. Where there is no room for all, their share is halved for
the rest of the step: were they dropped by load, quiet times alone would be compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from include.errors import EvergreenError, Unavailable
from include.predictions.line import DEGRADED
from include.predictions.window_counts import CHALLENGER
from include.serving import predict
from include.serving.answer_log import AnswerLog, Asked
from include.serving.answering import MODEL_FAILED, why_failed
from include.serving.child_link import Reply
from include.serving.evidence import Evidence
from include.serving.mirrored import (
    LEAST_SHARE,
    Mirrored,
    Step,
    holds_all,
    mirrored_of,
)
from include.serving.prediction_request import CheckedRequest
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.snapshot import Loaded, RemoteScorer, Served, ServedRelease
from include.serving.tally import INVALID_SCORE, ROW_LACKS_FEATURE, STORE_AWAY

log = logging.getLogger(__name__)

PUMP_SECONDS, A_PUMP = 0.01, 8  # so many are sent at once, so often: 800 a second
LINES_TOGETHER = 32
MAX_WAITING = 512  # of a use case that are not sent yet
TURN_SECONDS = 1.0
MAX_DROPPED = 0.01  # of a second's shadows, before fewer entities are mirrored
_NEWEST = 0.1  # the weight of the newest time in the mean of a model's times
_encode = msgspec.json.Encoder().encode
_decode_row = msgspec.json.Decoder(dict[str, Any]).decode


class Shadow:
    """Mirrors the requests of a node; belongs to the event loop."""

    def __init__(
        self,
        evidence: Evidence,
        answer_log: AnswerLog,
        metrics: Metrics,
        table: ServingTable,
        horizons: Mapping[str, predict.Horizon],
    ) -> None:
        self._evidence, self._log, self._metrics = evidence, answer_log, metrics
        self._table, self._horizons = table, horizons
        self._is_due = False
        self._lines: list[tuple[Served, bytes]] = []
        self._finding: set[asyncio.Task[None]] = set()
        self._steps: dict[str, Step] = {}
        table.shadows = self.describe

    def limit(self, served: Served) -> int:
        """Return below which place of the sample entities are mirrored now."""
        release = served.release
        if release is None or not release.is_active:
            return 0
        return self._step(served.use_case.name, release).share

    def mirror(self, served: Served, requests: Iterable[Mirrored]) -> None:
        """Have requests that one model answered asked of the other, some time."""
        release = served.release
        if release is None or not release.is_active:
            return
        step = self._step(served.use_case.name, release)
        for one in requests:
            if not step.takes(one, release):
                continue
            if len(step.waiting) >= MAX_WAITING:
                self._drop(one, step)
                continue
            step.wait(one)
            if not self._is_due:
                self._is_due = True
                asyncio.get_running_loop().call_later(PUMP_SECONDS, self._pump)

    def mirror_answer(
        self,
        served: Served,
        asked: Asked,
        request: CheckedRequest,
        arm: str,
        features: predict.Features,
        score: float,
    ) -> None:
        """Mirror a request that went the long way, if it was answered by whom it was meant for."""
        if one := mirrored_of(served, asked, request, arm, features, score):
            self.mirror(served, (one,))

    def describe(self, use_case: str) -> Mapping[str, object]:
        """Return what is mirrored of a use case, for the health page."""
        step, served = self._steps.get(use_case), self._table.served.get(use_case)
        release = served.release if served else None
        if step is None or release is None or step.key != (release.id, release.step):
            return {}
        return step.describe()

    async def turn(self) -> None:
        """Wait a second, then put on record what was answered; mirror fewer if too many came."""
        await asyncio.sleep(TURN_SECONDS)
        self.put_lines()
        for name, step in self._steps.items():
            now = step.answered, step.failed, step.dropped
            new = [count - shown for count, shown in zip(now, step.shown, strict=True)]
            step.shown = now
            self._metrics.count_shadows(name, *new)
            if new[2] > MAX_DROPPED * sum(new) and step.share > LEAST_SHARE:
                step.share = max(LEAST_SHARE, step.share // 2)
                log.warning(
                    "%s: %d shadows were dropped in a second; %g %% of the entities are mirrored "
                    "from now on",
                    name,
                    new[2],
                    step.share / 100,
                )

    def _step(self, use_case: str, release: ServedRelease) -> Step:
        step, key = self._steps.get(use_case), (release.id, release.step)
        if step is None or step.key != key:
            step = self._steps[use_case] = Step.of(release)
        return step

    def _drop(self, one: Mirrored, step: Step) -> None:
        step.dropped += 1
        self._evidence.drop(one.served, one.asked.at, by=one.behind)

    def _pump(self) -> None:
        """Send some of what waits, and come again for the rest."""
        self._is_due = is_waiting = False
        for name, step in self._steps.items():
            waiting = step.waiting
            if not self._goes_on(name, step):
                waiting.clear()
            for _ in range(min(A_PUMP, len(waiting), step.room)):
                step.sent += 1
                self._begin(waiting.popleft(), step)
            is_waiting = is_waiting or bool(waiting)
        if is_waiting:
            self._is_due = True
            asyncio.get_running_loop().call_later(PUMP_SECONDS, self._pump)
        if len(self._lines) >= LINES_TOGETHER:
            self.put_lines()

    def _goes_on(self, use_case: str, step: Step) -> bool:
        served = self._table.served.get(use_case)
        release = served.release if served else None
        return release is not None and release.is_active and (release.id, release.step) == step.key

    def _begin(self, one: Mirrored, step: Step) -> None:
        answered, asked = one.served.champion, one.served.challenger
        if step.models[0] is not answered or step.models[1] is not asked:
            step.models, step.is_plain = (answered, asked), {}
        if one.answered == CHALLENGER:
            answered, asked = asked, answered
        # A challenger is never asked in this process, whatever it is.
        if asked is None or (asked.remote is None and one.behind == CHALLENGER):
            self._end(one, step, None, None, MODEL_FAILED)  # its process has ended
            return
        is_plain = step.is_plain.get(one.answered)
        if is_plain is None:
            is_plain = step.is_plain[one.answered] = holds_all(answered, asked)
        if is_plain and asked.remote is not None:
            # A line feed between values is JSON, and would end the question.
            self._post(one, step, asked.remote, one.content.replace(b"\n", b" "))
            return
        find = self._find(one, step, asked, _decode_row(one.content) if is_plain else None)
        task = asyncio.get_running_loop().create_task(find)
        self._finding.add(task)
        task.add_done_callback(self._finding.discard)

    async def _find(
        self, one: Mirrored, step: Step, model: Loaded, row: Mapping[str, Any] | None
    ) -> None:
        """Ask a model by a row, which is found first where it reads other features."""
        remote = model.remote
        try:
            if row is None:
                found = await self._features_of(one, model)
                if DEGRADED in found.flags:
                    # Without its features it scores nearly all alike, which tells nothing of it.
                    self._end(one, step, None, None, STORE_AWAY)
                    return
                row = found.row
            scorer = remote or model.scorer
            features = scorer.features if scorer else []
            if missing := [name for name in features if name not in row]:
                self._end(one, step, None, None, ROW_LACKS_FEATURE, missing[0])
                return
            if remote is None:
                # The champion, in this process: as much as a request of it, one in PUMP_SECONDS.
                began = time.perf_counter()
                score = predict.score_in_process(model, row)
                self._end(one, step, score, int((time.perf_counter() - began) * 1e6))
                return
            content = _encode({name: row[name] for name in features})
        except EvergreenError as error:
            self._end(one, step, None, None, *why_failed(error))
            return
        except Exception:
            step.sent -= 1
            self._drop(one, step)
            raise
        self._post(one, step, remote, content)

    async def _features_of(self, one: Mirrored, model: Loaded) -> predict.Features:
        """Return the features of a model, as a request of its own would have them."""
        served = one.served
        request = CheckedRequest(one.entity, _decode_row(one.sent) if one.sent else None)
        online, ahead = served.online, None
        if online is not None and online.is_remote and predict.needs_online(request, model):
            ahead = await online.read(model.feature_set, [str(one.entity)])
        horizon = self._horizons[served.use_case.name]
        return predict.find_features(request, served, model, horizon, ahead)

    def _post(self, one: Mirrored, step: Step, remote: RemoteScorer, content: bytes) -> None:
        def done(reply: Reply | Unavailable) -> None:
            if not isinstance(reply, Reply):
                self._end(one, step, None, None, *why_failed(reply))
                return
            if (micros := reply.micros) is not None:
                step.micros += (micros - step.micros) * (_NEWEST if step.micros else 1.0)
            if reply.feature is not None:
                self._end(one, step, None, micros, ROW_LACKS_FEATURE, reply.feature)
            elif reply.score is None:
                self._end(one, step, None, micros, MODEL_FAILED)
            elif 0.0 <= reply.score <= 1.0:
                self._end(one, step, reply.score, micros)
            else:
                self._end(one, step, None, micros, INVALID_SCORE)

        if not remote.post(content, done, step.seconds):
            # It takes more than are on their way: it is dead, or answers nothing at present.
            self._end(one, step, None, None, MODEL_FAILED)

    def _end(
        self,
        one: Mirrored,
        step: Step,
        score: float | None,
        micros: int | None,
        error: str = "",
        lacks: str = "",
    ) -> None:
        """Note what came of a shadow, and keep its line for the next write."""
        step.sent -= 1
        served = one.served
        step.answered, step.failed = step.answered + (not error), step.failed + bool(error)
        threshold = served.use_case.decision.threshold
        self._evidence.shadow(
            served,
            one.asked,
            one.entity,
            score=score,
            model_us=micros,
            above=score is not None and score >= threshold,
            error=error or None,
            lacks=lacks or None,
            answered=(one.score, one.score >= threshold),
            by=one.behind,
        )
        model = served.challenger if one.behind == CHALLENGER else served.champion
        writer, template = self._log.source(
            served, model, one.behind, one.answered, batch=one.asked.batch
        )
        line = writer.line(
            template,
            request_id=one.asked.own_id,
            caller_id=one.asked.caller_id,
            at=one.asked.at,
            entity=one.entity,
            features=None,  # they stand in the line of the answer
            latency_us=one.asked.latency_us,
            score=score,
            decision=None if score is None else predict.decide(served.use_case, score),
            model_us=micros,
            outcome=b"shadow",
            reason=error.encode("ascii"),
        )
        self._lines.append((served, line))

    def put_lines(self) -> None:
        """Put on record what was answered: one write a snapshot."""
        lines, self._lines = self._lines, []
        while lines:
            served = lines[0][0]
            together = [line for of, line in lines if of is served]
            lines = [one for one in lines if one[0] is not served]
            if served.use_case.name in self._table.served:  # else its log would be opened again
                self._log.put_failures(served, *together)
