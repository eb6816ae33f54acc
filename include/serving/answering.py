"""Which model answers a request, and who answers where that one does not.

During a release a request is meant for one of two arms. Whatever the challenger fails at, the
champion answers: a caller never sees more of it than some milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from include.errors import EvergreenError, Unavailable
from include.predictions.line import DEGRADED, FALLBACK
from include.predictions.window_counts import NEITHER, NOBODY
from include.serving import predict
from include.serving.answer_log import Asked
from include.serving.child_link import Late, Reply
from include.serving.evidence import Evidence
from include.serving.http import Refusal, reason_of, without_folders
from include.serving.prediction_request import CheckedRequest
from include.serving.prometheus import Metrics
from include.serving.remote_scoring import score_remotely
from include.serving.snapshot import Loaded, Served
from include.serving.tally import BATCH_LATE, INVALID_SCORE, ROW_LACKS_FEATURE

log = logging.getLogger(__name__)

CHALLENGER_SECONDS = 0.1  # for so long a challenger is waited for, before the champion answers
MODEL_FAILED = "model_failed"
_WITH_ITS_QUEUE = 2 * CHALLENGER_SECONDS


class Answering:
    """Asks models for requests; belongs to the event loop."""

    def __init__(
        self,
        metrics: Metrics,
        evidence: Evidence,
        horizons: Mapping[str, predict.Horizon],
        *,
        seconds: float,
    ) -> None:
        """Build it; `seconds` is how long a request waits at most for models, all together."""
        self._metrics, self._evidence, self._horizons = metrics, evidence, horizons
        self._seconds = seconds

    async def score(
        self, request: CheckedRequest, served: Served
    ) -> tuple[Loaded, str, predict.Features, float]:
        """Return the model that answers, its arm, and the features and score of its answer.

        Raises:
            EvergreenError: none does, or the request is wrong.
        """
        release = served.release
        if release is not None and release.share:
            request.assigned = release.assign(request.entity, request.content)
            if request.assigned == "challenger":
                answered = await self._by_challenger(request, served)
                if answered is not None:
                    return answered
        model, arm, features, score = await self._by_champion(request, served)
        if request.failed and arm == "champion":
            features.reason = request.failed.encode("ascii")
            mark_fallback(features)
        return model, arm, features, score

    async def _by_challenger(
        self, request: CheckedRequest, served: Served
    ) -> tuple[Loaded, str, predict.Features, float] | None:
        """Ask the challenger; None: it did not answer, and `request` says why."""
        challenger, name = served.challenger, served.use_case.name
        # Of a batch, whose rows share one deadline: the champion needs time for what is left. By
        # whom it is late nobody can say of a row that is not asked; of those before it one can.
        left = request.until - asyncio.get_running_loop().time() if request.until else math.inf
        if challenger is not None and left < self._seconds / 2:
            request.failed = BATCH_LATE
            return None
        try:
            if challenger is None:
                raise Unavailable("the challenger's process has ended")
            async with asyncio.timeout(_WITH_ITS_QUEUE):
                features, score = await self._ask(
                    request, served, challenger, within=CHALLENGER_SECONDS
                )
        except Exception as error:  # whatever it fails at, the champion answers
            request.failed, request.lacks = why_failed(error)
            self._metrics.count_event(name, "challenger_failed")
            if isinstance(error, (EvergreenError, TimeoutError)):
                log.debug("%s: the challenger gave no answer: %s", name, error)
            else:
                log.error("%s: the challenger failed as nobody expected", name, exc_info=error)
            return None
        return challenger, "challenger", features, score

    async def _by_champion(
        self, request: CheckedRequest, served: Served
    ) -> tuple[Loaded, str, predict.Features, float]:
        """Ask the champion; if it gives no answer, ask the one before it."""
        champion, behind, name = served.champion, served.fallback, served.use_case.name
        reason, failure = b"not_loaded", None
        if champion is None and behind is None:
            why = f" ({without_folders(served.problems[0])})" if served.problems else ""
            raise Refusal(
                503,
                "no_model",
                f"{name} has no model to answer yet{why}; run `evergreen status {name}`",
                headers=[(b"retry-after", b"10")],
            )
        if champion is not None:
            try:
                features, score = await self._ask(request, served, champion)
                return champion, "champion", features, score
            except (Unavailable, Refusal) as error:
                # That the champion's own features are not online, or that it takes too long, is its
                # failure, not the caller's.
                if isinstance(error, Refusal) and error.code not in ("no_features", "deadline"):
                    raise
                reason = b"no_features" if isinstance(error, Refusal) else b"model_failed"
                failure = error
                if not request.failed and request.assigned == "champion":
                    request.failed, _ = why_failed(error)
                    if request.batch and isinstance(error, Refusal) and error.code == "deadline":
                        request.failed = BATCH_LATE  # a model that has its own time is late before
                self._metrics.count_event(name, "champion_failed")
                if behind is None or champion is behind:
                    raise
                log.warning("%s: %s; model %d answers instead", name, error, behind.version)
        assert behind is not None
        try:
            features, score = await self._ask(request, served, behind)
        except EvergreenError as error:
            # Only of whom would be gone back to, and where the champion was asked too.
            is_asked = champion is not None and behind is served.previous
            request.neither = is_asked and fails_too(error)
            # What the model before lacks, the caller need not send: it is the champion that failed.
            if failure is not None and reason_of(error) is None:
                raise failure from None
            raise
        self._metrics.count_event(name, "fallback")
        features.reason = reason
        mark_fallback(features)
        return behind, FALLBACK, features, score

    async def _ask(
        self,
        request: CheckedRequest,
        served: Served,
        model: Loaded,
        *,
        within: float | None = None,
    ) -> tuple[predict.Features, float]:
        """Return the features and the score of one model, in this process or in its own.

        `within` is the deadline of a challenger.
        """
        horizon = self._horizons[served.use_case.name]
        online, ahead = served.online, None
        # Another process's rows are waited for, and only where they are needed; a file's are not.
        if online is not None and online.is_remote and predict.needs_online(request, model):
            ahead = await online.read(model.feature_set, [str(request.entity)])
        features = predict.find_features(request, served, model, horizon, ahead)
        if model.remote is None:
            began = time.perf_counter()
            score = predict.score_in_process(model, features.row)
            features.model_us = int((time.perf_counter() - began) * 1e6)
            return features, score
        told = await score_remotely(
            model, features.row, request, seconds=self._seconds, within=within
        )
        features.model_us = told.micros
        return features, told.value

    # what a release is judged by

    def note_answer(
        self,
        served: Served,
        asked: Asked,
        request: CheckedRequest,
        arm: str,
        features: predict.Features,
        score: float,
    ) -> None:
        """Note an answer, where a release is under way."""
        if served.release is None:
            return
        self._metrics.count_arm(served.use_case.name, request.assigned, arm)
        # Without their features all get nearly the same score, which tells nothing of the model.
        counted = None if DEGRADED in features.flags else score
        self._evidence.note(
            served,
            asked,
            assigned=request.assigned,
            answering=arm,
            entity=request.entity,
            score=counted,
            model_us=features.model_us,
            above=counted is not None and counted >= served.use_case.decision.threshold,
            error=request.failed or None,
            lacks=request.lacks or None,
        )

    def note_failure(
        self, served: Served, asked: Asked, request: CheckedRequest, error: Exception
    ) -> None:
        """Note a request that no model answered, unless that is its caller's fault."""
        if served.release is None or (reason := reason_of(error)) is None:
            return
        answering = NEITHER if request.neither else NOBODY
        self._metrics.count_arm(served.use_case.name, request.assigned, answering)
        self._evidence.note(
            served,
            asked,
            assigned=request.assigned,
            answering=answering,
            entity=request.entity,
            score=None,
            model_us=None,
            above=False,
            error=request.failed or reason.decode("ascii"),
            lacks=request.lacks or None,
        )


def explanation(served: Served, assigned: str, arm: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell who was to answer, who did, and in which release."""
    told = [(b"x-evergreen-arm", arm.encode()), (b"x-evergreen-assigned", assigned.encode())]
    if (release := served.release) is not None:
        told.append((b"x-evergreen-release", f"{release.id}/{release.step}".encode()))
    return told


def mark_fallback(features: predict.Features) -> None:
    """Flag that another model answers; the flag may be there for unknown or stale features."""
    if "fallback" not in features.flags:
        features.flags.append("fallback")


def fails_too(error: Exception) -> bool:
    """Tell whether the model before the champion fails at a request as a model can.

    That the time is over, which the champion took, says nothing of it; nor does what is wrong with
    the request, or with the store.
    """
    if isinstance(error, Refusal):
        return error.code == "no_features"
    return isinstance(error, Unavailable)


def why_no_score(reply: Reply | Unavailable) -> tuple[str, str]:
    """Return why a reply of a challenger's process is no score ("" if it is), as `why_failed`."""
    if not isinstance(reply, Reply):
        return why_failed(reply)
    if reply.feature is not None:
        return ROW_LACKS_FEATURE, reply.feature
    if reply.score is None:
        return MODEL_FAILED, ""
    return ("" if 0.0 <= reply.score <= 1.0 else INVALID_SCORE), ""


def why_failed(error: Exception) -> tuple[str, str]:
    """Return why a model gave no answer, in a word, and the feature that its row lacked."""
    if isinstance(error, Refusal):
        if error.status == 422:
            return ROW_LACKS_FEATURE, (error.field or "").removeprefix("features.")
        return ("model_late" if error.code == "deadline" else error.code), ""
    if isinstance(error, predict.InvalidScore):
        return INVALID_SCORE, ""
    return ("model_late" if isinstance(error, (Late, TimeoutError)) else MODEL_FAILED), ""
