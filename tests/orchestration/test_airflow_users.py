"""Fault 66 at Airflow's door: viewer, op and admin, each as far as its role goes, at a real API
server with its database in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from include.clock import wait_for
from include.config.settings import Settings
from include.errors import ConfigError, Unavailable
from include.installation.airflow_database import set_up
from include.installation.child import end
from include.installation.services import children
from include.orchestration.airflow_api import AirflowApi
from tests.builders.ports import free_port

DAG = "repayment__load_history"


@pytest.fixture(scope="module")
def fab(postgres_of_module: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A started API server, and a DAG processor until it has read the DAG files."""
    pytest.importorskip("airflow.providers.fab", reason="requirements-compose.txt is not installed")
    settings = Settings(
        home=tmp_path_factory.mktemp("fab") / "home",
        airflow_database_url=postgres_of_module,
        airflow_auth="fab",
        airflow_port=free_port(),
    )
    set_up(settings, say=print)
    server, reader = children(settings, ["api-server", "dag-processor"])
    with AirflowApi(settings) as api:
        try:
            server.start()
            reader.start()
            assert wait_for(lambda: api.health() or None, seconds=300, every=0.5), (
                server.log.read_text()
            )
            listed = wait_for(lambda: DAG in api.dag_ids() or None, seconds=300, every=0.5)
            assert listed, reader.log.read_text() + server.log.read_text()
            end([reader])
            yield settings
        finally:
            end([server, reader])


def as_user(settings: Settings, user: str) -> AirflowApi:
    return AirflowApi(settings.model_copy(update={"airflow_user": user}))


def users_seen(settings: Settings, user: str) -> int:
    """Return how FAB's own list of users answers a user."""
    with httpx.Client(base_url=settings.airflow_url, trust_env=False) as http:
        password = settings.secret(f"airflow_{user}").get_secret_value()
        body = {"username": user, "password": password}
        token = http.post("/auth/token", json=body).json()["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        return http.get("/auth/fab/v1/users", headers=headers).status_code


@pytest.mark.slow
def test_viewer_sees_and_starts_nothing(fab: Settings) -> None:
    with as_user(fab, "viewer") as api:
        assert DAG in api.dag_ids()
        with pytest.raises(ConfigError, match=r"\(403\).*'viewer' may not.*EVERGREEN_AIRFLOW_USER"):
            api.trigger(DAG)
        with pytest.raises(ConfigError, match=r"\(403\)"):
            api.pause(DAG, True)
    assert users_seen(fab, "viewer") == 403


def test_op_starts_and_clears_and_does_not_administer(fab: Settings) -> None:
    with as_user(fab, "op") as api:
        run = api.trigger(DAG)
        assert (run.state, run.dag_id) == ("queued", DAG)
        api.clear(run)
        api.pause(DAG, False)
        assert not api.paused(DAG)
        api.emit("evergreen://repayment/raw", "2026-01-01")
    assert users_seen(fab, "op") == 403


def test_admin_administers(fab: Settings) -> None:
    with as_user(fab, "admin") as api:
        assert api.trigger(DAG).dag_id == DAG
    assert users_seen(fab, "admin") == 200


def test_nobody_and_a_wrong_password_or_token_are_refused(fab: Settings) -> None:
    with httpx.Client(base_url=fab.airflow_url, trust_env=False) as http:
        wrong = {"username": "admin", "password": "x" * 43}
        assert http.post("/auth/token", json=wrong).status_code == 401
        assert http.get("/api/v2/dags").status_code == 401
        headers = {"authorization": "Bearer eyJhbGciOiJIUzUxMiJ9.e30.x"}
        assert http.get("/api/v2/dags", headers=headers).status_code in (401, 403)
        assert http.post("/api/v2/dags/x/dagRuns", json={}).status_code == 401


def test_the_client_says_whose_password_was_refused(fab: Settings, tmp_path: Path) -> None:
    (tmp_path / "evergreen_airflow_op").write_text("y" * 43)
    for name in ("airflow_jwt", "airflow_fernet"):
        (tmp_path / f"evergreen_{name}").write_text("z" * 43)
    stranger = fab.model_copy(update={"secrets_dir": tmp_path, "airflow_user": "op"})
    with (
        AirflowApi(stranger) as api,
        pytest.raises(Unavailable, match=r"refuses the password of 'op' in .*evergreen_airflow_op"),
    ):
        api.dag_ids()


@pytest.mark.slow
def test_setting_up_again_changes_a_replaced_password_and_mends_a_raised_role(
    fab: Settings, postgres_of_module: str
) -> None:
    import psycopg

    before = fab.secret("airflow_viewer").get_secret_value()
    replaced = "replaced-by-a-person-with-openssl-rand"
    (fab.home / "secrets" / "airflow_viewer").write_text(replaced)
    raise_role = (
        "INSERT INTO ab_user_role (id, user_id, role_id) SELECT 999, u.id, r.id FROM ab_user u, "
        "ab_role r WHERE u.username = 'viewer' AND r.name = 'Admin'"
    )
    with psycopg.connect(postgres_of_module.replace("+psycopg", ""), autocommit=True) as database:
        database.execute(raise_role)
    set_up(fab, say=print)
    with httpx.Client(base_url=fab.airflow_url, trust_env=False) as http:
        for password, status in ((before, 401), (replaced, 201)):
            body = {"username": "viewer", "password": password}
            assert http.post("/auth/token", json=body).status_code == status
    roles = (
        "SELECT r.name FROM ab_user_role JOIN ab_role r ON r.id = role_id "
        "JOIN ab_user u ON u.id = user_id WHERE u.username = 'viewer'"
    )
    with psycopg.connect(postgres_of_module.replace("+psycopg", "")) as database:
        assert database.execute(roles).fetchall() == [("Viewer",)]


def test_no_password_stands_in_a_log(fab: Settings) -> None:
    words = [fab.secret(f"airflow_{user}").get_secret_value() for user in ("admin", "op", "viewer")]
    for log in (fab.home / "logs").rglob("*.log"):
        text = log.read_text(errors="replace")
        assert not [word for word in words if word in text], log
