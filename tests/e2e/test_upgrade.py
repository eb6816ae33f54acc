"""An installation of the version before opens, is migrated, and serves what it served."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from include.config.settings import ROOT
from include.records.schema import HEAD, VERSION_TABLE
from tests.builders.isolated import write_bento, write_receipt
from tests.builders.older_records import bring_back
from tests.builders.serving import NAME, ROW, Desk, Node, until

TAG = "loans_scorer:before"


def write_as_before(desk: Desk) -> None:
    """Leave a home as revision 0006 had it: no digest of code, a model of other pins serves."""
    write_bento(desk.settings.home, TAG)
    write_receipt(desk.settings.home, NAME, TAG)
    desk.train(1, pins="sha256:of the version before")
    desk.records.models.update(NAME, 1, bento_tag=TAG)
    desk.record_route(champion=1)
    with desk.records.transaction() as session:
        session.execute(text("UPDATE routes SET description = NULL"))
        bring_back(session, "0006")
    desk.records.close()
    shutil.rmtree(desk.settings.signing_keys_folder)
    desk.settings.signing_key_path.unlink()


@pytest.mark.slow
def test_what_served_before_an_upgrade_serves_after_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    write_as_before(desk)
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(desk.settings.home),
        "EVERGREEN_USECASES": desk.settings.usecases,
        "EVERGREEN_NODE_PORT": str(desk.settings.node_port),
    }
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        serving = subprocess.Popen(
            [sys.executable, "-m", "include", "serve"],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    node = Node(desk.settings)
    try:
        until(lambda: node.predict(features=ROW).status == 200, what=f"answer, see {log}")
        answer = node.predict(features=ROW).body
        assert (answer["model_version"], answer["arm"]) == (1, "champion")
        model = desk.records.models.get(NAME, 1)
        assert model is not None
        assert model.artefact_digest is not None
        assert model.signed_as == "upgrade"
        with desk.records.transaction() as session:
            found = session.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one()
        assert found == HEAD
    finally:
        serving.terminate()
        serving.wait(timeout=20)
