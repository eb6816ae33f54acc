"""A request as it is mirrored, and how much of a step is: to whom, how many at once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from include.deployment.release_plan import PAIRS_OF_ONE
from include.predictions.line import DEGRADED
from include.predictions.window_counts import CHALLENGER, CHAMPION
from include.serving.answer_log import Asked
from include.serving.assignment import WHOLE
from include.serving.predict import Features
from include.serving.prediction_request import CheckedRequest
from include.serving.snapshot import Loaded, Served, ServedRelease

MAX_SENT, FIRST_SENT = 128, 4  # that are on their way, and before any was answered
SECONDS = (
    2.0  # for an answer in a shadow step, where no caller's answer comes from the same process
)
# In a canary step a caller's question may stand behind them.
CANARY_SENT, CANARY_SECONDS = 1, 0.1
MAX_COUNTED = 65_536  # entities whose pairs are counted; beyond, all are forgotten
LEAST_SHARE = 100
BATCH_ROWS = 32  # of a batch the first so many
_encode = msgspec.json.Encoder().encode


class Mirrored(msgspec.Struct, gc=False):
    """A request that was answered: what the model was asked, and its score.

    `content` is the row that it was asked, as JSON; `sent` the part of it that came with the
    request, None where all came from the online store. `answered` is the arm that answered: the
    model of the other one is asked behind it.
    """

    served: Served
    asked: Asked
    entity: int | str | None
    content: bytes
    sent: bytes | None
    score: float
    answered: str = CHAMPION

    @property
    def behind(self) -> str:
        """The arm whose model is asked behind the answer."""
        return CHALLENGER if self.answered == CHAMPION else CHAMPION


@dataclass(slots=True)
class Step:
    """What is mirrored of a use case in a step of a release; the numbers are since its start.

    `waiting` are those not sent yet, `sent` are on their way; `micros` is about the time that the
    model takes. `is_plain` holds for `models`, champion and challenger, by the arm that answered:
    its row has all that the other one reads. `paired` counts the requests of each entity in a step
    with a share: more of one say no more, and few entities send most of the requests.
    """

    key: tuple[str, int]
    mode: str | None
    share: int
    sent: int = 0
    micros: float = 0.0
    models: tuple[Loaded | None, Loaded | None] = (None, None)
    is_plain: dict[str, bool] = field(default_factory=dict)
    paired: dict[int | str, int] = field(default_factory=dict)
    waiting: deque[Mirrored] = field(default_factory=deque)
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    shown: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(cls, release: ServedRelease) -> Step:
        """Return the step of a release as it begins."""
        share = WHOLE if release.mode == "shadow" else release.pairs
        return cls((release.id, release.step), release.mode, share)

    @property
    def seconds(self) -> float:
        """How long an answer is waited for."""
        return SECONDS if self.mode == "shadow" else CANARY_SECONDS

    @property
    def room(self) -> int:
        """How many more may be on their way now."""
        if self.mode != "shadow":
            return max(0, CANARY_SENT - self.sent)
        most = min(MAX_SENT, FIRST_SENT + 2 * (self.answered + self.failed))
        in_time = int(self.seconds / 2 * 1e6 / self.micros) if self.micros else most
        return max(0, max(1, min(most, in_time)) - self.sent)

    def takes(self, one: Mirrored, release: ServedRelease) -> bool:
        """Tell whether a request is asked of the other model too: by whose it is."""
        if not is_chosen(one, release, self.share):
            return False
        if self.mode == "shadow" or one.entity is None:  # without one, each is one of its own
            return True
        return self.paired.get(one.entity, 0) < PAIRS_OF_ONE

    def wait(self, one: Mirrored) -> None:
        """Let a request wait for its turn."""
        self.waiting.append(one)
        if self.mode != "shadow" and one.entity is not None:
            if len(self.paired) >= MAX_COUNTED:
                self.paired.clear()
            self.paired[one.entity] = self.paired.get(one.entity, 0) + 1

    def describe(self) -> dict[str, object]:
        """Return it as the health page has it; the share is in percent."""
        return {
            "share": self.share / 100,
            "answered": self.answered,
            "failed": self.failed,
            "dropped": self.dropped,
        }


def mirrored_of(
    served: Served,
    asked: Asked,
    request: CheckedRequest,
    arm: str,
    features: Features,
    score: float,
) -> Mirrored | None:
    """Return a request that went the long way as it is mirrored.

    None: nothing is mirrored now, it was answered by another one than it was meant for, or without
    its features.
    """
    if served.release is None or not served.release.is_active:
        return None
    if arm != request.assigned or DEGRADED in features.flags:
        return None
    sent = None if request.row is None else _encode(request.row)
    content = features.content or _encode(features.row)
    return Mirrored(served, asked, request.entity, content, sent, score, arm)


def is_chosen(one: Mirrored, release: ServedRelease, share: int) -> bool:
    """Tell whether who asked is in a share of the entities, whichever arm they belong to."""
    if share >= WHOLE and not release.exclude:
        return True
    sample = release.sample
    place = sample.place_of_row(one.content) if one.entity is None else sample.place(one.entity)
    return place < share


def holds_all(answered: Loaded | None, asked: Loaded) -> bool:
    """Tell whether the row of the model that answered holds all that the other one reads."""
    if answered is None or answered.feature_set != asked.feature_set:
        return False
    has, reads = answered.scorer or answered.remote, asked.scorer or asked.remote
    return has is not None and reads is not None and set(reads.features) <= set(has.features)
