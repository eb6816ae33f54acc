"""The parent's side of the child process that opens files whose content nobody trusts."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from include.config.settings import ROOT
from include.errors import SourceError
from include.processes import bare_environment

FILE_SECONDS = 900.0  # the child's own limit of processor time ends it earlier, as a rule


class FileReader:
    """A child process that opens foreign files.

    It is started with the first file, used for all, and ended with the block.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._count = 0

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """A temporary folder that lives as long as the reader."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="evergreen-read-"))
        return self._folder

    def read(
        self,
        path: Path,
        shown: str,
        kind: str,
        declared: list[str],
        dialect: dict[str, Any] | None = None,
        *,
        sheet: str | None = None,
        member: str | None = None,
    ) -> tuple[dict[str, Any], pa.Table]:
        """Have the child turn a file into text columns c0, c1, ...; return its answer and the rows.

        `shown` is the file's name in messages, `kind` its format or `zip` (see `formats`),
        `declared` the headers that are expected. Without a dialect, that of a CSV or a sheet is
        guessed; the answer says what it is. `sheet` and `member` say what to read of a workbook and
        of a zip archive.

        Raises:
            SourceError: the file is damaged, hostile, or killed the child.
        """
        self._count += 1
        out = self.folder / f"{self._count}.arrow"
        request: dict[str, Any] = {
            "path": str(path),
            "kind": kind,
            "declared": declared,
            "out": str(out),
            "temporary": str(self.folder),
            "dialect": dialect,
            "sheet": sheet,
            "member": member,
        }
        answer = self._ask(request, shown)
        if "error" in answer:
            raise SourceError(f"{shown}: {answer['error']}")
        if not answer["columns"]:
            return answer, pa.table({})
        with pa.memory_map(str(out)) as file:
            table = pa.ipc.open_file(file).read_all()
        out.unlink()  # the pages stay mapped for as long as the table lives
        return answer, table

    def _ask(self, request: dict[str, Any], shown: str) -> dict[str, Any]:
        """Send the child a line, and return the line that it answers."""
        child = self._child or self._start()
        stdin, stdout = child.stdin, child.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            ready = select.select([stdout], [], [], FILE_SECONDS)[0]
            line = stdout.readline() if ready else b""
        except BrokenPipeError:
            line, ready = b"", [stdout]
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._stop()
        if not ready:
            raise SourceError(
                f"{shown}: was not read within {FILE_SECONDS:.0f} s; split it into smaller files"
            )
        raise SourceError(
            f"{shown}: the reader died on it (exit {child.returncode}): damage in the file, or "
            "its limits of memory and time; export it again, or split it"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        # Neither secrets nor settings: the child is to know nothing that a hostile file could take.
        environment = bare_environment(PYTHONPATH=str(ROOT), PYTHONNOUSERSITE="1")
        # Not by `processes.start`: stdout has the answers alone, so stderr must not run into it.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "include.ingestion.file_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=environment,
        )
        return self._child

    def _stop(self) -> None:
        """End the child: the end of its stdin ends it, else it is killed."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
