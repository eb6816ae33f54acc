"""The short way of a prediction: answered within the read that brought it, by one call.

Taken are the requests that nearly all clients send: a whole row, or an entity whose features are
online and fresh, for a champion in this process. Everything else, and whatever fails here, goes the
long way through `App`, which answers and explains it; so nothing is counted or said here before it
is certain that this way ends in an answer. Both ways give the same answer and the same line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec
from msgspec import UNSET

from include.errors import EvergreenError
from include.features.online_store import OnlineSet, Value
from include.serving.access_log import AccessLog
from include.serving.answer_log import UNLOGGED, AnswerLog, Asked
from include.serving.http import caller_id_of
from include.serving.predict import (
    CheckedRequest,
    Features,
    Horizon,
    PredictionAnswer,
    decide,
    describe_answer,
)
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.snapshot import Loaded, Online, Served
from include.serving.typed_rows import RowReader, request_decoder, row_reader, row_writer

MAX_PLAIN_BODY = 64 * 1024  # bytes
_MAX_HOSTS, _MAX_HEADS, _MAX_HEAD = 64, 512, 2048  # the last in bytes
_MEDIA = frozenset((b"application/json", b"application/json; charset=utf-8"))
# Headers by which a request asks for more than one answer to one body.
_LONG_WAY = frozenset((b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"))
_encode = msgspec.json.Encoder().encode
Headers = Mapping[bytes, bytes]


class Head(NamedTuple):
    """What the bytes of a plain request's headers mean; `length` is that of its body."""

    use_case: str
    headers: Headers
    length: int


@runtime_checkable
class ValueScorer(Protocol):
    """A model that can be asked by values alone, in the order of its features."""

    features: list[str]

    def of_values(self, values: Sequence[object]) -> float:
        """Return the probability of a row."""


class _Layout:
    """Where the features of a model stand in the rows of an online set."""

    def __init__(self, online_set: OnlineSet, features: Sequence[str]) -> None:
        """Build it; a feature that is not among the columns is a `ValueError`."""
        columns = online_set.columns
        places = [columns.index(name) for name in features]
        self.online_set, self.count = online_set, len(columns)
        self.width = len(columns) + len(online_set.views)
        self.ttls = [online_set.ttls[view.name] for view in online_set.views]
        self.ttl = online_set.ttls.get("", 0)
        self.write = row_writer(columns)
        is_whole = places == list(range(len(columns)))
        # `itemgetter` of one place gives no tuple.
        self.pick: Callable[[Sequence[Value]], Sequence[Value]] = (
            (lambda values: values)
            if is_whole
            else (lambda values: (values[places[0]],))
            if len(places) == 1
            else itemgetter(*places)
        )


class Plan:
    """How requests of one snapshot are answered: made when it is installed, dropped with it."""

    def __init__(
        self, served: Served, model: Loaded, scorer: ValueScorer, reader: RowReader
    ) -> None:
        self.served, self.model, self.reader = served, model, reader
        self.decode = request_decoder(served.use_case.entity.type).decode
        self.score = scorer.of_values
        self.features = list(scorer.features)
        self._layout: _Layout | None = None

    @classmethod
    def of(cls, served: Served) -> Plan | None:
        """Return the plan of a snapshot, or None where each request needs the long way."""
        model = served.champion
        if model is None or not isinstance(model.scorer, ValueScorer):
            return None
        reader = row_reader(model.scorer.features, served.feature_types)
        if reader is None:
            return None
        return cls(served, model, model.scorer, reader)

    def stored(self, entity: object, horizon: int) -> tuple[Sequence[Value], Features] | None:
        """Return an entity's values and what is said of them; None: they are not all fresh.

        `horizon` is in microseconds since 1970.
        """
        online = self.served.online
        # Only a store that answers at once: the event loop stands still meanwhile.
        if not isinstance(online, Online):
            return None
        online.hold()
        online_set = online.describe(self.model.feature_set)
        row = None if online_set is None else online.get(self.model.feature_set, str(entity))
        if online_set is None or row is None:
            return None
        layout = self._layout
        if layout is None or layout.online_set is not online_set:
            layout = self._layout = _Layout(online_set, self.features)
        event_ts, values = row
        if len(values) != layout.width or not _is_fresh(layout, event_ts, values, horizon):
            return None
        columns = values[: layout.count]
        content = _encode(layout.write(*columns))
        features = Features({}, event_ts, max(0, horizon - event_ts), [], content)
        return layout.pick(columns), features


def _is_fresh(layout: _Layout, event_ts: int, values: Sequence[Value], horizon: int) -> bool:
    """Tell whether no view has expired, and one at least has a row."""
    if not layout.ttls:
        return horizon - event_ts <= layout.ttl
    is_known = False
    for ttl, newest in zip(layout.ttls, values[layout.count :], strict=True):
        if newest is not None:
            if horizon - int(newest) > ttl:
                return False
            is_known = True
    return is_known


class Direct:
    """Answers plain predictions; the plans are those of what the table serves."""

    def __init__(
        self,
        table: ServingTable,
        metrics: Metrics,
        *,
        log: AnswerLog,
        access_log: AccessLog | None,
        own_id: Callable[[], str],
        serves_host: Callable[[bytes | None], bool],
        caller_of: Callable[[bytes | None], str | None],
    ) -> None:
        """Build it; the logs and the functions are those of the long way.

        `serves_host` and `caller_of` are asked for the headers `host` and `authorization`; the
        latter returns the token's name, None where it is not good enough.
        """
        self._table, self._metrics, self._log, self._access_log = table, metrics, log, access_log
        self._own_id, self._serves_host, self._caller_of = own_id, serves_host, caller_of
        self._hosts: set[bytes | None] = set()
        self._plans: dict[str, Plan] = {}
        self._horizons: dict[str, Horizon] = {}
        self._routes: dict[bytes, str] = {}
        self.heads: dict[bytes, Head] = {}  # by their bytes, up to the empty line
        self._defaults: object = None
        self._top = b""

    def install(self, served: Served, horizon: Horizon) -> None:
        """Answer by a snapshot from the next request on."""
        name = served.use_case.name
        plan = Plan.of(served)
        if plan is None:
            self.forget(name)
            return
        self._plans[name], self._horizons[name] = plan, horizon
        self._routes[f"/v1/{name}/predict".encode()] = name

    def forget(self, use_case: str) -> None:
        """Answer nothing of a use case any more."""
        self._plans.pop(use_case, None)
        self._routes.pop(f"/v1/{use_case}/predict".encode(), None)

    def takes(self, url: bytes, headers: Headers) -> str:
        """Return the use case that a POST is for if it is plain; else ''.

        `headers` holds every header of the request once, by its name in small letters.
        """
        use_case = self._routes.get(url)
        if (
            use_case is None
            or headers.get(b"content-type") not in _MEDIA
            or not headers.keys().isdisjoint(_LONG_WAY)
            or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or not 0 < int(headers.get(b"content-length", 0)) <= MAX_PLAIN_BODY
        ):
            return ""
        return use_case

    def keep_head(self, content: bytes, head: Head) -> None:
        """Keep what the parser found in the bytes of headers: a client sends the same ones again.

        Not of those that name their request, which never come twice.
        """
        if b"x-request-id" in head.headers or len(content) > _MAX_HEAD:
            return
        if len(self.heads) >= _MAX_HEADS:
            self.heads.clear()
        self.heads[content] = head

    def answer(
        self,
        use_case: str,
        headers: Headers,
        body: bytes,
        defaults: Sequence[tuple[bytes, bytes]],
        client: tuple[str, int] | None = None,
    ) -> bytes | None:
        """Return the whole answer as bytes, on record already; None: take the long way.

        `defaults` are the headers that every answer has; they are another list when they change.
        `client` is the address that the access log tells.
        """
        plan = self._plans.get(use_case)
        table = self._table
        if (
            plan is None
            or table.draining
            or not table.started
            or self._log.is_full(use_case)
            or not self._admits(headers)
        ):
            return None
        caller = self._caller_of(headers.get(b"authorization"))
        if caller is None:
            return None
        asked = Asked(self._own_id(), caller_id_of(headers.get(b"x-request-id")))
        served, model = plan.served, plan.model
        try:
            request = plan.decode(body)
            if request.features is UNSET:
                if request.entity is None:
                    return None
                _, horizon = self._horizons[use_case].now()
                found = plan.stored(request.entity, horizon)
                if found is None:
                    return None
                values, features = found
            else:
                values, content = plan.reader.read(request.features)
                features = Features({}, None, None, [], content)
            began = time.perf_counter()
            score = plan.score(values)
            features.model_us = int((time.perf_counter() - began) * 1e6)
            if not math.isfinite(score):
                return None
            decision = decide(served.use_case, score)
            line = self._log.answer_line(
                served, model, "champion", asked, request.entity, features, score, decision
            )
            reply = describe_answer(
                asked.name,
                CheckedRequest(request.entity, None),
                served,
                model,
                "champion",
                features,
                score,
                decision,
            )
            answer = self._written(asked.name, reply, defaults)
            # Before the answer, as on the long way; and last, so that nothing can fail behind it.
            is_logged = self._log.put(served, line)
        except (msgspec.MsgspecError, EvergreenError, ValueError, RecursionError):
            return None  # a wrong request, a sick store or a full disk: the long way says which
        except Exception:  # noqa: BLE001 - the long way fails alike and logs it, or answers after all
            self._metrics.count_event(use_case, "direct_failed")
            return None
        if not is_logged:
            reply.flags.append(UNLOGGED)
            answer = self._written(asked.name, reply, defaults)
        taken = time.perf_counter() - asked.clock
        self._metrics.count_answer(use_case, "predict", 200)
        self._metrics.observe_duration(use_case, taken)
        if self._access_log is not None:
            path = f"/v1/{use_case}/predict"
            scope = {"method": "POST", "path": path, "client": client, "caller": caller}
            self._access_log.note(scope, asked.name, use_case, "predict", 200, taken)
        return answer

    def _written(
        self, name: str, reply: PredictionAnswer, defaults: Sequence[tuple[bytes, bytes]]
    ) -> bytes:
        """Return an answer as it is sent: its head, with the request's id `name`, and its body."""
        content = _encode(reply)
        if defaults is not self._defaults:
            self._defaults, self._top = defaults, _top(defaults)
        return b"%b%d\r\nx-request-id: %b\r\n\r\n%b" % (
            self._top,
            len(content),
            name.encode("ascii"),
            content,
        )

    # Whatever `App` asks of a request is asked here as well, of each one: what is kept of headers
    # says what they mean, not whether they are still good enough.

    def _admits(self, headers: Headers) -> bool:
        """Tell whether the host that these headers name is served."""
        host = headers.get(b"host")
        if host in self._hosts:
            return True
        if not self._serves_host(host):
            return False
        if len(self._hosts) < _MAX_HOSTS:  # where any name is served, a client may make them up
            self._hosts.add(host)
        return True


def _top(defaults: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = [
        *defaults,
        (b"content-type", b"application/json"),
        (b"x-content-type-options", b"nosniff"),
    ]
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"HTTP/1.1 200 OK\r\n" + head + b"content-length: "
