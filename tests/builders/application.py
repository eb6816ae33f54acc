"""A node's application without a socket, asked in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from include.config.tokens import Token
from include.config.use_case_file import find
from include.deployment.description import Description
from include.deployment.rollback import Order
from include.models.loading import load_model
from include.predictions.entity_hash import entity_hasher
from include.serving.access import Access
from include.serving.app import App
from include.serving.snapshot import Loaded, Served
from tests.builders.jumping_loop import JumpingLoop
from tests.builders.serving import NAME, Desk

TOKEN = "the-token-of-an-operator-of-45-characters-or-so"
OPERATOR = Token("alice", frozenset({"operate"}), SecretStr(TOKEN))


@dataclass
class Client:
    """Asks an application; `asked` are the changes of state that it passed on."""

    desk: Desk
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    settled: bool = True
    error: Exception | None = None
    access: Access = field(
        default_factory=lambda: Access([OPERATOR], free=frozenset({"predict", "read"}))
    )

    def __post_init__(self) -> None:
        home = self.desk.settings.home
        self.app = App(
            access=self.access,
            home=home,
            hasher=lambda: entity_hasher("a key of the tests"),
            rollback=self._roll_back,
            reload=self._change,
            hosts=frozenset({"node.example", "[::1]"}),
        )
        self.use_case = Description.of(find(NAME, self.desk.settings.usecase_dirs))

    async def _roll_back(self, use_case: str, order: Order) -> tuple[bool, Mapping[str, Any]]:
        return self.settled, await self._change(use_case, order)

    async def _change(self, *arguments: Any) -> Mapping[str, Any]:
        self.asked.append(arguments)
        if self.error is not None:
            raise self.error
        return {"done": [str(argument) for argument in arguments]}

    def serve(self, version: int = 1, **changes: Any) -> Loaded:
        """Serve a real model from the next request on."""
        model = self.desk.train(version)
        scorer = load_model(model.bundle, model.model_digest)
        loaded = Loaded(
            version, model.model_digest, model.feature_set, model.partition, scorer=scorer
        )
        self.app.table.started = True
        self.app.install(Served(self.use_case, **{"champion": loaded, "generation": 1, **changes}))
        return loaded

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; whatever it waits for takes no time, and what is computed neither."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://node.example"
            ) as client:
                return await client.request(method, path, **options)

        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(send())

    def predict(self, **body: Any) -> httpx.Response:
        """Ask for a prediction."""
        return self.ask("POST", f"/v1/{NAME}/predict", json=body)
