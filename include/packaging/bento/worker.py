"""Answer a serving node over an inherited socket: one JSON line a question, one a reply.

Shipped in every Bento. A node whose own libraries or code differ from the Bento's starts this
file, with the Bento's sources as its path. The process ends when the node closes the socket, or
dies: nodes of other versions speak to it, so what is said over the socket only grows.

    python lane.py SOCKET_FILENO BUNDLE_FOLDER DIGEST
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from include.models.encoding import InvalidFeature
from include.models.kinds import ServedModel
from include.models.loading import load_model


def answer(model: ServedModel, question: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one question: a score, a feature that is wrong, or why there is none.

    With a score goes the time that the model took, in microseconds.
    """
    began = time.perf_counter()
    try:
        score = model.one(question["row"])
        micros = int((time.perf_counter() - began) * 1e6)
        return {"id": question["id"], "score": score, "micros": micros}
    except InvalidFeature as error:
        return {"id": question["id"], "feature": error.feature, "error": str(error)}
    except Exception as error:  # noqa: BLE001 - one question that fails is not to end the others
        return {"id": question["id"], "error": f"{type(error).__name__}: {error}"}


def main(arguments: Sequence[str]) -> int:
    """Load the model, ask its golden rows, then answer until the other end closes.

    The first line that is sent is how many golden rows there were and which features a row holds,
    or the error because of which the process ends.
    """
    with (
        socket.socket(fileno=int(arguments[0])) as connection,
        connection.makefile("rwb") as stream,
    ):

        def reply(content: dict[str, Any]) -> None:
            stream.write(json.dumps(content).encode() + b"\n")
            stream.flush()

        try:
            model = load_model(arguments[1], arguments[2])
            reply({"golden": model.check_golden(), "features": model.features})
        except Exception as error:  # noqa: BLE001 - whatever a Bento's model raises, the node must be told
            reply({"error": f"{type(error).__name__}: {error}"})
            return 1
        for line in stream:
            reply(answer(model, json.loads(line)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
