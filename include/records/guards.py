"""Refuse, in PostgreSQL itself, changes of the records that a role's grants cannot tell apart.

A grant says which columns a role may change, a guard to what. Only the tables' owner, and for the
routing row, releases and models the workers' role, are let through: whoever else is granted
something meets the rules of the nodes. Guards run as whoever changes the row, and name everything
they call by its schema: no object of the caller's, temporary or on its search path, is looked at.
"""

from __future__ import annotations

from sqlalchemy import Connection

_OLD_HELD = (
    "SELECT FROM {schema}.models AS model "
    "WHERE model.use_case = NEW.use_case AND model.version = OLD.previous "
    "AND NEW.held::jsonb ? model.model_digest"
)
# What a rollback changes of a routing row; all else stays as it is, also what later versions add.
_ROUTE = """
    IF {trusted} THEN RETURN NEW; END IF;
    IF (pg_catalog.to_jsonb(NEW) - {free}) <> (pg_catalog.to_jsonb(OLD) - {free}) THEN
        PERFORM {schema}.guard_refuse('a node changes no more of a routing row than a rollback');
    END IF;
    IF NEW.generation <> OLD.generation + 1 THEN
        PERFORM {schema}.guard_refuse('the generation rises by one with every change');
    END IF;
    IF NEW.rollback_generation NOT IN (OLD.rollback_generation, NEW.generation) THEN
        PERFORM {schema}.guard_refuse('the generation of the last rollback is the present one');
    END IF;
    IF NEW.champion IS DISTINCT FROM OLD.champion
        AND (NEW.champion IS NULL OR NEW.champion IS DISTINCT FROM OLD.previous)
        AND NOT (EXISTS ({old_held}) AND EXISTS (
            SELECT FROM {schema}.models AS model
            WHERE model.use_case = NEW.use_case AND model.version = NEW.champion
            AND model.state = 'released' AND model.collected_at IS NULL
            AND NOT NEW.held::jsonb ? model.model_digest)) THEN
        PERFORM {schema}.guard_refuse('a node lets no model serve but the previous one');
    END IF;
    IF NEW.previous IS DISTINCT FROM OLD.previous AND (
        (NEW.champion IS NOT DISTINCT FROM OLD.champion AND NOT EXISTS ({old_held}))
        OR (NEW.previous IS NOT NULL AND NOT EXISTS (
            SELECT FROM {schema}.models AS model
            WHERE model.use_case = NEW.use_case AND model.version = NEW.previous
            AND model.state = 'released' AND model.collected_at IS NULL
            AND NOT NEW.held::jsonb ? model.model_digest))) THEN
        PERFORM {schema}.guard_refuse('the way back leads to a model that was good');
    END IF;
    IF NEW.challenger IS NOT NULL AND NEW.challenger IS DISTINCT FROM OLD.challenger THEN
        PERFORM {schema}.guard_refuse('a node starts no release');
    END IF;
    IF NEW.weight > OLD.weight OR NEW.step > OLD.step OR NEW.share > OLD.share
        OR NEW.weight < 0 OR NEW.step < 0 OR NEW.share < 0
        OR (NEW.mode IS NOT NULL AND NEW.mode IS DISTINCT FROM OLD.mode)
        OR (NEW.release_key IS NOT NULL AND NEW.release_key IS DISTINCT FROM OLD.release_key) THEN
        PERFORM {schema}.guard_refuse('a node gives a challenger no more traffic, nor other');
    END IF;
    IF NEW.release_id IS NOT NULL AND NEW.release_id IS DISTINCT FROM OLD.release_id
        AND NOT EXISTS (
            SELECT FROM {schema}.releases AS release
            WHERE release.use_case = NEW.use_case AND release.id = NEW.release_id
            AND release.state = 'watched') THEN
        PERFORM {schema}.guard_refuse('beside one under way only a watched release is named');
    END IF;
    IF pg_catalog.jsonb_typeof(NEW.held::jsonb) <> 'array'
        OR NOT NEW.held::jsonb @> OLD.held::jsonb THEN
        PERFORM {schema}.guard_refuse('a node lifts no hold');
    END IF;
    RETURN NEW;
"""
# At the commit: the entry is written last. Those of this transaction are the newest there are,
# since it has the lock of the head row.
_ROUTE_RECORDED = """
    IF {trusted} THEN RETURN NULL; END IF;
    IF NOT EXISTS (
        SELECT FROM {schema}.audit AS entry
        WHERE entry.sequence > (SELECT sequence FROM {schema}.audit_head) - 100
        AND entry.use_case = NEW.use_case
        AND entry.details ~ ('"generation":' || NEW.generation || '[,}}]')) THEN
        PERFORM {schema}.guard_refuse('a rollback is told in the audit log');
    END IF;
    IF NEW.release_id IS DISTINCT FROM OLD.release_id AND EXISTS (
        SELECT FROM {schema}.releases AS release
        WHERE release.use_case = OLD.use_case AND release.id = OLD.release_id
        AND release.ended_at IS NULL) THEN
        PERFORM {schema}.guard_refuse('a release that the routing row leaves has ended');
    END IF;
    RETURN NULL;
"""
# How a rollback ends releases: that of the model, another one under way, and one that waits.
_RELEASE = """
    IF {trusted} THEN RETURN NEW; END IF;
    IF (pg_catalog.to_jsonb(NEW) - {ending}) <> (pg_catalog.to_jsonb(OLD) - {ending})
        OR NEW.revision <> OLD.revision + 1 OR OLD.ended_at IS NOT NULL OR NEW.ended_at IS NULL
        OR (NEW.rolled_back_by_itself AND NEW.state <> 'rolled_back')
        OR (OLD.rolled_back_by_itself AND NOT NEW.rolled_back_by_itself) THEN
        PERFORM {schema}.guard_refuse('a node changes no more of a release than that it has ended');
    END IF;
    IF NOT (OLD.state IN ('trying', 'running', 'watched') AND NEW.state = 'rolled_back'
        OR OLD.state IN ('waiting', 'trying', 'running') AND NEW.state = 'aborted') THEN
        PERFORM {schema}.guard_refuse('a node ends a release as rolled back or aborted');
    END IF;
    RETURN NEW;
"""
_RELEASE_LEFT = """
    IF {trusted} THEN RETURN NULL; END IF;
    IF NOT EXISTS (
        SELECT FROM {schema}.routes AS route
        WHERE route.use_case = NEW.use_case
        AND route.rollback_generation = route.generation
        AND route.release_id IS DISTINCT FROM NEW.id
        AND (OLD.state = 'watched' OR route.challenger IS DISTINCT FROM NEW.challenger)
        AND (OLD.state <> 'watched' OR route.champion IS DISTINCT FROM NEW.challenger)
        AND (NEW.state <> 'rolled_back' OR route.held::jsonb ? NEW.challenger_digest)) THEN
        PERFORM {schema}.guard_refuse('a release ends with a rollback, whose digest is on hold');
    END IF;
    RETURN NULL;
"""
_MODEL = """
    IF {trusted} THEN RETURN NEW; END IF;
    IF (pg_catalog.to_jsonb(NEW) - 'state') <> (pg_catalog.to_jsonb(OLD) - 'state')
        OR NEW.state <> 'retired' OR NOT EXISTS (
            SELECT FROM {schema}.routes AS route
            WHERE route.use_case = OLD.use_case
            AND OLD.version IN (route.champion, route.challenger)) THEN
        PERFORM {schema}.guard_refuse('a node retires a model that is released, and no other');
    END IF;
    RETURN NEW;
"""
_MODEL_HELD = """
    IF {trusted} THEN RETURN NULL; END IF;
    IF NOT EXISTS (
        SELECT FROM {schema}.routes AS route
        WHERE route.use_case = NEW.use_case AND route.held::jsonb ? NEW.model_digest) THEN
        PERFORM {schema}.guard_refuse('a model that a node retires is on hold');
    END IF;
    RETURN NULL;
"""
# The actions of `include.deployment.rollback`, and of a refusal of it. A use case that was reset,
# say, is forgotten by all nodes: no node may write that it was.
_AUDIT = """
    IF {trusted} THEN RETURN NEW; END IF;
    IF NEW.action NOT IN (
        'release.rolled_back', 'release.rolled_back_late', 'release.rolled_back.refused') THEN
        PERFORM {schema}.guard_refuse('a node tells the audit log of rollbacks alone');
    END IF;
    RETURN NEW;
"""
_CHAIN = """
    IF {owner} THEN RETURN NULL; END IF;
    IF NEW.previous IS DISTINCT FROM COALESCE(
            (SELECT hash FROM {schema}.audit WHERE sequence = NEW.sequence - 1),
            CASE NEW.sequence WHEN 1 THEN pg_catalog.repeat('0', 64) END)
        OR NEW.sequence > (SELECT sequence FROM {schema}.audit_head WHERE id = 1) THEN
        PERFORM {schema}.guard_refuse('an audit row follows the row before, up to the head');
    END IF;
    RETURN NULL;
"""
_HEAD = """
    IF {owner} THEN RETURN NEW; END IF;
    IF NEW.sequence <= OLD.sequence THEN
        PERFORM {schema}.guard_refuse('the head of the audit log only moves on');
    END IF;
    RETURN NEW;
"""
_HEAD_THERE = """
    IF {owner} THEN RETURN NULL; END IF;
    IF NOT EXISTS (SELECT FROM {schema}.audit AS entry
        WHERE entry.sequence = NEW.sequence AND entry.hash = NEW.hash) THEN
        PERFORM {schema}.guard_refuse('the head of the audit log is a row of it');
    END IF;
    RETURN NULL;
"""
_FREE = (
    "'{champion,previous,challenger,step,weight,held,generation,rollback_generation,"
    "release_id,mode,share,release_key}'::text[]"
)
_ENDING = "'{state,reason,ended_at,rolled_back_by_itself,revision}'::text[]"
_OWNER = (
    "pg_catalog.pg_has_role(current_user, "
    "(SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID), 'USAGE')"
)
# Table, name, events, at the commit, body.
_GUARDS = (
    ("routes", "guard_route", "UPDATE", False, _ROUTE),
    ("routes", "guard_route_recorded", "UPDATE", True, _ROUTE_RECORDED),
    ("releases", "guard_release", "UPDATE", False, _RELEASE),
    ("releases", "guard_release_left", "UPDATE", True, _RELEASE_LEFT),
    ("models", "guard_model", "UPDATE", False, _MODEL),
    ("models", "guard_model_held", "UPDATE", True, _MODEL_HELD),
    ("audit", "guard_audit", "INSERT", False, _AUDIT),
    ("audit", "guard_chain", "INSERT", True, _CHAIN),
    ("audit_head", "guard_head", "UPDATE", False, _HEAD),
    ("audit_head", "guard_head_there", "UPDATE", True, _HEAD_THERE),
)
_BODY = "LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $guard$ BEGIN {body} END $guard$"


def write_guards(connection: Connection, *, schema: str, worker: str | None) -> None:
    """Write the functions and triggers of the guards; `schema` is quoted, the rest is not."""
    literal = connection.dialect.identifier_preparer.quote_identifier
    refuse = "RAISE EXCEPTION USING MESSAGE = reason, ERRCODE = 'insufficient_privilege';"
    statements = [
        f"CREATE OR REPLACE FUNCTION {schema}.guard_refuse(reason text) RETURNS void "
        + _BODY.format(body=refuse)
    ]
    trusted = _OWNER
    if worker is not None:
        named = "'" + literal(worker).replace("'", "''") + "'::regrole"
        trusted = f"{_OWNER} OR pg_catalog.pg_has_role(current_user, {named}, 'USAGE')"
    for table, name, event, at_commit, body in _GUARDS:
        filled = body.format(
            schema=schema,
            free=_FREE,
            ending=_ENDING,
            owner=_OWNER,
            trusted=trusted,
            old_held=_OLD_HELD.format(schema=schema),
        )
        kind = (
            f"CREATE CONSTRAINT TRIGGER {name} AFTER {event} ON {schema}.{table} "
            "DEFERRABLE INITIALLY DEFERRED"
            if at_commit
            else f"CREATE TRIGGER {name} BEFORE {event} ON {schema}.{table}"
        )
        statements += [
            f"CREATE OR REPLACE FUNCTION {schema}.{name}() RETURNS trigger "
            + _BODY.format(body=filled),
            f"DROP TRIGGER IF EXISTS {name} ON {schema}.{table}",
            f"{kind} FOR EACH ROW EXECUTE FUNCTION {schema}.{name}()",
        ]
    for statement in statements:
        # As they are: the driver takes a single percent sign for a parameter, and there is none.
        connection.exec_driver_sql(statement)
