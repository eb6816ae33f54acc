"""The process that answers a node for a Bento: a line a question, over a socket it was given."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from include.models import kinds
from include.models.bundle import digest_of
from include.packaging.bento import worker
from tests.builders import rate_kind
from tests.builders.bundles import write_bundle
from tests.builders.serving import ROW, bundle_files


@contextmanager
def answering(bundle: Path, digest: str) -> Iterator[tuple[IO[bytes], list[int]]]:
    """Give the node's end of a worker, and where its exit code will stand."""
    ours, theirs = socket.socketpair()
    codes: list[int] = []
    arguments = [str(theirs.detach()), str(bundle), digest]
    thread = threading.Thread(target=lambda: codes.append(worker.main(arguments)))
    thread.start()
    with ours, ours.makefile("rwb") as stream:
        yield stream, codes
    thread.join(timeout=20)
    assert not thread.is_alive()


def ask(stream: IO[bytes], *questions: dict[str, Any]) -> list[dict[str, Any]]:
    for question in questions:
        stream.write(json.dumps(question).encode() + b"\n")
    stream.flush()
    return [json.loads(stream.readline()) for _ in questions]


def test_it_says_what_a_row_holds_and_answers_until_the_node_is_gone(tmp_path: Path) -> None:
    files = bundle_files(1)
    golden = json.loads(files["golden.json"])
    bundle = write_bundle(tmp_path / "bundle", files)
    with answering(bundle, digest_of(files)) as (stream, codes):
        hello = json.loads(stream.readline())
        assert hello == {"golden": len(golden["rows"]), "features": list(ROW)}
        score, refusal = ask(
            stream, {"id": 1, "row": golden["rows"][0]}, {"id": 2, "row": {**ROW, "jobs": "two"}}
        )
        assert 0 <= score.pop("micros") < 1_000_000
        assert score == {"id": 1, "score": pytest.approx(golden["scores"][0], abs=1e-9)}
        assert (refusal["id"], refusal["feature"]) == (2, "jobs")
        assert "must be a number" in refusal["error"]
        (fault,) = ask(stream, {"id": 3, "row": None})
        assert (fault["id"], "TypeError" in fault["error"]) == (3, True)
        (again,) = ask(stream, {"id": 4, "row": golden["rows"][0]})
        assert again.pop("micros") >= 0
        assert again == {**score, "id": 4}, "one question that fails ends no other"
    assert codes == [0]


def test_a_model_that_is_refused_ends_it_with_the_reason(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", bundle_files(1))
    with answering(bundle, "sha256:other") as (stream, codes):
        hello = json.loads(stream.readline())
        assert hello["error"].startswith("ArtefactError: ")
        assert stream.readline() == b""
    assert codes == [1]


def test_it_answers_for_a_second_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS, rate_kind.NAME, rate_kind.MODULE)
    files = rate_kind.bundle_files()
    bundle = write_bundle(tmp_path / "bundle", files)
    row = {"income": 0.3, "visits": 2, "region": "r1", "member": True}
    with answering(bundle, digest_of(files)) as (stream, _):
        assert json.loads(stream.readline())["features"] == list(row)
        (answer,) = ask(stream, {"id": 7, "row": row})
    assert answer.pop("micros") >= 0
    assert answer == {"id": 7, "score": kinds.load_files(files).one(row)}
