"""Answer a serving node over an inherited socket: one JSON line a question, one a reply.

Shipped in every Bento. A node whose own libraries or code differ from the Bento's starts this
file, with the Bento's sources as its path. The process ends when the node closes the socket, or
dies: nodes of other versions speak to it, so what is said over the socket only grows.

    python lane.py SOCKET_FILENO BUNDLE_FOLDER DIGEST
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from include.models.encoding import InvalidFeature
from include.models.kinds import ServedModel
from include.models.loading import load_model

read: Callable[[bytes], Any] = json.loads
with contextlib.suppress(ImportError):  # no Bento needs it, but every node that starts one has it
    import msgspec

    read = msgspec.json.decode  # in a quarter of the time

READ = 1 << 18  # bytes that are read at once: what came meanwhile is answered together
TOGETHER = 16  # replies by one write; more would keep the first one waiting


def answer(model: ServedModel, question: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one question: a score, a feature that is wrong, or why there is none.

    With a score goes the time that the model took, in microseconds.
    """
    began = time.perf_counter()
    try:
        score = _score(model, question["row"])
        micros = int((time.perf_counter() - began) * 1e6)
        return {"id": question["id"], "score": score, "micros": micros}
    except InvalidFeature as error:
        return {"id": question["id"], "feature": error.feature, "error": str(error)}
    except Exception as error:  # noqa: BLE001 - one question that fails is not to end the others
        return {"id": question["id"], "error": f"{type(error).__name__}: {error}"}


def _score(model: ServedModel, row: dict[str, Any]) -> float:
    """Return the probability of a row, by its values alone where the kind can: in half the time."""
    of_values = getattr(model, "of_values", None)
    if of_values is not None:
        try:
            values = [row[name] for name in model.features]
        except KeyError:
            pass  # the other way names what is missing
        else:
            return float(of_values(values))
    return float(model.one(row))


def main(arguments: Sequence[str]) -> int:
    """Load the model, ask its golden rows, then answer until the other end closes.

    The first line that is sent is how many golden rows there were and which features a row holds,
    or the error because of which the process ends.
    """
    with socket.socket(fileno=int(arguments[0])) as connection:

        def reply(*contents: dict[str, Any]) -> None:
            connection.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in contents))

        try:
            model = load_model(arguments[1], arguments[2])
            reply({"golden": model.check_golden(), "features": model.features})
        except Exception as error:  # noqa: BLE001 - whatever a Bento's model raises, the node must be told
            reply({"error": f"{type(error).__name__}: {error}"})
            return 1
        rest = b""
        while received := connection.recv(READ):
            *lines, rest = (rest + received).split(b"\n")
            for at in range(0, len(lines), TOGETHER):
                reply(*(answer(model, read(line)) for line in lines[at : at + TOGETHER]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
