"""Stage `package_model`: make the judged candidate a Bento that was tried as it will run.

Inputs: the verdict, the bundle, the code that is shipped. Outputs: a BentoML model and a Bento
under exact tags, an export (one file) and a receipt, all in `<home>/bento`; export and receipt also
in the store of artefacts, from which nodes of other machines take them; and the signature in the
model's row, by the key of this installation: without one nothing is packaged.

The tag names the model's and the code's digest, so the same model with the same code is the same
Bento, made once. It is built, served and asked its golden rows in a home of its own, then moved
into `<home>/bento` by renames; a receipt with the digests of all files comes last. What has no
receipt, or other files than its receipt says, is no Bento of ours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from include.clock import utc_now
from include.config.no_telemetry import QUIET
from include.config.settings import ROOT
from include.errors import ArtefactError, EvergreenError, MissingPartition, Unavailable
from include.evaluation.verdict import judged_model, not_passed
from include.lake.digests import combine
from include.models import bundle
from include.models.artefact import artefact_digest, refuse_collected
from include.models.bento_archive import place_from_store, put_bento
from include.models.bento_sources import (
    read_sources,
    receipt_path,
    sources_digest,
    sources_folder,
)
from include.models.kinds import ModelKind, every_kind, kind_in, serving_libraries
from include.models.pins import serving_pins
from include.models.presence import find_bundle
from include.models.private_key import open_signer
from include.models.signing import (
    BEGUN,
    SIGNED,
    needs_signature,
    sign_here,
    signed_columns,
    signed_details,
)
from include.packaging.bento_build import end_users
from include.packaging.packages import Package, find_package, put_in_place
from include.packaging.shipped import requirements, serving_digest, shipped_files, version_part
from include.pipeline.provenance import lock_digest
from include.pipeline.release_outputs import PackageOutputs
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.processes import bare_environment, python_module, start
from include.records.records import AuditEntry, Model

log = logging.getLogger(__name__)

NAME = "package_model"
FIELDS: tuple[str, ...] = ("name",)
LIBRARIES: tuple[str, ...] = ("bentoml", *serving_libraries())

BUILD_SECONDS = 240.0


def inputs(context: StageContext) -> list[Input]:
    """Return the verdict, what the partition is meant for, and the code that is shipped.

    Raises:
        MissingPartition: the partition is not judged.
    """
    judged = context.result("evaluate_model")
    if judged is None or judged.state == "failed":
        raise MissingPartition(
            f"{context.use_case.name}: evaluate_model is not done for {context.key}; run "
            f"`evergreen run evaluate_model --use-case {context.use_case.name} --partition "
            f"{context.key}`",
            keys=(context.key,),
        )
    # Of every kind: which one the model is of stands in its bundle, which is not opened to ask.
    code = combine([serving_digest(kind) for kind in every_kind()])
    return [
        Input("evaluate_model", context.key, judged.digest),
        Input("partition", context.key, f"{context.mode}/{context.target}"),
        Input("serving code", context.key, code),
    ]


def compute(context: StageContext) -> Outcome:
    """Package the partition's candidate, unless it was refused or is not to be deployed.

    Raises:
        ArtefactError: the bundle is damaged, or the Bento does not answer as its model does.
        ConfigError: there is no key here to sign it by.
        Conflict: that key has ended.
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
    kind, _ = _verified(context, model)
    content = f"{model.model_digest}|{serving_digest(kind)}"
    digest = "sha256:" + hashlib.sha256(content.encode()).hexdigest()
    if context.rehearsal:
        return Outcome("done", digest)
    open_signer(context.settings, utc_now())  # before the minutes that a build takes
    package, uri = ensure_package(context, model)
    outputs = PackageOutputs(
        bento_tag=package.bento_tag,
        model_tag=package.model_tag,
        bundle=model.bundle,
        pins=serving_pins(kind),
        export=str(context.settings.home / "bento" / package.export),
        bento_uri=uri,
        version=model.version,
    )
    code = read_sources(sources_folder(context.settings.home, package.bento_tag))
    code_digest = sources_digest(code)

    whole = artefact_digest(model.model_digest, code_digest, serving_pins(kind))
    packaged = replace(
        model,
        bento_tag=package.bento_tag,
        bento_digest=code_digest,
        bento_uri=uri,
        pins=serving_pins(kind),
        artefact_digest=whole,
    )
    signed = sign_here(context.settings, packaged, at=utc_now(), signed_as="packaging")

    def in_transaction(session: Session) -> None:
        _record(
            context,
            signed,
            session,
            bento_tag=signed.bento_tag,
            bento_digest=signed.bento_digest,
            bento_uri=signed.bento_uri,
            pins=signed.pins,
            artefact_digest=signed.artefact_digest,
        )

    return Outcome("done", digest, outputs=outputs.plain(), in_transaction=in_transaction)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Look whether the Bento is still there and whole; make it again where it is not."""
    if outcome.state != "done":
        return {}
    model = judged_model(context)
    package, uri = ensure_package(context, model)
    # Before the first run of a partition is recorded, its row names no package yet.
    if model.bento_tag == package.bento_tag and model.bento_uri != uri:
        context.records.models.update(model.use_case, model.version, bento_uri=uri)
    effected = {"bento_tag": package.bento_tag}
    if model.bento_tag == package.bento_tag and needs_signature(context.settings, model, utc_now()):
        signed = sign_here(context.settings, model, at=utc_now(), signed_as="packaging")
        context.records.write(lambda session: _record(context, signed, session))
        effected["signed_by"] = str(signed.signing_key)
    return effected


def _record(context: StageContext, signed: Model, session: Session, **columns: Any) -> None:
    """Put a signature on record: in the model's row and, by whom and when, in the audit log."""
    context.records.models.update(
        signed.use_case, signed.version, session=session, **columns, **signed_columns(signed)
    )
    at, details = utc_now(), {"partition": context.key, **signed_details(signed)}
    subject = (signed.use_case, str(signed.version), context.actor)
    once = f"{SIGNED} {signed.use_case} {signed.version} {signed.signature}"
    begun = AuditEntry(BEGUN, *subject, {}, at, once=BEGUN)
    for entry in (begun, AuditEntry(SIGNED, *subject, details, at, once=once)):
        context.records.audit.append(entry, session=session)


def ensure_package(context: StageContext, model: Model) -> tuple[Package, str]:
    """Return the package of a model and its address, made now if it is not in place yet.

    Raises:
        ArtefactError: the bundle is damaged, or the Bento does not answer as its model does.
        Unavailable: the build died or hung, or the store cannot be written.
    """
    kind, folder = _verified(context, model)
    package = _find(context, model, kind)
    if package is None:
        package = _make(context, model, kind, folder)
    settings = context.settings
    receipt = receipt_path(
        settings.home, context.use_case.name, package.bento_tag.partition(":")[2]
    )
    export = settings.home / "bento" / package.export
    return package, put_bento(context.store, context.use_case.name, export, receipt)


def _find(context: StageContext, model: Model, kind: ModelKind) -> Package | None:
    """Return the package that is in place here, or in the store by the code of now."""
    settings, name = context.settings, context.use_case.name
    package = find_package(settings, name, model.model_digest, kind)
    tag = f"{name}_scorer:{version_part(model.model_digest, kind)}"
    if package is not None or model.bento_uri is None or model.bento_tag != tag:
        return package
    try:
        place_from_store(context.store, name, tag, model.bento_uri)
    except EvergreenError as error:  # it can be made again
        log.warning("%s: bento %s is made anew: %s", name, tag, error)
        return None
    return find_package(settings, name, model.model_digest, kind)


def _make(context: StageContext, model: Model, kind: ModelKind, folder: str) -> Package:
    """Build a package in a home of its own and put it in place."""
    home = context.settings.home / "bento"
    staging = home / "staging" / f"{context.use_case.name}-{context.key}-{context.held.token}"
    _clear(staging.parent, f"{context.use_case.name}-{context.key}-")
    try:
        built = _build(context, model, kind, staging, folder)
        context.held.check()
        return put_in_place(home, staging, model, kind, built)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _verified(context: StageContext, model: Model) -> tuple[ModelKind, str]:
    """Return the kind of a model whose bundle is the recorded one, and where that is here."""
    refuse_collected(model)
    folder = find_bundle(context.store, model)
    return kind_in(bundle.verify_bundle(folder, model.model_digest)[bundle.SCHEMA]), folder


def _reason_to_skip(context: StageContext) -> str | None:
    """Return why the partition's candidate is not packaged, or None if it is to be."""
    if context.mode != "live":
        return f"{context.key} is recorded as {context.mode}: it is judged, never packaged"
    if context.target != "deployed":
        return f"{context.key} has the target {context.target}, not deployed"
    return not_passed(context.result("evaluate_model"))


def _build(
    context: StageContext, model: Model, kind: ModelKind, staging: Path, folder: str
) -> dict[str, str]:
    """Let a child build, try and export the Bento in the staging home; it ends when we do."""
    build = staging / "context"
    for name, path in shipped_files(kind).items():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, build / name)
    (build / "requirements.txt").write_text("\n".join(requirements(kind)) + "\n")
    order = {
        "staging": str(staging),
        "context": str(build),
        "bundle": folder,
        "digest": model.model_digest,
        "model_version": model.version,
        "model_name": f"{context.use_case.name}_model",
        "bento_name": f"{context.use_case.name}_scorer",
        "version": version_part(model.model_digest, kind),
        "labels": {
            "use_case": context.use_case.name,
            "partition": context.key,
            "model_version": str(model.version),
            "model_digest": model.model_digest,
            "code_digest": serving_digest(kind),
            "pins": serving_pins(kind),
            "lock_digest": lock_digest(),
        },
    }
    with (staging / "build.log").open("wb") as output:
        child = start(
            python_module("include.packaging.bento_build"),
            environment=_builder_environment(staging),
            folder=staging,
            log=output,
            stdin=subprocess.PIPE,
        )
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
            child.wait(timeout=BUILD_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            log.warning("packaging of %s did not end in %.0f s", model.version, BUILD_SECONDS)
        finally:
            # Its end tells the child to end what it started; a killed parent closes it too.
            child.stdin.close()
            _end(child)
            end_users(staging / "home")
    return _result(staging, model)


def _builder_environment(staging: Path) -> dict[str, str]:
    """Return the environment of the child, which the server that it tries inherits: no secret."""
    own = {"PYTHONPATH": str(ROOT), "BENTOML_HOME": str(staging / "home"), "OMP_NUM_THREADS": "1"}
    return bare_environment(**own, **QUIET)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Give the child ten seconds to end what it started, then kill it."""
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _result(staging: Path, model: Model) -> dict[str, str]:
    """Return the tags and the export of what was built.

    Raises:
        ArtefactError: the Bento could not be built, or answers otherwise than its model.
        Unavailable: the child died, hung or was too slow.
    """
    try:
        result: dict[str, str] = json.loads((staging / "result.json").read_text())
    except (OSError, ValueError):
        lines = (staging / "build.log").read_text(errors="replace").strip().splitlines()[-5:]
        ending = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        raise Unavailable(
            f"packaging of model {model.version} died or hung; its log ends with:\n{ending}\nRun "
            "it again"
        ) from None
    if "too_slow" in result:
        raise Unavailable(
            f"model {model.version} is not packaged: {result['too_slow']}\nRun it again"
        )
    if "error" in result:
        raise ArtefactError(f"model {model.version} is not packaged: {result['error']}")
    return result


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
