"""Package the judged candidate: a BentoML model and a Bento under an exact tag, tried as it will
run, and exported.

The tag names the model's and the code's digest, so the same model with the same code is the same
Bento, made once. It is built, served and asked its golden rows in a home of its own, then moved
into `<home>/bento` by renames; a receipt with the digests of all files comes last. What has no
receipt, or other files than its receipt says, is no Bento of ours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from include.config.settings import ROOT, Settings
from include.errors import ArtefactError, MissingPartition, Unavailable
from include.evaluation.verdict import judged_model, not_passed
from include.lake.digests import combine
from include.models import bundle, predictor
from include.packaging.bento_build import end_users
from include.pipeline.provenance import lock_digest
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.records.records import Model

log = logging.getLogger(__name__)

NAME = "package_model"
FIELDS: tuple[str, ...] = ("name",)
LIBRARIES: tuple[str, ...] = ("bentoml", "lightgbm", "numpy")

BUILD_SECONDS = 240.0
REQUIRED = ("lightgbm", "numpy")
_SHIPPED = {
    "service.py": "include/packaging/bento/service.py",
    # The name by which nodes of every version start it.
    "lane.py": "include/packaging/bento/worker.py",
    **{
        path: path
        for path in (
            "include/__init__.py",
            "include/errors.py",
            "include/models/__init__.py",
            "include/models/bundle.py",
            "include/models/encoding.py",
            "include/models/predictor.py",
        )
    },
}


@dataclass(frozen=True, slots=True)
class Package:
    """A Bento that is in place: its tags, where its export lies, and the digests of the files of
    all three.
    """

    bento_tag: str
    model_tag: str
    model_digest: str
    code_digest: str
    export: str
    files: dict[str, str]


def inputs(context: StageContext) -> list[Input]:
    """Return the verdict, what the partition is meant for, and the code that is shipped."""
    judged = context.result("evaluate_model")
    if judged is None or judged.state == "failed":
        raise MissingPartition(
            f"{context.use_case.name}: evaluate_model is not done for {context.key}; run "
            f"`evergreen run evaluate_model --use-case {context.use_case.name} --partition "
            f"{context.key}`",
            keys=(context.key,),
        )
    return [
        Input("evaluate_model", context.key, judged.digest),
        Input("partition", context.key, f"{context.mode}/{context.target}"),
        Input("serving code", context.key, serving_digest()),
    ]


def compute(context: StageContext) -> Outcome:
    """Package the partition's candidate, unless it was refused or is not to be deployed.

    Raises:
        ArtefactError: the bundle is damaged, or the Bento does not answer as its model does.
    """
    reason = _reason_to_skip(context)
    if reason is not None:
        # The digest is over what decides, never over how it is said.
        judged = context.result("evaluate_model")
        return Outcome(
            "skipped",
            combine(["skipped", context.mode, context.target, judged.digest if judged else ""]),
            reason,
        )
    model = judged_model(context)
    digest = (
        "sha256:" + hashlib.sha256(f"{model.model_digest}|{serving_digest()}".encode()).hexdigest()
    )
    if context.rehearsal:
        bundle.verify_bundle(model.bundle, model.model_digest)
        return Outcome("done", digest)
    package = ensure(context, model)
    outputs = {
        "bento_tag": package.bento_tag,
        "model_tag": package.model_tag,
        "bundle": model.bundle,
        "pins": predictor.serving_pins(),
        "export": package.export,
        "version": model.version,
    }

    def in_transaction(session: Session) -> None:
        context.records.models.update(
            model.use_case,
            model.version,
            session=session,
            bento_tag=package.bento_tag,
            pins=predictor.serving_pins(),
        )

    return Outcome("done", digest, outputs=outputs, in_transaction=in_transaction)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Look whether the Bento is still there and whole; make it again where it is not."""
    if outcome.state != "done":
        return {}
    return {"bento_tag": ensure(context, judged_model(context)).bento_tag}


def ensure(context: StageContext, model: Model) -> Package:
    """Return the package of a model, made now if it is not in place yet."""
    bundle.verify_bundle(model.bundle, model.model_digest)
    home = context.settings.home / "bento"
    there = find(context.settings, context.use_case.name, model.model_digest)
    if there is not None:
        return there
    staging = home / "staging" / f"{context.use_case.name}-{context.key}-{context.held.token}"
    _clear(staging.parent, f"{context.use_case.name}-{context.key}-")
    try:
        built = _build(context, model, staging)
        context.held.check()
        return _put_in_place(home, staging, model, built)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def find(here: Settings, use_case: str, model_digest: str) -> Package | None:
    """Return the package of a model with the code of now, or None where there is none, or it is
    not whole.
    """
    home = here.home / "bento"
    try:
        package = Package(
            **json.loads(_receipt(home, use_case, _version(model_digest)).read_text())
        )
        return (
            package
            if package.files == _digests(home, package.bento_tag, package.model_tag, package.export)
            else None
        )
    except (OSError, ValueError, TypeError):
        return None


def serving_digest() -> str:
    """Return the digest of what is shipped in a Bento beside the model, and of what it needs."""
    parts = [
        f"{name}:{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}"
        for name, path in sorted(_SHIPPED.items())
    ]
    return "sha256:" + hashlib.sha256("\n".join([*parts, *requirements()]).encode()).hexdigest()


def requirements() -> list[str]:
    """Return the libraries of a Bento with the versions that are installed here; BentoML adds
    itself.
    """
    return [f"{name}=={version_of(name)}" for name in REQUIRED]


def _reason_to_skip(context: StageContext) -> str | None:
    if context.mode != "live":
        return f"{context.key} is recorded as {context.mode}: it is judged, never packaged"
    if context.target != "deployed":
        return f"{context.key} has the target {context.target}, not deployed"
    return not_passed(context.result("evaluate_model"))


def _version(model_digest: str) -> str:
    """Return the version part of the tags: which model, by which code."""
    model, code = (digest.removeprefix("sha256:") for digest in (model_digest, serving_digest()))
    return f"{model[:16]}-{code[:8]}"


def _build(context: StageContext, model: Model, staging: Path) -> dict[str, str]:
    """Let a child build, try and export the Bento in the staging home; it ends when this process
    does.
    """
    build = staging / "context"
    for name, path in _SHIPPED.items():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, build / name)
    (build / "requirements.txt").write_text("\n".join(requirements()) + "\n")
    order = {
        "staging": str(staging),
        "context": str(build),
        "bundle": model.bundle,
        "digest": model.model_digest,
        "model_version": model.version,
        "model_name": f"{context.use_case.name}_model",
        "bento_name": f"{context.use_case.name}_scorer",
        "version": _version(model.model_digest),
        "labels": {
            "use_case": context.use_case.name,
            "partition": context.key,
            "model_version": str(model.version),
            "model_digest": model.model_digest,
            "code_digest": serving_digest(),
            "pins": predictor.serving_pins(),
            "lock_digest": lock_digest(),
        },
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENTOML_HOME": str(staging / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_NUM_THREADS": "1",
    }
    with (staging / "build.log").open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "include.packaging.bento_build"],
            env=environment,
            cwd=staging,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
            child.wait(timeout=BUILD_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            log.warning("packaging of %s did not end in %.0f s", model.version, BUILD_SECONDS)
        finally:
            child.stdin.close()  # tells the child to end what it started
            _end(child)
            end_users(staging / "home")
    return _result(staging, model)


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _result(staging: Path, model: Model) -> dict[str, str]:
    try:
        result: dict[str, str] = json.loads((staging / "result.json").read_text())
    except (OSError, ValueError):
        lines = (staging / "build.log").read_text(errors="replace").strip().splitlines()[-5:]
        ending = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        raise Unavailable(
            f"packaging of model {model.version} died or hung; its log ends with:\n{ending}\nRun "
            "it again"
        ) from None
    if "error" in result:
        raise ArtefactError(f"model {model.version} is not packaged: {result['error']}")
    return result


def _put_in_place(home: Path, staging: Path, model: Model, built: dict[str, str]) -> Package:
    """Move what was built into the real home: model, Bento, export, each by one rename, and the
    receipt last.
    """
    exported = home / "exports" / Path(built["export"]).name
    moves = [
        (
            _folder(staging / "home", "models", built["model_tag"]),
            _folder(home, "models", built["model_tag"]),
        ),
        (
            _folder(staging / "home", "bentos", built["bento_tag"]),
            _folder(home, "bentos", built["bento_tag"]),
        ),
        (Path(built["export"]), exported),
    ]
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Left by a run that was killed, or damaged since: without a valid receipt.
        if target.is_dir():
            target.rename(staging / f"{target.parent.parent.name}-before")
        source.rename(target)
        if target.is_dir():
            _write(target.parent / "latest", target.name)
    package = Package(
        bento_tag=built["bento_tag"],
        model_tag=built["model_tag"],
        model_digest=model.model_digest,
        code_digest=serving_digest(),
        export=str(exported),
        files=_digests(home, built["bento_tag"], built["model_tag"], str(exported)),
    )
    _write(
        _receipt(home, model.use_case, _version(model.model_digest)),
        json.dumps(asdict(package), indent=1),
    )
    log.info("%s: model %d is packaged as %s", model.use_case, model.version, package.bento_tag)
    return package


def _folder(home: Path, kind: str, tag: str) -> Path:
    name, _, version = tag.partition(":")
    return home / kind / name / version


def _receipt(home: Path, use_case: str, version: str) -> Path:
    return home / "receipts" / f"{use_case}-{version}.json"


def _digests(home: Path, bento_tag: str, model_tag: str, export: str) -> dict[str, str]:
    """Return the digest of every file of a package."""
    found = {}
    for root in (
        _folder(home, "bentos", bento_tag),
        _folder(home, "models", model_tag),
        Path(export),
    ):
        files = (
            [root]
            if root.is_file()
            else [path for path in sorted(root.rglob("*")) if path.is_file()]
        )
        for path in files:
            if "__pycache__" not in path.parts:
                found[str(path.relative_to(home))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _clear(folder: Path, prefix: str) -> None:
    """Remove what earlier tries of the same partition left; whoever holds the lease is alone."""
    for path in folder.glob(f"{prefix}*"):
        end_users(path / "home")
        shutil.rmtree(path, ignore_errors=True)


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
)
