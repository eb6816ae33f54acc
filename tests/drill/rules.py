"""Cases of what may be released, who is in whose share, and what comes after an end."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from include.clock import utc_now
from include.errors import ArtefactError, Conflict
from include.models.private_key import rotate, signing_id
from include.models.public_keys import read_keys, revoke, write_key
from tests.builders.serving import NAME, until
from tests.drill.clinic import FIRST, FULL, STEPS
from tests.drill.stack import Stack
from tests.drill.traffic import ENTITIES


def damaged(stack: Stack) -> str:
    version = stack.candidate()
    path = stack.desk.settings.home / "models" / str(version) / "model.txt"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with contextlib.suppress(ArtefactError):
        stack.deploy()
    return stack.until_ended()


def unsigned(stack: Stack) -> str:
    """Neither the stage nor, where somebody writes the release by hand, a node takes it."""
    version = stack.candidate()
    records = stack.desk.records
    records.models.update(NAME, version, signature=None)
    with pytest.raises(Conflict, match="not signed"):
        stack.deploy()
    assert stack.newest is None
    stack.request_by_hand()

    def is_refused() -> bool:
        reports = [one for one in records.nodes.of(NAME) if one.version == version]
        return len(reports) == 2 and all(one.state == "refused" for one in reports)

    until(is_refused, what="both nodes' refusal")
    assert stack.traffic.answered_by(version) == 0
    with pytest.raises(ArtefactError, match="not signed"):
        stack.deploy()
    return stack.until_ended()


def key_revoked(stack: Stack) -> str:
    """The key of the challenger alone is revoked while it has a quarter of the traffic."""
    settings = stack.desk.settings
    key, _ = rotate(settings, utc_now())
    version = stack.release()
    stack.until_step(FULL)
    stack.harm()
    folder = settings.signing_keys_folder
    revoke(folder, key, at=utc_now(), actor="drill", reason="stolen")
    try:
        ended = stack.until_ended()
        stack.until_without(version)
    finally:
        rotate(settings, utc_now())
    return ended


def key_expired(stack: Stack) -> str:
    """It releases nothing any more; what it has signed goes on, also through a restart."""
    settings, champion = stack.desk.settings, stack.answering
    stack.candidate()
    folder = settings.signing_keys_folder
    signing = signing_id(settings)
    assert signing is not None
    expired = replace(read_keys(folder).keys[signing], expires_at=utc_now() + timedelta(seconds=1))
    write_key(folder, expired)
    time.sleep(2.0)
    stack.harm()
    try:
        with pytest.raises(Conflict, match="expired"):
            stack.deploy()
        assert stack.newest is None
        node = stack.nodes[0]
        node.stop(signal.SIGTERM)
        node.start()
        until(lambda: stack.answering == champion, what="the champion, signed before")
    finally:
        rotate(settings, utc_now())
    return "refused"


def held_again(stack: Stack) -> str:
    """What was rolled back is not released again, whatever number it has now."""
    version = stack.release()
    stack.until_step(0)
    stack.desk.records.releases.roll_back(
        stack.under_way, "a person says so", stack.entry("release.rolled_back", str(version), "bad")
    )
    ended = stack.until_ended()
    stack.version += 1
    stack.desk.candidate(stack.version, stack.key, seed=version)
    try:
        outcome = stack.deploy()
    except Conflict:
        outcome = "refused"
    assert outcome in ("held", "refused"), outcome
    assert stack.newest is None, "a release began of a digest on hold"
    return ended


def aborted_again(stack: Stack) -> str:
    """A release that a person ends leaves no share and no hold; its digest may start again."""
    version = stack.release()
    stack.until_step(FIRST)
    entry = stack.entry("release.aborted", str(version), "a person's wish")
    stack.desk.records.releases.abort(stack.under_way, "a person's wish", entry)
    route = stack.desk.records.routes.get(NAME)
    assert (route.challenger, route.share, route.mode) == (None, 0, None)
    digest = stack.desk.bundle_digest(version)
    assert digest not in route.held
    stack.version += 1
    stack.desk.candidate(stack.version, stack.key, seed=version)
    stack.deploy()
    stack.until_step(0)
    return stack.until_ended()


def sticky(stack: Stack) -> str:
    """Both nodes have the same entities in the challenger's share, which only grows; not all."""
    excluded = [0, 1, 2, 3]  # those that ask most
    stack.change_plan(exclude=str(excluded), steps=STEPS.replace("4s", "10s"))
    version = stack.release()
    seen = []
    for step, share in ((FIRST, 0.05), (FULL, 0.25)):
        stack.until_step(step)
        here, there = (stack.answered_by(node, version) for node in stack.nodes)
        release = stack.newest
        assert release is not None
        if release.step == step:
            assert here == there, f"step {step}: the nodes differ in {sorted(here ^ there)}"
            assert abs(len(here) / ENTITIES - share) < 0.05, f"step {step}: {len(here)} entities"
            seen.append(here)
    assert len(seen) == 2, "the steps were too short to look at them"
    assert seen[0] <= seen[1], f"{sorted(seen[0] - seen[1])} went home when the share grew"
    assert not seen[1] & set(excluded), "an excluded entity was answered by the challenger"
    return stack.until_ended()


def newer_waits(stack: Stack) -> str:
    """A newer candidate waits; it is judged again and starts when the release before has ended."""
    older = stack.release()
    stack.until_step(0)
    newer = stack.release()
    release = stack.newest
    assert release is not None
    assert release.state == "waiting", release.state
    stack.version = older
    ended = stack.until_ended()
    stack.version = newer
    assert ended in ("promoted", "watched"), ended
    with pytest.raises(Conflict, match="judge it again"):
        stack.deploy()
    stack.judge_again()
    stack.deploy()
    return stack.until_ended()


def frozen(stack: Stack) -> str:
    """No release starts in a freeze; once it is lifted, it does."""
    releases = stack.desk.records.releases
    until_then = releases.now() + timedelta(hours=1)
    releases.freeze(NAME, until_then, stack.entry("release.frozen", "", "holidays"))
    version = stack.candidate()
    try:
        assert stack.deploy() == "waiting"
        assert stack.desk.records.routes.get(NAME).challenger is None
    finally:
        releases.thaw(NAME, stack.entry("release.thawed", "", "over"))
    stack.deploy()
    assert stack.version == version
    return stack.until_ended()
