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
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from include.errors import EvergreenError
from include.serving.access_log import AccessLog
from include.serving.answer_log import UNLOGGED, AnswerLog, Asked
from include.serving.direct_plan import Plan
from include.serving.http import caller_id_of
from include.serving.predict import Features, Horizon, PredictionAnswer, decide, describe_answer
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.snapshot import Served

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


class Made(msgspec.Struct, gc=False):
    """An answer that is made and not yet on record, and what is said of it then."""

    plan: Plan
    asked: Asked
    line: bytes
    reply: PredictionAnswer
    content: bytes  # the whole answer as it is sent
    defaults: Sequence[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    caller: str


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
        self._observe = metrics.observe_duration
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

        The arguments are those of `make`.
        """
        made = self.make(use_case, headers, body, defaults, client)
        answers = None if made is None else self.settle([made])
        return answers[0] if answers else None

    def make(
        self,
        use_case: str,
        headers: Headers,
        body: bytes,
        defaults: Sequence[tuple[bytes, bytes]],
        client: tuple[str, int] | None = None,
    ) -> Made | None:
        """Make an answer, which `settle` puts on record; None: take the long way.

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
            entity = request.entity
            if request.features is UNSET:
                if entity is None:
                    return None
                _, horizon = self._horizons[use_case].now()
                found = plan.stored(entity, horizon)
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
            if plan.lines is None:
                plan.lines = self._log.source(served, model, "champion")
            line = self._log.line(plan.lines, asked, entity, features, score, decision)
            name = asked.name
            reply = describe_answer(
                name, entity, served, model, "champion", features, score, decision
            )
            # Whole before it is on record, so that nothing can fail behind its line.
            written = self._written(name, reply, defaults)
            return Made(plan, asked, line, reply, written, defaults, client, caller)
        except (msgspec.MsgspecError, EvergreenError, ValueError, RecursionError):
            return None  # a wrong request, or a sick store: the long way says which
        except Exception:  # noqa: BLE001 - the long way fails alike and logs it, or answers after all
            self._metrics.count_event(use_case, "direct_failed")
            return None

    def settle(self, made: Sequence[Made]) -> list[bytes] | None:
        """Put answers of one plan on record by one write, and return them as they are sent.

        None: they are on no record, and each of them is to take the long way.
        """
        plan = made[0].plan
        use_case = plan.use_case
        try:
            # Before the answers, as on the long way.
            is_logged = self._log.put(plan.served, *[one.line for one in made])
        except EvergreenError:
            return None  # a full disk: the long way says so, of each by itself
        except Exception:  # noqa: BLE001 - as in `make`
            self._metrics.count_event(use_case, "direct_failed")
            return None
        if not is_logged:
            for one in made:
                one.reply.flags.append(UNLOGGED)
                one.content = self._written(one.asked.name, one.reply, one.defaults)
        now, observe, access_log = time.perf_counter(), self._observe, self._access_log
        self._metrics.count_answer(use_case, "predict", 200, len(made))
        for one in made:
            asked = one.asked
            taken = now - asked.clock
            observe(use_case, taken)
            # Asked first: what a line is made of is not made for the many that get none.
            if access_log is not None and access_log.takes(asked.name, "predict", 200):
                path = f"/v1/{use_case}/predict"
                scope = {
                    "method": "POST",
                    "path": path,
                    "client": one.client,
                    "caller": one.caller,
                }
                access_log.note(scope, asked.name, use_case, "predict", 200, taken)
        return [one.content for one in made]

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
