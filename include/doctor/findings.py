"""What the doctor finds: one line a thing that was looked at, with a verdict and a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from include.config.settings import Settings
from include.object_stores import redacted

Verdict = Literal["ok", "warn", "fail"]
# User and password before the host, and what stands behind it: tokens are passed in either.
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"(://[^\s?]*)\?[^\s'\")]*")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing of one subject, such as the clock of the records, and what is to be done."""

    subject: str
    thing: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the settings of an installation, the clock of this machine, and how.

    `writes` allows the one probe that writes; `seconds` is for how long a server is waited for.
    """

    settings: Settings
    now: Callable[[], datetime]
    writes: bool = False
    seconds: float = 10.0


Check = Callable[[Patient], Iterator[Finding]]


class Subject:
    """Makes the findings of one subject."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ok(self, thing: str, found: str) -> Finding:
        """Return that a thing is as it should be."""
        return Finding(self.name, thing, "ok", found)

    def warn(self, thing: str, found: str, remedy: str) -> Finding:
        """Return that a thing works, and may not for long, or not for everybody."""
        return Finding(self.name, thing, "warn", found, remedy)

    def fail(self, thing: str, found: str, remedy: str) -> Finding:
        """Return that a thing keeps the installation from its work."""
        return Finding(self.name, thing, "fail", found, remedy)


def public(text: str) -> str:
    """Return text whose addresses have neither user, password nor query."""
    return _QUERY.sub(r"\1", _USER_INFO.sub("", text))


def first_line(error: BaseException) -> str:
    """Return the first line of an error, with its kind, without what nobody should see."""
    lines = redacted(str(error)).strip().splitlines()
    return public(f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__)


def clock_finding(
    subject: Subject, ahead: float, *, whose: str, tolerated: float, hurts: str
) -> Finding:
    """Return what a clock's difference to this machine's means; `ahead` is in seconds.

    `hurts` says what goes wrong with a clock that differs.
    """
    found = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) <= tolerated:
        return subject.ok("clock", found if abs(ahead) >= 0.1 else "as this machine's")
    remedy = f"set both by NTP (`timedatectl set-ntp true`): {hurts}"
    kind = subject.fail if abs(ahead) > 30 * tolerated else subject.warn
    return kind("clock", f"{whose} is {found}", remedy)
