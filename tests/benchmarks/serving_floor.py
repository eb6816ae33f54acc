"""The floor of serving: a bare ASGI application on uvicorn that asks LightGBM for one row.

It decodes the features by one msgspec struct, fills a buffer, makes LightGBM's C call for a single
row and answers the score. It has no route, no identity, no log, no check and no counter. What is
measured is compared with it: it stays as it is.

    python -m tests.benchmarks.serving_floor PORT MODEL_FILE FEATURE...
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvicorn


def application(model_file: Path, names: list[str]) -> Any:
    """Return the ASGI application."""
    package = importlib.util.find_spec("lightgbm")
    assert package is not None
    assert package.origin is not None
    library = ctypes.PyDLL(str(Path(package.origin).parent / "lib/lib_lightgbm.so"))
    booster, fast, rounds = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    text = model_file.read_bytes()
    library.LGBM_BoosterLoadModelFromString(text, ctypes.byref(rounds), ctypes.byref(booster))
    parameters = b"num_threads=1 verbosity=-1"
    width = ctypes.c_int32(len(names))
    library.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster, 1, 0, -1, 1, width, parameters, ctypes.byref(fast)
    )
    row, score, length = (
        (ctypes.c_double * len(names))(),
        (ctypes.c_double * 1)(),
        ctypes.c_int64(),
    )
    features = msgspec.defstruct("Features", [(name, float) for name in names])
    body = msgspec.defstruct("Body", [("features", features)])
    decode, encode = msgspec.json.Decoder(body).decode, msgspec.json.Encoder().encode
    values_of, out = msgspec.structs.astuple, ctypes.byref(length)
    ask = library.LGBM_BoosterPredictForMatSingleRowFast

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        row[:] = values_of(decode(message["body"]).features)  # type: ignore[attr-defined]
        ask(fast, row, out, score)
        content = encode({"score": 1.0 / (1.0 + math.exp(-score[0]))})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return answer


def main(words: list[str]) -> None:
    """Serve until a signal."""
    app = application(Path(words[1]), words[2:])
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        port=int(words[0]),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
