"""The part of a rollback that the records hold: it needs no MLflow, so a serving node can do it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from include.clock import utc_now
from include.errors import ConfigError, Conflict
from include.records.records import AuditEntry, AuditRecord, Records, Route

log = logging.getLogger(__name__)

ACTION = "release.rolled_back"
Of = Literal["champion", "challenger"]
_TRIES = 5  # against other hands that change the row meanwhile, as a release on its way does


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be taken back, by whom and why; `version` or `generation` must name it.

    `actor` is who was recognised (the node's token, a user of this machine), `claim` is who the
    caller says that it is. Two orders with one `request_id` are one. A version that is the
    challenger's is taken back as that, whatever `of` says.
    """

    actor: str
    reason: str
    version: int | None = None
    generation: int | None = None
    claim: str = ""
    request_id: str = ""
    of: Of = "champion"


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What an order came to: the row after it, and whether this very order changed it.

    `generation` is the one that the order made, now or when it was first given.
    """

    route: Route
    changed: bool
    generation: int
    note: str


def take_back(records: Records, use_case: str, order: Order) -> TakenBack:
    """Serve the last good model again, unless what the order names does not serve any more.

    Given twice, the second is a no-op that says so: whoever got no answer may ask again.

    Raises:
        ConfigError: the order has no reason, or names nothing.
        Conflict: there is nothing to go back to, the generation that it names has passed, or the
            challenger that it names is champion by now.
    """
    if not order.reason.strip():
        raise ConfigError(f"{use_case}: a rollback needs its reason; it is kept in the audit log")
    if order.version is None and order.generation is None:
        raise ConfigError(
            f"{use_case}: a rollback names what it takes back, the version or the routing row's "
            f"generation; `evergreen status {use_case}` shows both"
        )
    once = f"rollback/{use_case}/{order.request_id}" if order.request_id else None
    for _ in range(_TRIES):
        before = records.routes.get(use_case)
        # Anew each time: a challenger may have become champion since the last look.
        meant = aimed(order, before.champion, before.challenger)
        if (done := _done_before(records, before, meant, once)) is not None:
            return done
        try:
            route = record_rollback(
                records,
                use_case,
                order.actor,
                order.reason,
                of=meant.of,
                expect_generation=before.generation,
                claim=order.claim,
                once=once,
            )
        except Conflict:
            if records.routes.get(use_case).generation == before.generation:
                raise  # nobody was faster: there is nothing to go back to
            continue
        taken = getattr(before, meant.of)
        return TakenBack(route, True, route.generation, f"model {taken} is taken back")
    raise Conflict(f"{use_case}: the routing row changes all the time; look, then try again")


class Late(msgspec.Struct, frozen=True):
    """A rollback that a node carried out while the records could not be reached.

    It names the digest that was taken back; `at` is when, ISO 8601 in UTC. Nodes keep it as JSON
    until it is in the records: a new field needs a default.
    """

    use_case: str
    digest: str
    version: int
    actor: str
    claim: str
    reason: str
    request_id: str
    at: str
    node: str
    epoch: int = 0  # of the records that the node followed; 0: noted by a version that knew none


def take_back_late(records: Records, late: Late) -> Route:
    """Bring a node's own rollback into the records; return the row after it.

    It is one transaction with the request id as `once`. If the digest is champion or challenger
    now, it is rolled back with its release as if it had been asked for now. If not, whoever serves
    stays, and only the hold on the digest is recorded. Replayed twice, it happens once.
    """
    details = {
        "reason": late.reason,
        "at_node": late.at,
        "node": late.node,
        "digest": late.digest,
        **({"claim": late.claim} if late.claim else {}),
        **({"epoch": late.epoch} if late.epoch else {}),
    }
    once = f"rollback/{late.use_case}/{late.request_id}"
    entry = AuditEntry(
        ACTION, late.use_case, str(late.version), late.actor, details, utc_now(), once
    )
    route = records.routes.get(late.use_case)
    if route.generation == 0:  # reset meanwhile: there is no row any more, and none is made
        records.audit.append(replace(entry, action=f"{ACTION}_late"))
        return route
    route = records.routes.take_back_digest(late.use_case, late.digest, entry=entry)
    log.warning("%s: a late rollback of model %d is on record", late.use_case, late.version)
    return route


def aimed(order: Order, champion: int | None, challenger: int | None) -> Order:
    """Return the order for the role that has what it names: a version may be the challenger's."""
    is_tried = order.version is not None and order.version == challenger != champion
    return replace(order, of="challenger") if is_tried else order


def _done_before(
    records: Records, route: Route, order: Order, once: str | None
) -> TakenBack | None:
    """Return what an order came to that has nothing to do any more.

    Raises:
        Conflict: the generation that it names has passed by another change than a rollback, or the
            challenger that it names is champion by now.
    """
    rollbacks = records.audit.entries(route.use_case, action=ACTION)
    given = next((entry for entry in rollbacks if once and entry.once == once), None)
    if given is not None:
        note = f"request {order.request_id} was carried out before, in generation "
        return TakenBack(route, False, _made(given), f"{note}{_made(given)}")
    if order.of == "challenger" and order.version is not None and order.version == route.champion:
        raise Conflict(
            f"{route.use_case}: model {order.version} is champion by now, so it was not taken back "
            f"as the challenger; `evergreen rollback {route.use_case} --version {order.version} "
            "--reason ...` takes it back"
        )
    serving = getattr(route, order.of)
    if order.version is not None and order.version != serving:
        note = f"model {order.version} is not the {order.of} (it is {serving or 'none'}): "
        return TakenBack(route, False, route.generation, f"{note}nothing was taken back")
    if order.generation is not None and order.generation != route.generation:
        made = order.generation + 1
        if any(_made(entry) == made for entry in rollbacks):
            note = f"generation {order.generation} was taken back before, in generation {made}"
            return TakenBack(route, False, made, note)
        raise Conflict(
            f"{route.use_case}: the routing row is at generation {route.generation}, not "
            f"{order.generation}: look, then name what serves now"
        )
    return None


def _made(entry: AuditRecord) -> int:
    return int(entry.details.get("generation", 0))


def record_rollback(
    records: Records,
    use_case: str,
    actor: str,
    reason: str,
    *,
    of: Of = "champion",
    expect_generation: int | None = None,
    claim: str = "",
    once: str | None = None,
) -> Route:
    """Serve the last good model again and put the digest of the present one on hold.

    It wins over releases on their way. `expect_generation` is the routing row's that the caller has
    seen (None: the one of now). An entry whose `once` is on record happens no second time.

    Raises:
        Conflict: there is nothing to go back to, or another hand was faster.
    """
    before = records.routes.get(use_case)
    version = str(getattr(before, of) or "none")
    details = {"reason": reason, "of": of} | ({"claim": claim} if claim else {})
    entry = AuditEntry(ACTION, use_case, version, actor, details, utc_now(), once)
    generation = before.generation if expect_generation is None else expect_generation
    route = records.routes.rollback(use_case, entry=entry, expect_generation=generation, of=of)
    log.warning("%s: %s %s is rolled back by %s: %s", use_case, of, version, actor, reason)
    return route
