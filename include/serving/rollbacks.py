"""What a node does when a person takes a model back: the records first, else its own journal."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from include.clock import utc_now
from include.deployment.rollback import Late, Order, TakenBack, aimed, take_back, take_back_late
from include.errors import Conflict, Unavailable
from include.records.records import Records
from include.serving.journal import Journal
from include.serving.reconciler import SWAP_SECONDS, Reconciler
from include.serving.workers import Workers

log = logging.getLogger(__name__)

RECORDS_SECONDS = 0.5  # for so long the records are waited for: a rollback takes a second at most
REPLAY_SECONDS = 1.0  # between two looks at what is to be replayed


class Rollbacks:
    """Takes models back, and brings into the records what was done without them."""

    def __init__(
        self,
        records: Records,
        workers: Workers,
        reconciler: Reconciler,
        journal: Journal,
        node: str,
    ) -> None:
        self._records, self._workers, self._node = records, workers, node
        self._reconciler, self._journal = reconciler, journal

    async def take_back(self, use_case: str, order: Order) -> tuple[bool, Mapping[str, Any]]:
        """Carry out an order; return whether what it leaves is served, and the answer.

        Raises:
            ConfigError: the order has no reason, or names nothing.
            Conflict: there is nothing to go back to, or what it names has passed.
            Unavailable: neither the records nor the journal can be written.
        """
        # One name for both ways: what a slow database does after all is then no second rollback.
        order = order if order.request_id else replace(order, request_id=secrets.token_hex(8))
        # MLflow's aliases follow with the next deployment: MLflow is not imported into the node.
        try:
            async with asyncio.timeout(RECORDS_SECONDS):
                taken = await self._workers.run("admin", take_back, self._records, use_case, order)
        except (TimeoutError, Unavailable, SQLAlchemyError) as error:
            why = str(error) or "no answer in time"
            return True, await self._take_back_here(use_case, order, why)
        return await self._answer(use_case, taken)

    async def _answer(self, use_case: str, taken: TakenBack) -> tuple[bool, Mapping[str, Any]]:
        self._reconciler.take_route(taken.route)
        served = await self._reconciler.served_of(
            use_case, taken.route.generation, seconds=SWAP_SECONDS
        )
        answered = {
            "use_case": use_case,
            "changed": taken.changed,
            "note": taken.note,
            "generation": taken.generation,
            "champion": taken.route.champion,
            "served": served,
        }
        return bool(served["settled"]), answered

    async def _take_back_here(self, use_case: str, order: Order, why: str) -> Mapping[str, Any]:
        """Take what serves back on this node alone; on the disk before it is answered.

        Of a challenger that is the traffic of its release, which goes to the champion.
        """
        bad, good, generation = self._reconciler.way_back(use_case)
        tried = self._reconciler.challenger_of(use_case)
        champion, challenger = (one.version if one else None for one in (bad, tried))
        of = aimed(order, champion, challenger).of
        if of == "challenger":
            bad, good = tried, bad
        if order.generation is not None and order.generation != generation:
            raise Conflict(
                f"{use_case}: the routing row that this node has read last is at generation "
                f"{generation}, not {order.generation}: look, then name what serves now"
            )
        changed = bad is not None and order.version in (None, bad.version)
        note = f"model {order.version} is not the {of} here: nothing was taken back"
        if bad is not None and changed:
            if good is None and of == "champion":
                raise Conflict(
                    f"{use_case}: the records cannot be reached ({why}), and no earlier champion "
                    "is in memory to go back to; what serves goes on serving"
                )
            entry = Late(
                use_case=use_case,
                digest=bad.model_digest,
                version=bad.version,
                actor=order.actor,
                claim=order.claim,
                reason=order.reason,
                request_id=order.request_id,
                at=utc_now().isoformat(),
                node=self._node,
                epoch=self._reconciler.epoch_of(use_case),
            )
            try:
                await self._workers.run("journal", self._journal.add, entry)
            except OSError as error:
                raise Unavailable(
                    f"{use_case}: the rollback can be put on record neither in the database "
                    f"({why}) nor in {self._journal.path} ({error.strerror}); nothing was taken "
                    "back"
                ) from error
            self._reconciler.apply(use_case)
            log.warning("%s: model %d is taken back on this node only", use_case, bad.version)
            note = f"model {bad.version} is taken back"
        return {
            "use_case": use_case,
            "changed": changed,
            "note": f"{note}; the records cannot be reached ({why}), so this node only",
            "scope": "this node only",
            "generation": generation,
            "champion": good.version if good is not None else None,
            "served": self._reconciler.describe(use_case),
        }

    async def turn(self) -> None:
        """Bring into the records what was done without them, once they can be followed."""
        for entry in self._journal.entries:
            if not self._reconciler.is_following:
                break
            route = await self._workers.run("admin", take_back_late, self._records, entry)
            # First the row, then the entry: in between, the model would answer again.
            self._reconciler.take_route(route)
            await self._workers.run("journal", self._journal.remove, entry)
            self._reconciler.apply(entry.use_case)
            log.info("%s: a rollback of this node is on record now", entry.use_case)
        await asyncio.sleep(REPLAY_SECONDS)
