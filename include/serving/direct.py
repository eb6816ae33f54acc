"""The short way of a prediction: answered within the read that brought it, by one call.

Taken are the requests that nearly all clients send: a whole row, or an entity whose features are
online and fresh, for a champion in this process. What is meant for a release's challenger is asked
of its process, and answered when its reply comes. Everything else, and whatever fails here, goes
the long way through `App`, which answers and explains it; so nothing is counted or said here before
it is certain that this way ends in an answer. Both ways give the same answer and the same line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from include.errors import EvergreenError, Unavailable
from include.serving.access_log import AccessLog
from include.serving.answer_log import UNLOGGED, AnswerLog, Asked
from include.serving.answering import CHALLENGER_SECONDS, MODEL_FAILED, why_no_score
from include.serving.child_link import Reply
from include.serving.direct_made import WAITING, Late, Made, Notes, Taken, Waiting, top_of
from include.serving.direct_plan import Apart, Plan
from include.serving.evidence import Evidence
from include.serving.http import EXPLAIN, caller_id_of
from include.serving.predict import Features, Horizon, PredictionAnswer, decide, describe_answer
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.shadow import Shadow
from include.serving.snapshot import Loaded, Served, ServedRelease
from include.serving.typed_rows import names_features_once
from include.texts import plain_text

MAX_PLAIN_BODY = 64 * 1024  # bytes
_MAX_HOSTS, _MAX_HEADS, _MAX_HEAD = 64, 512, 2048  # the last in bytes
_MEDIA = frozenset((b"application/json", b"application/json; charset=utf-8"))
# Headers by which a request asks for more than one answer to one body.
_LONG_WAY = frozenset((b"content-encoding", b"transfer-encoding", b"expect", b"upgrade", EXPLAIN))
_encode = msgspec.json.Encoder().encode
Headers = Mapping[bytes, bytes]


class Head(NamedTuple):
    """What the bytes of a plain request's headers mean; `length` is that of its body."""

    use_case: str
    headers: Headers
    length: int


class Direct:
    """Answers plain predictions; the plans are those of what the table serves."""

    def __init__(
        self,
        table: ServingTable,
        metrics: Metrics,
        *,
        log: AnswerLog,
        evidence: Evidence,
        shadow: Shadow,
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
        self._notes = Notes(evidence, shadow, metrics)
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
        answers = self.settle([made]) if isinstance(made, Made) else None
        return answers[0] if answers else None

    def make(
        self,
        use_case: str,
        headers: Headers,
        body: bytes,
        defaults: Sequence[tuple[bytes, bytes]],
        client: tuple[str, int] | None = None,
        late: Late | None = None,
    ) -> Made | Waiting | None:
        """Make an answer, which `settle` puts on record; None: take the long way.

        `defaults` are the headers that every answer has; they are another list when they change.
        `client` is the address that the access log tells. Where another process is to be asked, and
        `late` is given, it is `WAITING`: `late` is called with what comes of it.
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
        try:
            request = plan.decode(body)
            if not names_features_once(request, body):
                return None
            if request.entity is UNSET:
                request.entity = None
            if (
                plan.has_text_key
                and request.entity
                and plain_text(request.entity) != request.entity
            ):
                return None  # the long way reads it as the key that is meant
            taken = Taken(plan, asked, request, defaults, client, caller)
            release = plan.release
            if release is not None and release.share:
                place = release.places.known.get(request.entity)
                if place is None:
                    place = self._place(release, request)
                if place < release.share:
                    taken.assigned = "challenger"
                    return None if late is None else self._by_challenger(taken, late)
            return self._by_champion(taken)
        except (msgspec.MsgspecError, EvergreenError, ValueError, RecursionError):
            return None  # a wrong request, or a sick store: the long way says which
        except Exception:  # noqa: BLE001 - the long way fails alike and logs it, or answers after all
            self._metrics.count_event(use_case, "direct_failed")
            return None

    @staticmethod
    def _place(release: ServedRelease, request: Any) -> int:
        """Return the place of who asks: of an entity that was not seen yet, or of a row."""
        if request.entity is not None:  # with one, nobody needs a copy of the row
            return release.places.place(request.entity)
        row = b"" if request.features is UNSET else bytes(request.features)
        return release.places.place_of_row(row)

    def _by_champion(self, taken: Taken) -> Made | None:
        """Make the champion's answer; it may stand in for the challenger's."""
        plan, request = taken.plan, taken.request
        if request.features is UNSET:
            if request.entity is None:
                return None
            _, horizon = self._horizons[plan.use_case].now()
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
        if not 0.0 <= score <= 1.0:
            return None
        if taken.failed:
            features.reason = taken.failed.encode("ascii")
            features.flags.append("fallback")
        return self._finished(taken, plan.model, "champion", features, score)

    def _by_challenger(self, taken: Taken, late: Late) -> Made | Waiting | None:
        """Ask the challenger's process; if it cannot be asked, the champion answers."""
        plan, request, apart = taken.plan, taken.request, taken.plan.apart
        if apart is None:
            if plan.served.challenger is not None:
                return None
            return self._instead(taken)  # its process has ended
        if request.features is UNSET:
            if request.entity is None:
                return None
            _, horizon = self._horizons[plan.use_case].now()
            found = apart.stored(request.entity, horizon)
            if found is None:
                return None
            features = found[1]
        else:
            features = Features({}, None, None, [], plan.reader.read(request.features)[1])

        def answered(reply: Reply | Unavailable) -> None:
            late(self._made_late(taken, apart, features, reply))

        if apart.post(features.content, answered, CHALLENGER_SECONDS):
            return WAITING
        return self._instead(taken)

    def _instead(self, taken: Taken, failed: str = MODEL_FAILED) -> Made | None:
        """Make the champion's answer to a request that the challenger fails at."""
        taken.failed = failed
        self._metrics.count_event(taken.plan.use_case, "challenger_failed")
        return self._by_champion(taken)

    def _made_late(
        self, taken: Taken, apart: Apart, features: Features, reply: Reply | Unavailable
    ) -> Made | None:
        """Make an answer of what the challenger's process says, or the champion's instead of it."""
        use_case = taken.plan.use_case
        try:
            if use_case not in self._plans:  # it was reset meanwhile
                return None
            failed, taken.lacks = why_no_score(reply)
            if not failed and isinstance(reply, Reply) and reply.score is not None:
                features.model_us = reply.micros
                return self._finished(taken, apart.model, "challenger", features, reply.score)
            return self._instead(taken, failed)
        except (msgspec.MsgspecError, EvergreenError, ValueError, RecursionError):
            return None
        except Exception:  # noqa: BLE001 - as in `make`
            self._metrics.count_event(use_case, "direct_failed")
            return None

    def _finished(
        self, taken: Taken, model: Loaded, arm: str, features: Features, score: float
    ) -> Made:
        """Return an answer whole, so that nothing can fail behind its line."""
        plan, asked, entity = taken.plan, taken.asked, taken.request.entity
        served = plan.served
        decision = decide(served.use_case, score)
        arms = arm, taken.assigned
        lines = plan.lines.get(arms)
        if lines is None:
            lines = plan.lines[arms] = self._log.source(served, model, *arms)
        line = self._log.line(lines, asked, entity, features, score, decision)
        name = asked.name
        reply = describe_answer(name, entity, served, model, arm, features, score, decision)
        written = self._written(name, reply, taken.defaults)
        return Made(plan, asked, taken, arm, score, features, line, reply, written)

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
                one.content = self._written(one.asked.name, one.reply, one.taken.defaults)
        now, observe, access_log = time.perf_counter(), self._observe, self._access_log
        self._metrics.count_answer(use_case, "predict", 200, len(made))
        if plan.release is not None:
            self._notes.note(plan, made)
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
                    "client": one.taken.client,
                    "caller": one.taken.caller,
                }
                access_log.note(scope, asked.name, use_case, "predict", 200, taken)
        return [one.content for one in made]

    def _written(
        self, name: str, reply: PredictionAnswer, defaults: Sequence[tuple[bytes, bytes]]
    ) -> bytes:
        """Return an answer as it is sent: its head, with the request's id `name`, and its body."""
        content = _encode(reply)
        if defaults is not self._defaults:
            self._defaults, self._top = defaults, top_of(defaults)
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
