"""What each role of the database may do, tried as that role on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from include.clock import utc_now
from include.deployment.rollback import Late, Order, take_back, take_back_late
from include.errors import ConfigError, Conflict, EvergreenError, Unavailable
from include.records import roles
from include.records.columns import Base
from include.records.migrate import refuse_other_role
from include.records.nodes import RoleReport
from include.records.records import Records
from include.records.schema import VERSION_TABLE
from tests.builders.postgres_roles import Place, empty, prepared_place
from tests.records.builders import AT, claim, entry, model, raise_to, result

NAME = "loans"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with prepared_place() as made:
        yield made


@pytest.fixture
def worker(place: Place) -> Records:
    """The records as a worker; what the test before left is gone."""
    empty(place)
    return place.open("worker")


@pytest.fixture
def node(place: Place, worker: Records) -> Records:
    """The records as a node, in which model 2 serves, model 1 did, and model 3 is tried."""
    for version in (1, 2, 3):
        worker.models.add(model(version))
    for changes in (
        {"champion": 1},
        {"champion": 2, "previous": 1},
        {"challenger": 3, "step": 1, "weight": 5.0},
    ):
        worker.routes.change(NAME, set=changes, entry=entry("release"), partition="2026-03-03")
    return place.open("node")


def granted(records: Records, role: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return what a role may do, as the server has it."""
    whole = text(
        "SELECT c.relname, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a "
        "WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = CAST(:role AS regrole)"
    )
    columns = text(
        "SELECT c.relname, a.privilege_type, t.attname FROM pg_class c JOIN pg_attribute t "
        "ON t.attrelid = c.oid, aclexplode(t.attacl) a "
        "WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = CAST(:role AS regrole) "
        "ORDER BY t.attnum"
    )
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    with records.database.engine.connect() as connection:
        for table, privilege in connection.execute(whole, {"role": role}):
            found.setdefault(table, {})[privilege] = ()
        for table, privilege, column in connection.execute(columns, {"role": role}):
            before = found.setdefault(table, {}).get(privilege, ())
            found[table][privilege] = (*before, column)
    return found


def sorted_columns(grants: roles.Grants) -> dict[str, dict[str, tuple[str, ...]]]:
    return {
        table: {privilege: tuple(sorted(names)) for privilege, names in privileges.items()}
        for table, privileges in grants.items()
    }


def test_the_server_grants_what_the_tables_in_the_code_say_and_no_more(place: Place) -> None:
    owner = place.open("owner")
    for role, table in (("worker", roles.WORKER), ("node", roles.NODE)):
        found = granted(owner, f"{place.prefix}_{role}")
        assert sorted_columns(found) == sorted_columns(table)
    with owner.database.engine.connect() as connection:
        public = connection.execute(
            text(
                "SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a "
                "WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 0"
            )
        ).all()
    assert public == []


def test_every_table_is_decided_on_for_workers() -> None:
    assert set(roles.WORKER) == {*Base.metadata.tables, VERSION_TABLE}


def test_a_grant_of_a_persons_is_taken_back_by_the_next_migration(place: Place) -> None:
    owner = place.open("owner")
    role = f"{place.prefix}_node"
    with owner.transaction() as session:
        session.execute(text(f'GRANT DELETE ON routes TO "{role}"'))
        session.execute(text(f'GRANT UPDATE (salt) ON routes TO "{role}"'))
    owner.migrate(roles=roles.Roles(f"{place.prefix}_worker", role))
    assert sorted_columns(granted(owner, role)) == sorted_columns(roles.NODE)


def test_a_worker_does_all_that_stages_do(worker: Records) -> None:
    raise_to(worker, "live", "deployed")
    worker.models.add(model(1))
    worker.models.update(NAME, 1, state="challenger")
    worker.feature_sets.add(NAME, "v1", {"a": 1})
    worker.feature_sets.advance(NAME, "v1", "2026-03-01", None)
    worker.routes.change(NAME, set={"champion": 1}, entry=entry("release"))
    with claim(worker) as lease:
        worker.results.commit(lease, result(), entries=[entry("trained")])
    assert worker.audit.verify() is None
    counts = worker.forget(NAME, entry=entry("use_case.reset"))
    assert counts["results"] == 1
    assert worker.routes.names() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit_head SET sequence = sequence - 1",
        "UPDATE audit_head SET hash = repeat('1', 64)",
        "UPDATE audit_head SET sequence = sequence + 1",
        "DELETE FROM audit_head",
        "DELETE FROM leases",
        "ALTER TABLE audit DISABLE TRIGGER USER",
        "CREATE TABLE mine (x int)",
        "SET session_replication_role = replica",
    ],
)
def test_a_worker_does_not_touch_the_log_that_is_written(worker: Records, statement: str) -> None:
    with claim(worker):
        worker.audit.append(entry())
    refused(worker, statement)
    assert worker.audit.verify() is None


def refused(records: Records, *statements: str, match: str = "") -> None:
    """Expect a transaction to be refused for what this role is."""

    def run() -> None:
        with records.transaction() as session:
            for statement in statements:
                session.execute(text(statement))

    with pytest.raises(Unavailable, match=f"does not let this role do that.*{match}"):
        run()


def test_the_first_bad_row_is_named_to_a_worker_too(worker: Records, place: Place) -> None:
    for number in range(4):
        worker.audit.append(entry(subject=str(number)))
    with place.open("owner").transaction() as session:
        session.execute(text("ALTER TABLE audit DISABLE TRIGGER audit_no_change"))
        session.execute(text("UPDATE audit SET subject = 'x' WHERE sequence = 3"))
        session.execute(text("ALTER TABLE audit ENABLE TRIGGER audit_no_change"))
    fault = worker.audit.verify()
    assert fault is not None
    assert fault.sequence == 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("1000, '{p}', repeat('1', 64)", "follows the row before"),
        ("{n} + 1, repeat('2', 64), repeat('1', 64)", "follows the row before"),
        ("{n} + 1, '{p}', repeat('1', 64)", "up to the head"),
    ],
    ids=["a gap", "another row before", "without the head"],
)
def test_rows_beside_the_chain_are_refused_to_workers(
    worker: Records, values: str, reason: str
) -> None:
    worker.audit.append(entry())
    number, digest = worker.audit.head()
    refused(
        worker,
        "INSERT INTO audit (at, action, use_case, subject, actor, details, sequence, previous, "
        f"hash) VALUES ('', 'a', 'b', 'c', 'd', '{{}}', {values.format(n=number, p=digest)})",
        match=reason,
    )
    worker.audit.append(entry())
    assert worker.audit.verify() is None


def test_a_node_follows_reports_and_rolls_back(node: Records) -> None:
    (row,) = node.serving_rows().rows
    assert (row.route.champion, row.route.challenger) == (2, 3)
    assert row.model("champion") is not None
    for boot in ("1", "2"):
        for state in ("loading", "serving"):
            report = RoleReport("champion", 2, "sha256:2", state)
            node.nodes.report(NAME, "n1", boot, generation=3, roles=[report])
    assert [(one.boot, one.state) for one in node.nodes.of(NAME)] == [("2", "serving")]
    node.nodes.stopped("n1", "2")
    assert [one.living for one in node.nodes.of(NAME)] == [False]
    taken = take_back(node, NAME, Order("me", "bad", version=2, request_id="r1"))
    assert (taken.changed, taken.route.champion, taken.route.previous) == (True, 1, None)
    assert taken.route.held == ["sha256:2"]
    again = take_back(node, NAME, Order("me", "bad", version=2, request_id="r1"))
    assert not again.changed
    with pytest.raises(Conflict, match="no earlier champion"):
        take_back(node, NAME, Order("me", "bad", version=1))
    assert node.models.get(NAME, 2).state == "retired"  # type: ignore[union-attr]
    assert node.audit.verify() is None
    actions = [one.action for one in node.audit.entries(NAME)]
    assert actions[-2:] == ["release.rolled_back", "release.rolled_back.refused"]


def test_a_node_takes_the_challenger_back(node: Records) -> None:
    taken = take_back(node, NAME, Order("me", "bad", version=3, of="challenger"))
    route = taken.route
    assert (route.champion, route.previous, route.challenger, route.weight) == (2, 1, None, 0.0)


def release_a_fourth(worker: Records) -> None:
    """Let model 4 serve in place of model 2, which is the one before then."""
    worker.models.add(model(4))
    worker.routes.change(
        NAME,
        set={"champion": 4, "previous": 2},
        entry=entry("release"),
        partition="2026-03-04",
    )


def test_a_node_rolls_back_twice_where_a_good_model_is_left(node: Records, worker: Records) -> None:
    release_a_fourth(worker)
    assert take_back(node, NAME, Order("me", "bad", version=4)).route.previous == 1
    assert take_back(node, NAME, Order("me", "bad", version=2)).route.champion == 1


@pytest.mark.parametrize("is_told", [True, False], ids=["late", "by a version before"])
def test_a_node_goes_past_a_model_on_hold(node: Records, worker: Records, is_told: bool) -> None:
    """A model that a node took back without records, when another was released meanwhile."""
    release_a_fourth(worker)
    if is_told:
        late = Late(NAME, "sha256:2", 2, "me", "", "bad", "r2", utc_now().isoformat(), "n1")
        route = take_back_late(node, late)
        assert (route.champion, route.previous, route.held) == (4, 1, ["sha256:2"])
    else:
        with worker.transaction() as session:
            session.execute(text("UPDATE routes SET held = '[\"sha256:2\"]'"))
    route = take_back(node, NAME, Order("me", "bad", version=4)).route
    assert (route.champion, route.previous) == (1, None)
    assert node.audit.verify() is None


@pytest.mark.parametrize("digest", ["sha256:2", "sha256:9"], ids=["serving", "gone"])
def test_a_node_replays_what_it_did_without_records(node: Records, digest: str) -> None:
    late = Late(NAME, digest, 2, "me", "", "bad", "r9", utc_now().isoformat(), "n1")
    for _ in range(2):
        route = take_back_late(node, late)
    assert route.champion == (1 if digest == "sha256:2" else 2)
    assert digest in route.held
    assert node.audit.verify() is None
    unknown = Late("nobody", digest, 2, "me", "", "bad", "r8", utc_now().isoformat(), "n1")
    assert take_back_late(node, unknown).generation == 0


def test_a_node_is_told_that_an_unknown_use_case_has_nothing_to_go_back_to(node: Records) -> None:
    with pytest.raises(Conflict, match="nothing was ever released"):
        take_back(node, "nobody", Order("me", "bad", generation=0))
    assert node.routes.names() == [NAME]


ROUTE = "UPDATE routes SET generation = generation + 1, "
TELL = (
    "INSERT INTO audit SELECT sequence + 1, '', 'release.rolled_back', 'loans', '', 'x', "
    "'{\"generation\":' || (SELECT generation FROM routes) || '}', NULL, hash, repeat('f', 64) "
    "FROM audit_head",
    "UPDATE audit_head SET sequence = sequence + 1, hash = repeat('f', 64)",
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("champion = 3", "no model serve but the previous"),
        ("champion = NULL", "no model serve but the previous"),
        ("champion = 1, previous = 3", "leads to a model that was good"),
        ("previous = 3", "leads to a model that was good"),
        ("previous = NULL", "leads to a model that was good"),
        ("challenger = 1", "starts no release"),
        ("weight = 50", "no more traffic"),
        ("weight = -1", "no more traffic"),
        ("step = 2", "no more traffic"),
        ("""held = '[]'""", "lifts no hold"),
        ("""held = '"sha256:0"'""", "lifts no hold"),
        ("rollback_generation = 0", "generation of the last rollback"),
        ("generation = generation", "rises by one"),
    ],
)
def test_a_node_changes_a_routing_row_to_no_more_than_a_rollback(
    node: Records, worker: Records, change: str, reason: str
) -> None:
    rollback_then_release(node, worker)
    start = "UPDATE routes SET " if change.startswith("generation") else ROUTE
    refused(node, f"{start}{change}", *TELL, match=reason)


def rollback_then_release(node: Records, worker: Records) -> None:
    """Put one digest on hold, raise the generation of the last rollback, then try model 3 again."""
    worker.models.add(model(9))
    worker.routes.change(
        NAME, set={"challenger": 9, "step": 1, "weight": 5.0}, entry=entry(), partition="2026-03-09"
    )
    take_back(node, NAME, Order("me", "bad", version=9, of="challenger"))
    worker.models.add(model(10, generation=worker.routes.get(NAME).generation))
    worker.routes.change(
        NAME,
        set={"challenger": 10, "step": 1, "weight": 5.0},
        entry=entry(),
        partition="2026-03-10",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE routes SET watermark = '2020-01-01'",
        "UPDATE routes SET salt = 'x'",
        "UPDATE routes SET description = NULL",
        "UPDATE routes SET use_case = 'other'",
        "INSERT INTO routes SELECT * FROM routes",
        "DELETE FROM routes",
        "DELETE FROM observations",
        "DELETE FROM models",
        "UPDATE models SET bundle = '/elsewhere'",
        "UPDATE models SET model_digest = 'x'",
        "UPDATE models SET state = 'released' WHERE version = 3",
        "UPDATE models SET state = 'retired' WHERE version = 1",
        "UPDATE models SET state = 'retired' WHERE version = 2",
        "SELECT * FROM results",
        "SELECT * FROM leases",
        "SET ROLE {prefix}_worker",
        "SET SESSION AUTHORIZATION {prefix}_owner",
        "SET session_replication_role = replica",
        "ALTER TABLE routes DISABLE TRIGGER USER",
        "DROP TRIGGER guard_route ON routes",
        "CREATE TEMPORARY TABLE models (x int)",
        "CREATE FUNCTION public.pg_has_role(name, text, text) RETURNS bool RETURN true",
        "CREATE SCHEMA mine",
    ],
)
def test_a_node_does_nothing_else(node: Records, place: Place, statement: str) -> None:
    refused(node, statement.format(prefix=place.prefix))


def test_a_node_rolls_back_without_the_audit_log_in_vain(node: Records) -> None:
    rollback = (
        f"{ROUTE}champion = 1, previous = NULL, challenger = NULL, weight = 0, step = 0, "
        "rollback_generation = generation + 1, held = '[\"sha256:2\"]'"
    )
    refused(node, rollback, match="told in the audit log")
    refused(node, TELL[1], match="is a row of it")


def test_a_node_tells_the_audit_log_of_rollbacks_alone(node: Records) -> None:
    with pytest.raises(Unavailable, match="of rollbacks alone"):
        node.audit.append(entry("use_case.reset"))


def test_a_search_path_of_the_callers_deceives_no_guard(node: Records, place: Place) -> None:
    """A view of the owner's other schema, say, that a node may read and puts in front."""
    owner = place.open("owner")
    with owner.transaction() as session:
        session.execute(text("CREATE SCHEMA fake"))
        session.execute(
            text(
                "CREATE FUNCTION fake.pg_has_role(name, text, text) RETURNS boolean "
                "LANGUAGE sql AS 'SELECT true'"
            )
        )
        session.execute(
            text("CREATE VIEW fake.models AS SELECT 'loans' use_case, 3 AS version, 'released' s")
        )
        session.execute(text(f'GRANT USAGE ON SCHEMA fake TO "{place.prefix}_node"'))
        session.execute(text(f'GRANT SELECT ON fake.models TO "{place.prefix}_node"'))
    try:
        refused(
            node,
            "SET LOCAL search_path = fake, public, pg_catalog",
            f"{ROUTE.replace('routes', 'public.routes')}champion = 3",
            match="no model serve but the previous",
        )
    finally:
        with owner.transaction() as session:
            session.execute(text("DROP SCHEMA fake CASCADE"))


def test_a_role_that_was_granted_too_much_meets_the_rules_of_the_nodes(
    node: Records, place: Place
) -> None:
    owner, role = place.open("owner"), f"{place.prefix}_node"
    with owner.transaction() as session:
        session.execute(text(f'GRANT UPDATE ON routes TO "{role}"'))
    try:
        refused(node, f"{ROUTE}watermark = '2020-01-01'", match="no more of a routing row")
        refused(node, f"{ROUTE}description = NULL, salt = ''", match="no more of a routing row")
    finally:
        owner.migrate(roles=roles.Roles(f"{place.prefix}_worker", role))


def test_reports_of_nodes_that_are_silent_are_removed_by_workers(
    node: Records, worker: Records
) -> None:
    report = RoleReport("champion", 2, "sha256:2", "serving")
    day = timedelta(days=1).total_seconds()
    node.nodes.report(NAME, "old", "1", generation=3, roles=[report], expires_seconds=-day - 60)
    node.nodes.report(NAME, "new", "1", generation=3, roles=[report])
    assert worker.nodes.forget_silent() == 1
    with pytest.raises(EvergreenError, match="does not let this role"):
        node.nodes.forget_silent()
    assert [one.node for one in node.nodes.of(NAME)] == ["new"]


def test_entries_of_one_transaction_are_written_by_a_worker(worker: Records) -> None:
    keys = [f"2026-03-{day:02d}" for day in range(1, 20)]
    worker.partitions.add(NAME, keys, mode="live", target="data", actor="me", at=AT)
    assert worker.audit.head()[0] == len(keys)


def test_whoever_does_not_own_the_tables_is_refused_before_it_fills_them(
    worker: Records, place: Place
) -> None:
    with pytest.raises(ConfigError, match=r"does not own the tables.*EVERGREEN_RECORDS_OWNER_URL"):
        refuse_other_role(worker.database)
    refuse_other_role(place.open("owner").database)
