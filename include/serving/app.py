"""The node's ASGI application: it answers predictions, and hands everything else to the routes.

Only what its table holds is served; the reconciler replaces that. Everything here runs on the event
loop.
"""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path

import msgspec
from starlette.types import Message, Receive, Scope, Send

from include.errors import EvergreenError, Unavailable
from include.serving import predict
from include.serving.access import Access
from include.serving.access_log import AccessLog
from include.serving.answer_log import UNLOGGED, AnswerLog, Asked, NameOf
from include.serving.answering import Answering, explanation
from include.serving.batch import BatchAnswer, answer_batch, parse_batch
from include.serving.direct import Direct
from include.serving.evidence import Evidence
from include.serving.http import (
    EXPLAIN,
    GIVEN_UP,
    Disconnected,
    Refusal,
    answer,
    as_refusal,
    caller_id_of,
    closing,
    header,
    read_json_body,
    refuse,
    wrong_method,
)
from include.serving.http_routes import Endpoints, Reload, Rollback
from include.serving.prediction_request import read_request
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.shadow import Shadow
from include.serving.snapshot import Served
from include.serving.turn import Turn

log = logging.getLogger(__name__)

MAX_FAULTS = 100  # kinds of unexpected errors whose trace is logged
_encode = msgspec.json.Encoder().encode


class App:
    """Answers HTTP requests from a table of `Served` snapshots.

    Predict is answered here, over bare ASGI: Starlette's router costs 10 us a request, as much as
    the model. Everything else goes to `http_routes`.
    """

    def __init__(
        self,
        *,
        access: Access,
        home: Path,
        hasher: NameOf,
        rollback: Rollback,
        reload: Reload,
        ships: bool = False,
        hosts: frozenset[str] | None = None,
        seconds: float = 2.0,
        access_log: AccessLog | None = None,
    ) -> None:
        """Build it.

        `access` tells who may ask for what, `home` is the folder of the prediction logs, `hasher`
        returns the function that names entities in them, `ships` says that their segments go to
        another place, `hosts` are the names that the header Host may say (None: any), `seconds` is
        how long a request waits at most for a model in another process, and a batch for all of its
        rows, `access_log` gets a sample of the requests.
        """
        self.table = ServingTable()
        self.metrics, self.access_log = Metrics(), access_log
        endpoints = Endpoints(
            self.table,
            self.metrics,
            access=access,
            rollback=rollback,
            reload=reload,
            batch=self._batch,
        )
        self._router = endpoints.router()
        self.routes = self._router.routes
        self._hosts, self._access, self._seconds = hosts, access, seconds
        access.count = lambda event: self.metrics.count_event("", event)
        self.hasher = hasher
        self.log = AnswerLog(home, self.table, self.metrics, hasher=hasher, ships=ships)
        self.evidence = Evidence(
            hasher, lambda count: self.metrics.count_event("", "evidence_lost", count)
        )
        self._horizons: dict[str, predict.Horizon] = {}
        self._answering = Answering(self.metrics, self.evidence, self._horizons, seconds=seconds)
        self.shadow = Shadow(self.evidence, self.log, self.metrics, self.table, self._horizons)
        self.id_prefix, self._count = secrets.token_hex(6), 0
        self._faults: set[str] = set()
        self.direct = Direct(
            self.table,
            self.metrics,
            log=self.log,
            evidence=self.evidence,
            shadow=self.shadow,
            access_log=access_log,
            own_id=self._own_id,
            serves_host=self._serves_host,
            caller_of=lambda given: access.name_of(given, "predict"),
        )
        self.turn = Turn(self.direct, self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise Unavailable(f"{scope['type']} is not served here")
        if self.table.draining:
            send = closing(send)
        ids = own_id, caller_id = self._own_id(), caller_id_of(header(scope, b"x-request-id"))
        request_id = caller_id or own_id
        use_case = route = ""  # what the answer is counted under
        began = time.perf_counter() if self.access_log is not None else 0.0
        try:
            self._check_host(scope)
            parts = scope["path"].split("/")  # "", "v1", the use case, "predict"
            if len(parts) == 4 and parts[3] == "predict" and parts[1] == "v1":
                scope["caller"] = self._access.require(scope, "predict")
                self.table.find(parts[2])
                use_case, route = parts[2], "predict"
                status = await self._predict(use_case, scope, receive, send, ids)
            else:
                scope["ids"] = ids
                status = await self._other(scope, receive, send, request_id)
        except Disconnected:
            status = 499
        except EvergreenError as error:
            refusal = as_refusal(error)
            status = refusal.status
            await refuse(refusal, receive, send, request_id)
        except Exception as error:  # noqa: BLE001 - counted and answered, or no number shows it
            status = await self._answer_fault(error, receive, send, request_id)
        if not route:
            use_case, route = self._labels(scope)
        status = scope.get(GIVEN_UP, status)
        self.metrics.count_answer(use_case, route, status)
        if self.access_log is not None:
            taken = time.perf_counter() - began
            self.access_log.note(scope, request_id, use_case, route, status, taken)

    def install(self, served: Served) -> None:
        """Serve a snapshot from the next request on."""
        self.turn.settle()  # what was made by the snapshot of before
        name = served.use_case.name
        present = self.table.served.get(name)
        if present is None or present.use_case != served.use_case:
            self._horizons[name] = predict.Horizon(served.use_case)
        self.table.served[name] = served
        self.table.changed.set()
        self.direct.install(served, self._horizons[name])
        models = {"champion": served.champion, "previous": served.previous}
        models |= {"challenger": served.challenger} if served.release else {}
        versions = {role: model.version for role, model in models.items() if model}
        self.metrics.show_served(name, served.epoch, served.generation, versions)
        if (release := served.release) is not None:
            self.metrics.show_release(name, release.share, withheld=bool(release.why))

    def forget(self, use_case: str) -> None:
        """Serve a use case no more."""
        self.turn.settle()  # or its log would be opened again
        self.table.served.pop(use_case, None)
        self.direct.forget(use_case)
        self.metrics.hide_served(use_case)
        self.metrics.hide_guard(use_case)
        self.log.forget(use_case)

    async def _other(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Answer what is not predict and return the status; each answer names its request."""
        status = 0
        scope["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [
                    (b"x-request-id", request_id.encode("ascii")),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._router(scope, receive, send_with_id)
        return status

    def _labels(self, scope: Scope) -> tuple[str, str]:
        """Return the use case and route that a request's answer is counted under.

        Only names that are served count: whoever tries out paths would otherwise make series
        without end.
        """
        route = scope.get("route")
        use_case = scope.get("path_params", {}).get("use_case", "")
        if route is None or (use_case and use_case not in self.table.served):
            return "", ""
        return use_case, route.name

    async def _answer_fault(
        self, error: Exception, receive: Receive, send: Send, request_id: str
    ) -> int:
        """Answer what nobody expected."""
        refusal = self._fault(error, request_id)
        try:
            await refuse(refusal, receive, send, request_id)
        except Exception as late:  # noqa: BLE001 - an answer had begun, or the client has left
            log.warning("request %s could not be told so: %s", request_id, late)
        return 500

    def _fault(self, error: Exception, request_id: str) -> Refusal:
        """Return how what nobody expected is answered; counted, its trace logged once a kind."""
        kind = type(error).__name__
        self.metrics.count_event("", "fault")
        if kind not in self._faults and len(self._faults) < MAX_FAULTS:
            self._faults.add(kind)
            log.error("request %s: %s: %s", request_id, kind, error, exc_info=error)
        else:
            log.error("request %s: %s again", request_id, kind)
        return Refusal(500, "fault", f"the node failed ({kind}); its log has {request_id}")

    async def _predict(
        self, use_case: str, scope: Scope, receive: Receive, send: Send, ids: tuple[str, str | None]
    ) -> int:
        """Answer a prediction and return the status, which is 200: all else is raised."""
        if scope["method"] != "POST":
            raise wrong_method(scope, "POST")
        asked = Asked(*ids)
        body = await read_json_body(scope, receive)
        served = self.table.served.get(use_case)
        if served is None:
            raise Refusal(404, "unknown_use_case", f"use case {use_case!r} is not served any more")
        self.log.admit(served)
        request = read_request(body, served)
        try:
            model, arm, features, score = await self._answering.score(request, served)
        except Exception as error:
            self.log.put_failures(served, self.log.failure_line(served, error, asked, request))
            self._answering.note_failure(served, asked, request, error)
            raise
        decision = predict.decide(served.use_case, score)
        reply = predict.describe_answer(
            asked.name, request.entity, served, model, arm, features, score, decision
        )
        # Before the answer: what was answered is on record, whatever happens to the process next.
        line = self.log.answer_line(served, model, arm, asked, request, features, score, decision)
        if not self.log.put(served, line):
            reply.flags.append(UNLOGGED)
        self._answering.note_answer(served, asked, request, arm, features, score)
        told = explanation(served, request.assigned, arm) if header(scope, EXPLAIN) == b"1" else ()
        await answer(send, 200, _encode(reply), asked.name.encode("ascii"), more=told)
        self.metrics.observe_duration(use_case, time.perf_counter() - asked.clock)
        self.shadow.mirror_answer(served, asked, request, arm, features, score)
        return 200

    async def _batch(self, use_case: str, body: bytes, ids: tuple[str, str | None]) -> BatchAnswer:
        """Answer the rows of a batch; what was answered of them is on record then."""
        rows = parse_batch(body)
        served = self.table.find(use_case)
        self.log.admit(served)
        reply, answered = await answer_batch(
            rows,
            served,
            ids,
            answering=self._answering,
            log=self.log,
            shadow=self.shadow,
            seconds=self._seconds,
            fault=lambda error: self._fault(error, ids[1] or ids[0]),
        )
        self.metrics.count_rows(use_case, answered, len(rows) - answered)
        return reply

    def _own_id(self) -> str:
        """Return the node's next id of a request (cheaper than a UUID)."""
        self._count += 1
        return f"{self.id_prefix}-{self._count:x}"

    def _check_host(self, scope: Scope) -> None:
        """Refuse a Host that is not this node's.

        A page on the web could otherwise let its own name point to this machine, and read what the
        node answers.
        """
        given = header(scope, b"host")
        if not self._serves_host(given):
            shown = (given or b"").decode("latin-1").lower()[:80]
            raise Refusal(421, "wrong_host", f"host {shown!r} is not served here", linger=True)

    def _serves_host(self, given: bytes | None) -> bool:
        """Tell whether a value of the header Host names this node."""
        if self._hosts is None:
            return True
        host = (given or b"").decode("latin-1").lower()
        # Without the port; an IPv6 address stands in brackets, since it has colons of its own.
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        return name in self._hosts
