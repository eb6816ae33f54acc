"""What a Bento holds beside the model: the code that loads it, and the libraries that it needs."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from include.config.settings import ROOT
from include.models import pins
from include.models.kinds import ModelKind
from include.syntax import file_digest

# By the name in the Bento; what a kind adds is shipped under its own path.
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
            "include/models/kinds.py",
            "include/models/loading.py",
            *pins.COMMON,
        )
    },
}


def shipped_files(kind: ModelKind) -> dict[str, str]:
    """Return what a Bento holds beside the model: the name there, and the source in this tree."""
    return _SHIPPED | {path: path for path in kind.modules}


def serving_digest(kind: ModelKind) -> str:
    """Return the digest of what is shipped beside a model of a kind, and of what it needs.

    It counts what the code does, not what it says: a Bento with another comment is the same Bento.
    """
    parts = [
        f"{name}:{file_digest(ROOT / path)}" for name, path in sorted(shipped_files(kind).items())
    ]
    return "sha256:" + hashlib.sha256("\n".join([*parts, *requirements(kind)]).encode()).hexdigest()


def requirements(kind: ModelKind) -> list[str]:
    """Return the libraries of a Bento in the versions installed here; BentoML adds itself."""
    return [f"{name}=={version(name)}" for name in kind.requirements]


def version_part(model_digest: str, kind: ModelKind) -> str:
    """Return the version part of the tags: which model, by which code."""
    model, code = (
        digest.removeprefix("sha256:") for digest in (model_digest, serving_digest(kind))
    )
    return f"{model[:16]}-{code[:8]}"
