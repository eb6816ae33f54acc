"""The page on calling the model: its examples are run as they stand, against a started node."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.serving.batch import MAX_ROWS
from tests.builders.serving import NAME, NOW, ROW, Desk, Node

PAGE = (ROOT / "docs" / "how-to" / "call-the-model.md").read_text()
SECRET = "predict-" + "p" * 40


def blocks(language: str) -> list[str]:
    """Return the examples of a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    desk = Desk(tmp_path_factory.mktemp("called"), predict="token")
    desk.publish({42: (NOW, ROW)})
    desk.train(1)
    desk.record_route(champion=1)
    tokens = desk.settings.home / "secrets" / "tokens"
    tokens.parent.mkdir(mode=0o700, exist_ok=True)
    tokens.write_text(f"shop predict,read {SECRET}\n")
    with desk.node(bearer=SECRET) as running:
        yield running


def run(node: Node, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NODE": node.url, "TOKEN": SECRET}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_line_for_a_shell_is_answered(node: Node) -> None:
    assert len(blocks("bash")) == 3
    for command in blocks("bash"):
        done = run(node, "bash", "-c", command)
        assert (done.returncode, '"decision":' in done.stdout) == (0, True), done
    named = run(node, "bash", "-c", blocks("bash")[0]).stdout
    assert '"request_id":"order-1001"' in named
    assert f'"use_case":"{NAME}"' in named


def test_the_python_examples_print_what_they_say(node: Node) -> None:
    done = run(node, sys.executable, "-c", "\n".join(blocks("python")))
    assert done.stderr == ""
    first, *rows = done.stdout.splitlines()
    assert first in ("accept", "refer")
    assert [row.split()[-1] for row in rows][:2] == [first, "unknown_entity"]
    assert rows[2].split()[-1] in ("accept", "refer")


def test_a_retry_has_the_id_of_the_first_try(node: Node) -> None:
    """The node hangs for the first try; both are answered, and the log has them under one id."""
    client = blocks("python")[0].rpartition("print(")[0]
    code = client + 'print(ask("/v1/loans/predict", {"entity": 42})["request_id"])'
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    timer = threading.Timer(2.5, node.process.send_signal, (signal.SIGCONT,))
    timer.start()
    try:
        done = run(node, sys.executable, "-c", code)
    finally:
        timer.join()
    assert done.stderr == ""
    node.stop()
    segments = closed_segments(Path(node.settings.home), NAME)
    ids = read(segments).column("caller_id").to_pylist()
    assert ids.count(done.stdout.strip()) >= 1


def test_the_page_states_the_limits_of_the_code() -> None:
    assert f"1 to {MAX_ROWS:,} rows" in PAGE
