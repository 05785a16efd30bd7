"""Nothing that runs beside a request changes its answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.serving import serving


def test_requests_beside_each_other_get_the_answers_that_they_get_alone(digits_repository: Path) -> None:
    rng = np.random.default_rng(11)
    bodies = [
        {"inputs": rng.random((size, 64)).tolist(), "time_steps": steps, "return": ["raster"]}
        for size in (1, 3, 8)
        for steps in (2, 12, 30)
    ] * 3
    with serving(digits_repository, threads=8) as client:

        def ask(body: dict[str, object]) -> object:
            return client.post("/predict", json=body).json()["predictions"]

        alone = [ask(body) for body in bodies]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, bodies)) == alone
