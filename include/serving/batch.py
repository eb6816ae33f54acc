"""Answer many rows in one request: in order, one result or one error object a row.

Each row is checked, scored and logged as if it had come alone; the lines are on disk by one write
before the answer. A row that is refused refuses no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import msgspec

from include.errors import EvergreenError
from include.features.online_rows import OnlineSet, Value
from include.serving import predict
from include.serving.answer_log import UNLOGGED, AnswerLog, Asked
from include.serving.answering import Answering
from include.serving.http import Refusal, as_refusal
from include.serving.mirrored import BATCH_ROWS, Mirrored, mirrored_of
from include.serving.predict import PredictionAnswer
from include.serving.prediction_request import (
    CheckedRequest,
    read_request,
    wrong_form,
)
from include.serving.remote_scoring import out_of_time
from include.serving.shadow import Shadow
from include.serving.snapshot import Loaded, OnlineRows, Served
from include.serving.tally import BATCH_LATE

MAX_ROWS = 1000
TURN = 32  # rows after which whoever asks for one row has a turn
_Scored = tuple[Loaded, str, predict.Features, float]
Fault = Callable[[Exception], Refusal]


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a batch: bodies of single requests."""

    rows: list[msgspec.Raw]


class RefusedRow(msgspec.Struct):
    """What is answered of a row that is refused, in the form of a refused request."""

    request_id: str
    error: msgspec.Raw


class BatchAnswer(msgspec.Struct):
    """The body of a batch's answer; results stand in the order of the rows."""

    request_id: str
    use_case: str
    results: list[PredictionAnswer | RefusedRow]


_decode = msgspec.json.Decoder(BatchRequest).decode


def parse_batch(body: bytes) -> list[msgspec.Raw]:
    """Return the rows of a batch, each not read yet.

    Raises:
        Refusal: 400 for what is no JSON, 422 for JSON of another form, or for no row or too many.
    """
    try:
        rows = _decode(body).rows
    except msgspec.ValidationError as error:
        raise wrong_form(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_json", f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "bad_json", "the body is nested too deeply") from None
    if not 0 < len(rows) <= MAX_ROWS:
        raise Refusal(
            422,
            "invalid",
            f"a batch has 1 to {MAX_ROWS} rows, this one has {len(rows)}; divide it",
            field="rows",
        )
    return rows


class BatchRows:
    """Online rows of a batch that were read ahead, by feature set; asked without a wait."""

    is_remote: ClassVar[Literal[False]] = False

    def __init__(self, by_set: dict[str, OnlineRows]) -> None:
        self._by_set = by_set

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""
        return self._by_set[feature_set].describe(feature_set)

    def get(self, feature_set: str, entity: str) -> tuple[int, list[Value]] | None:
        """Return the event time and the values of an entity, or None."""
        return self._by_set[feature_set].get(feature_set, entity)


async def answer_batch(
    rows: Sequence[msgspec.Raw],
    served: Served,
    ids: tuple[str, str | None],
    *,
    answering: Answering,
    log: AnswerLog,
    shadow: Shadow,
    seconds: float,
    fault: Fault,
) -> tuple[BatchAnswer, int]:
    """Return the answer, which is on record, and of how many rows a model answered.

    `ids` are the node's id of the request and the caller's; the row at N has `<id>.N`. Rows whose
    turn does not come within `seconds` are refused, each by an error of its own. `fault` tells how
    a row is refused at which the node fails as nobody expected.

    Raises:
        Unavailable: the lines could not be written, so nothing may be answered.
    """
    late = asyncio.get_running_loop().time() + seconds
    checked = []
    for at, row in enumerate(rows):
        await _give_turn(at)
        checked.append(_checked(row, served))
    known = await _read_ahead([one for one in checked if not isinstance(one, Refusal)], served)
    lines, failures, mirrored = list[bytes](), list[bytes | None](), list[Mirrored]()
    results: list[PredictionAnswer | RefusedRow] = []
    counted = list[tuple[Asked, CheckedRequest, _Scored | EvergreenError]]()
    async for asked, request, found in _score_rows(checked, known, ids, answering, late, fault):
        if isinstance(found, EvergreenError):
            results.append(RefusedRow(asked.name, as_refusal(found).error()))
            if not isinstance(request, Refusal):
                failures.append(log.failure_line(served, found, asked, request))
                counted.append((asked, request, found))
            continue
        assert isinstance(request, CheckedRequest)  # what was refused has no score
        model, arm, features, probability = found
        decision = predict.decide(served.use_case, probability)
        lines.append(
            log.answer_line(served, model, arm, asked, request, features, probability, decision)
        )
        counted.append((asked, request, found))
        if len(mirrored) < BATCH_ROWS and (
            one := mirrored_of(served, asked, request, arm, features, probability)
        ):
            mirrored.append(one)
        results.append(
            predict.describe_answer(
                asked.name, request.entity, served, model, arm, features, probability, decision
            )
        )
    if not log.put(served, *lines):
        for result in results:
            if isinstance(result, PredictionAnswer):
                result.flags.append(UNLOGGED)
    log.put_failures(served, *failures)
    _count(counted, served, answering)
    shadow.mirror(served, mirrored)
    return BatchAnswer(ids[1] or ids[0], served.use_case.name, results), len(lines)


def _count(
    rows: Sequence[tuple[Asked, CheckedRequest, _Scored | EvergreenError]],
    served: Served,
    answering: Answering,
) -> None:
    """Note rows whose lines are on disk, with no turn of the loop in between.

    Noted before, a row would be evidence of an answer that nobody got where the disk is full, and
    after a kill be counted twice: by its window, and by its line behind the byte of that window.
    """
    for asked, request, found in rows:
        if isinstance(found, EvergreenError):
            answering.note_failure(served, asked, request, found)
        else:
            _, arm, features, probability = found
            answering.note_answer(served, asked, request, arm, features, probability)


async def _score_rows(
    checked: Sequence[CheckedRequest | Refusal],
    served: Served,
    ids: tuple[str, str | None],
    answering: Answering,
    late: float,
    fault: Fault,
) -> AsyncIterator[tuple[Asked, CheckedRequest | Refusal, _Scored | EvergreenError]]:
    """Yield what came of each row, in order; `late` is in the loop's seconds."""
    own_id, caller_id = ids
    # While a release has a share, a model in another process is asked for some rows: one after the
    # other their ways there would use up the time of the whole batch.
    is_shared = served.release is not None and served.release.share > 0
    for start in range(0, len(checked), TURN):
        part = checked[start : start + TURN]
        names = [
            Asked(f"{own_id}.{at}", f"{caller_id}.{at}" if caller_id else None, batch=True)
            for at in range(start, start + len(part))
        ]
        if is_shared:
            found = await asyncio.gather(
                *[_score_row(one, served, answering, late, fault) for one in part]
            )
        else:
            found = [await _score_row(one, served, answering, late, fault) for one in part]
        for row in zip(names, part, found, strict=True):
            yield row
        await asyncio.sleep(0)  # as `_give_turn`


async def _score_row(
    request: CheckedRequest | Refusal,
    served: Served,
    answering: Answering,
    late: float,
    fault: Fault,
) -> _Scored | EvergreenError:
    """Return who answers a row and by what, or why nobody does."""
    if isinstance(request, Refusal):
        return request
    request.until, request.batch = late, True
    try:
        if asyncio.get_running_loop().time() >= late:
            request.failed = BATCH_LATE
            raise out_of_time()
        return await answering.score(request, served)
    except EvergreenError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the other rows have their answers
        return fault(error)


async def _give_turn(at: int) -> None:
    """Let others run, now and then: a batch is work for tens of milliseconds."""
    if at % TURN == TURN - 1:
        await asyncio.sleep(0)


def _checked(row: msgspec.Raw, served: Served) -> CheckedRequest | Refusal:
    try:
        return read_request(row, served)
    except Refusal as refusal:
        return refusal


async def _read_ahead(requests: Sequence[CheckedRequest], served: Served) -> Served:
    """Return the snapshot with the online rows of all entities, where another process has them.

    One question a feature set, instead of one a row.
    """
    online = served.online
    if online is None or not online.is_remote:
        return served
    by_set: dict[str, Any] = {}
    release = served.release
    challenger = served.challenger if release is not None and release.share else None
    for model in (served.champion, served.fallback, challenger):
        if model is None or model.feature_set in by_set:
            continue
        entities = [str(one.entity) for one in requests if predict.needs_online(one, model)]
        if entities:
            by_set[model.feature_set] = await online.read(
                model.feature_set, list(dict.fromkeys(entities))
            )
    return replace(served, online=BatchRows(by_set))
