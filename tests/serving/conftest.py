"""Fixtures of the node's tests."""

from __future__ import annotations

import pytest

from tests.builders.application import Client
from tests.builders.serving import Desk


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that coroutines among the tests run on."""
    return "asyncio"


@pytest.fixture(scope="module")
def asked_desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The installation whose application is asked without a socket."""
    return Desk(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def client(asked_desk: Desk) -> Client:
    """An application that has not started: it serves nothing yet."""
    return Client(asked_desk)
