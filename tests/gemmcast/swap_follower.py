"""A process that predicts from a model directory while test_gemmcast_swap.py pushes models.

    swap_follower.py DIRECTORY PREDICTIONS LAST_VERSION

Prints a JSON line when it first sees a version, and one at the end: every distinct answer to every
query, by version, and how many predictions failed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gemmcast import Gemm, KernelConfig, Predictor, memo

QUERIES = [
    (Gemm(m=64 * i + 1, n=100, k=30 * i + 2), KernelConfig(family="tiled", tile_m=i + 1, tile_n=16))
    for i in range(8)
]
DEADLINE_S = 800.0
# No query is remembered until it comes again: each prediction runs the model.
memo.KEPT = 1


def main(directory: Path, predictions: int, last_version: str) -> None:
    end_s, version, done, failures = time.monotonic() + DEADLINE_S, "", 0, []
    answers: set[tuple[str, int, tuple[float | None, ...]]] = set()
    with Predictor(directory) as predictor:
        while (done < predictions or version != last_version) and time.monotonic() < end_s:
            number = done % len(QUERIES)
            done += 1
            try:
                p = predictor.predict(*QUERIES[number], "GPU A")
            except Exception as error:  # noqa: BLE001, whatever it is, the test must see it
                failures.append(repr(error))
                continue
            if p.model_version != version:
                version = p.model_version
                print(json.dumps({"version": version}), flush=True)
            answers.add(
                (
                    version,
                    number,
                    (p.runtime_us, p.tflops, p.sustained_runtime_us, p.power_w, p.energy_mj),
                )
            )
    print(
        json.dumps({"done": done, "failures": failures[:5], "answers": sorted(answers)}), flush=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
