"""Examine the files of the use cases: whether each can be read, as whoever runs it will."""

from __future__ import annotations

from collections.abc import Iterator

from include.config.use_case_file import files, find
from include.doctor.findings import Finding, Patient, Subject
from include.errors import ConfigError


def examine(patient: Patient) -> Iterator[Finding]:
    """Load every file; name what is wrong with each that cannot be."""
    subject, folders = Subject("use cases"), patient.settings.usecase_dirs
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        remedy = "make it, or mend EVERGREEN_USECASES"
        yield subject.fail("folders", f"no folder {', '.join(missing)}", remedy)
    good = []
    for name in sorted({path.stem for path in files(folders)}):
        try:
            find(name, folders)
            good.append(name)
        except ConfigError as error:
            yield subject.fail(name, str(error)[:600], f"`evergreen usecase check {name}`")
    yield subject.ok("files", ", ".join(good) or f"none in {patient.settings.usecases}")
