"""Fault 72: secrets in settings reach no log, no error, no record, no report; and no user text
is a template or a command.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.config.settings import ROOT, Settings
from include.installation.services import SERVICES, children
from tests.builders.installation import Installation, small_repayment
from tests.builders.scanning import Scanner

PASSWORD = "s3cr3t-Wort-9431"
TOKEN = "t0ken-Wort-7712-of-thirty-two-letters"


def evergreen(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_USECASES": str(home / "usecases"),
        "EVERGREEN_NODE_TOKEN": TOKEN,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "include", "-v", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )


def found(home: Path, *secrets: str) -> list[Path]:
    """Return the files that hold a secret."""
    return [
        Path(path)
        for path in Scanner({secret: secret for secret in secrets}).files(home.rglob("*"))
    ]


def test_the_scanner_finds_what_is_planted(tmp_path: Path) -> None:
    """What is found nowhere else must be findable: in text and blobs, whole or as part, also
    where a page cuts it in two.
    """
    scanner = Scanner({"password": PASSWORD, "token": TOKEN})
    (tmp_path / "task.log").write_text(f"url=postgresql://me:{PASSWORD}@host/x")
    (tmp_path / "quiet.log").write_text("nothing to see")
    assert scanner.files(tmp_path.iterdir()) == {str(tmp_path / "task.log"): {"password"}}
    path = tmp_path / "airflow.db"
    text = json.dumps({"x": TOKEN * 500})
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("CREATE TABLE xcom (key TEXT, value)")
        rows = [
            ("a", text),
            ("b", b"\0" + base64.b64encode(PASSWORD.encode())),
            ("c", 5),
            ("d", None),
        ]
        con.executemany("INSERT INTO xcom VALUES (?, ?)", rows)
    assert path.read_bytes().count(TOKEN.encode()) < 500, "some lie across two pages"
    assert scanner.database(path) == {"airflow.db: xcom.value": {"password", "token"}}


def test_no_command_line_shows_a_password(tmp_path: Path) -> None:
    """Every user of a machine can read the command lines of its processes; the environment only
    their owner.
    """
    url = SecretStr(f"postgresql://evergreen:{PASSWORD}@127.0.0.1:1/none")
    settings = Settings(home=tmp_path, records_url=url, mlflow_uri=url, node_token=SecretStr(TOKEN))
    started = children(settings)
    assert {child.name for child in started} == set(SERVICES)
    scanner = Scanner({"password": PASSWORD, "token": TOKEN})
    assert [
        child.name for child in started if scanner.names(" ".join(child.command).encode())
    ] == []
    (mlflow,) = (child for child in started if child.name == "mlflow")
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == settings.mlflow_address


def test_a_database_password_is_in_no_error(tmp_path: Path) -> None:
    small_repayment(tmp_path / "usecases")
    url = f"postgresql://evergreen:{PASSWORD}@127.0.0.1:1/none"
    done = evergreen(tmp_path, "status", "repayment", EVERGREEN_RECORDS_URL=url)
    assert done.returncode == 9
    assert PASSWORD not in done.stdout + done.stderr
    assert "127.0.0.1" in done.stderr
    assert found(tmp_path, PASSWORD) == []


def test_a_source_password_is_in_no_error_record_or_log(tmp_path: Path) -> None:
    text = """
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders:
    sql: {url_env: SHOP_DATABASE, query: SELECT * FROM orders}
    key: [order_id]
    columns: {order_id: {type: int64}, customer_id: {type: int64}, paid: {type: int64}}
label: {source: orders, column: paid, label_time: event + 1d, delay: 1d}
features:
  order: {source: orders, grain: event, columns: {n: int64}}
"""
    (tmp_path / "usecases").mkdir()
    (tmp_path / "usecases" / "shop.yaml").write_text(text)
    words = ("run", "ingest_data", "--use-case", "shop", "--partition", "2026-01-01")
    done = evergreen(
        tmp_path, *words, SHOP_DATABASE=f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/none"
    )
    assert done.returncode == 3, done.stderr
    assert "orders" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert found(tmp_path, PASSWORD) == []


@pytest.mark.parametrize(
    "words",
    [("status", "repayment"), ("audit", "verify"), ("stop",), ("password", "--mlflow")],
)
def test_whatever_makes_the_home_folder_it_is_its_owners(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    small_repayment(tmp_path / "usecases")
    home = tmp_path / "state" / "home"
    if words == ("stop",):
        home.mkdir(parents=True)  # of an earlier version, open to all
        home.chmod(0o755)
    environment = {"EVERGREEN_USECASES": str(tmp_path / "usecases")}
    done = evergreen(home, *words, **environment)
    assert done.returncode == 0, done.stderr
    assert home.stat().st_mode & 0o777 == 0o700
    made = [path for path in home.rglob("*") if not path.is_symlink()]
    assert made
    assert [str(path) for path in made if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_a_whole_chain_leaves_no_secret_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_NODE_TOKEN", TOKEN)
    small_repayment(tmp_path / "usecases", 150)
    made = Installation(tmp_path)
    made.load("2026-01-01", "2026-01-12")
    made.day("2026-01-13")
    generated = made.settings.secret("something").get_secret_value()
    assert TOKEN not in repr(made.settings)
    assert TOKEN not in made.settings.model_dump_json()
    kept = found(tmp_path, TOKEN, generated)
    assert kept == [tmp_path / "secrets" / "something"]
    assert kept[0].stat().st_mode & 0o077 == 0


def test_text_of_a_person_is_no_template_and_no_command(tmp_path: Path) -> None:
    """Fault 61: a reason with Jinja and shell marks is kept as it is written."""
    reason = "{{ 7 * 7 }} $(touch hacked) `touch hacked`; touch hacked"
    small_repayment(tmp_path / "usecases", 100)
    made = Installation(tmp_path)
    made.run("ingest_data", "2026-01-01")
    words = (
        "run",
        "ingest_data",
        "--use-case",
        "repayment",
        "--partition",
        "2026-01-01",
        "--restate",
        reason,
    )
    # Other rows, so that the reason goes on record.
    done = evergreen(tmp_path, *words, EVERGREEN_SEED="8")
    assert done.returncode == 0, done.stderr
    assert not list(ROOT.glob("hacked")) + list(tmp_path.rglob("hacked"))
    assert reason in [
        entry.details.get("reason") for entry in made.records.audit.entries("repayment")
    ]
