"""An object store that speaks Azure's language: Azurite, from npm, with a container of each test's.

It is installed once, into a cache of this user's; without npm the tests skip.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from include.clock import wait_for
from tests.builders.ports import free_port

VERSION = "3.35.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evergreen-tests"
# Azurite's only account, which is in its documentation: no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class AzureStore:
    """A container: `uri` names it, `environment` is what a process needs to reach it."""

    uri: str
    environment: dict[str, str]


def _program() -> Path:
    program = CACHE / f"azurite-{VERSION}" / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed; Azurite, which stands in for Azure, comes by it")
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f".{uuid.uuid4().hex[:8]}"
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(made), f"azurite@{VERSION}"],
        capture_output=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(made, ignore_errors=True)
        pytest.skip(f"Azurite cannot be installed: {done.stderr.decode()[-200:]}")
    try:
        made.rename(CACHE / f"azurite-{VERSION}")
    except OSError:  # another test process was faster
        shutil.rmtree(made, ignore_errors=True)
    return program


@contextmanager
def azure_server() -> Iterator[int]:
    """Run a server in a process of its own; give its port."""
    pytest.importorskip("azure.storage.blob", reason="adlfs is not installed")
    port = free_port()
    process = subprocess.Popen(
        [str(_program()), "--blobHost", "127.0.0.1", "--blobPort", str(port),
         "--skipApiVersionCheck", "--silent", "--inMemoryPersistence", "--disableTelemetry"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, "Azurite has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert wait_for(answers, seconds=180, every=0.05), "Azurite does not answer"
        yield port
    finally:
        process.kill()
        process.wait()


def make_container(port: int) -> AzureStore:
    """Make a container that nobody else has."""
    from azure.storage.blob import BlobServiceClient

    name = f"evergreen-{uuid.uuid4().hex[:12]}"
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )
    with BlobServiceClient.from_connection_string(connection) as client:
        client.create_container(name)
    return AzureStore(
        f"az://{name}",
        {
            "AZURE_STORAGE_CONNECTION_STRING": connection,
            # delta-rs asks Azure for a list from a name on, which Azurite cannot give: told that
            # it is one, it asks for the whole list.
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{port}",
        },
    )
