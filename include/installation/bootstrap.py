"""Install Evergreen into .venv.

`make install` starts it with any Python, so it needs nothing but the standard library. uv comes
from the package index, pinned by hash, and brings exactly what the lock says. A stamp with the
digest of the lock is written last: without it the installation is not finished, and the next `make`
repairs it.

    python3 -I include/installation/bootstrap.py [--dev] [--lock]
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
UV_HOME = VENV / ".uv"
LOCKS = {"base": "requirements.txt", "dev": "requirements-dev.txt"}
# In this order: each is bound by the one before it.
LOCKED = ("requirements-uv", "requirements", "requirements-compose", "requirements-dev")
FIRST, LAST = (3, 11), (3, 13)
LAUNCHER = """#!{python}
import sys

from include.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
"""


def main(arguments: list[str]) -> int:
    """Install, or with --lock write the locks anew; return the exit code."""
    unknown = [argument for argument in arguments if argument not in ("--dev", "--lock")]
    if unknown:
        return refuse(f"unknown argument {unknown[0]}; there are --dev and --lock")
    if not FIRST <= sys.version_info[:2] <= LAST:
        return refuse(
            f"this is Python {sys.version.split()[0]}; Evergreen needs 3.11 to 3.13. Name one: "
            "make install PYTHON=python3.12"
        )
    wanted = "dev" if "--dev" in arguments else "base"
    try:
        if "--lock" in arguments:
            ensure_venv()
            return lock()
        if is_installed(wanted):
            return 0
        STAMP.unlink(missing_ok=True)
        ensure_venv()
        sync(wanted)
        link()
        STAMP.write_text(json.dumps(state(wanted)))
    except subprocess.CalledProcessError as error:
        name = Path(error.cmd[0]).name
        return refuse(
            f"`{name}` failed (code {error.returncode}); see above, then run `make install` again"
        )
    except OSError as error:
        return refuse(
            f"{error}; check the disk and the owner of {ROOT}, then run `make install` again"
        )
    return 0


def refuse(reason: str) -> int:
    """Say why nothing is installed; return the exit code."""
    sys.stderr.write(f"install: {reason}\n")
    return 1


def print_line(text: str) -> None:
    """Write a line of progress, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def state(wanted: str) -> dict[str, str]:
    """Return what a finished installation is made of: the digests of its locks, and its place."""
    names = ["base", "dev"] if wanted == "dev" else ["base"]
    digests = {
        name: hashlib.sha256((ROOT / LOCKS[name]).read_bytes()).hexdigest() for name in names
    }
    return dict(digests, root=str(ROOT))


def is_installed(wanted: str) -> bool:
    """Tell whether the finished installation is of these very locks."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    return python().exists() and all(
        stamp.get(name) == value for name, value in state(wanted).items()
    )


def python() -> Path:
    """Return the interpreter of .venv."""
    return VENV / "bin" / "python"


def ensure_venv() -> None:
    """Make .venv, anew where it is damaged, was moved here, or has a Python that does not fit."""
    probe = (
        "import sys; print(sys.version_info[:2] >= (3, 11) and sys.version_info[:2] <= (3, "
        "13) and sys.prefix)"
    )
    if python().exists():
        answer = subprocess.run(
            [str(python()), "-I", "-c", probe],
            capture_output=True,
            text=True,
            env=clean(),
            check=False,
        )
        # A venv that was copied or moved names its old place as its prefix.
        if answer.returncode or answer.stdout.strip() != str(VENV):
            shutil.rmtree(VENV)
    if not python().exists() or not (VENV / "bin" / "pip").exists():
        run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def uv() -> str:
    """Return uv of the pinned version, fetched by pip where it is not there yet."""
    pin = (ROOT / "requirements-uv.txt").read_bytes()
    digest = hashlib.sha256(pin).hexdigest()
    mark = UV_HOME / ".pin"
    if not mark.exists() or mark.read_text() != digest:
        shutil.rmtree(UV_HOME, ignore_errors=True)
        pip = [str(python()), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        pip += ["--require-hashes", "--only-binary", ":all:", "--target", str(UV_HOME)]
        run([*pip, "-r", str(ROOT / "requirements-uv.txt")])
        mark.write_text(digest)
    return str(UV_HOME / "bin" / "uv")


def sync(wanted: str) -> None:
    """Make .venv hold exactly what the lock says, bytecode compiled in parallel."""
    print_line(f"installing {LOCKS[wanted]} into {VENV} (a minute or two)")
    command = [
        uv(),
        "pip",
        "sync",
        "-q",
        "--require-hashes",
        "--compile-bytecode",
        "--python",
        str(python()),
    ]
    run([*command, str(ROOT / LOCKS[wanted])])


def link() -> None:
    """Put the project on the path and `evergreen` into bin; there is nothing to build."""
    site = subprocess.run(
        [str(python()), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(site.stdout.strip()) / "evergreen.pth").write_text(f"{ROOT}\n")
    launcher = VENV / "bin" / "evergreen"
    launcher.write_text(LAUNCHER.format(python=python()))
    launcher.chmod(0o755)
    run(
        [
            str(python()),
            "-m",
            "compileall",
            "-q",
            "-j",
            "0",
            str(ROOT / "include"),
            str(ROOT / "dags"),
        ]
    )


def lock() -> int:
    """Write the locks anew, for all platforms and Pythons; first the one of uv itself."""
    command = [
        uv(),
        "pip",
        "compile",
        "--universal",
        "--generate-hashes",
        "--python-version",
        "3.11",
        "-q",
    ]
    for name in LOCKED:
        run([*command, f"{name}.in", "-o", f"{name}.txt"])
    return 0


def run(command: list[str]) -> None:
    """Run a command in the project's folder, its output on this terminal.

    Raises:
        CalledProcessError: it fails.
    """
    subprocess.run(command, check=True, cwd=ROOT, env=clean())


def clean() -> dict[str, str]:
    """Return the environment without what would make this Python, pip or uv look elsewhere."""
    dropped = {
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONDONTWRITEBYTECODE",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PIP_TARGET",
        "PIP_USER",
    }
    return {name: value for name, value in os.environ.items() if name not in dropped}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
