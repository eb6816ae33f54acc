"""An object store for tests: a server that speaks S3, with a bucket of each test's own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from include.clock import wait_for
from tests.builders.ports import free_port

# The server asks nobody who he is; clients send nothing without a name.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "evergreen-test",
    "AWS_SECRET_ACCESS_KEY": "evergreen-test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Else botocore asks the machine that it may run on for a role, and waits for it.
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class S3Store:
    """A bucket: `uri` names it, `environment` is what a process needs to reach it.

    `endpoint` is the server's address.
    """

    uri: str
    endpoint: str
    environment: dict[str, str]


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Run a server that speaks S3 in a process of its own; give its address.

    `host` is another address of this machine where containers are to reach it.

    Not in a thread: a client in native code may keep the interpreter while it waits for an answer.
    """
    pytest.importorskip("moto.server", reason="moto is not installed (`make dev`)")
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()"]
    process = subprocess.Popen(
        [*command, "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://{host}:{port}"

    def answers() -> bool:
        assert process.poll() is None, "the S3 server has ended"
        try:
            with urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5) as answer:
                return isinstance(json.loads(answer.read()), dict)
        except OSError:
            return False

    try:
        assert wait_for(answers, seconds=180, every=0.05), "the S3 server does not answer"
        yield address
    finally:
        process.kill()
        process.wait()


def make_bucket(endpoint: str) -> S3Store:
    """Make a bucket that nobody else has."""
    import boto3

    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
    name = f"evergreen-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=name)
    return S3Store(f"s3://{name}", endpoint, environment)


def forget_connections() -> None:
    """Drop fsspec's kept file systems: they remember the endpoint of an earlier environment."""
    import fsspec

    for protocol in ("s3", "az", "abfss", "gs"):
        registered = fsspec.registry.get(protocol)
        if registered is not None:
            registered.clear_instance_cache()
