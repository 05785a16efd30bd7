"""Clients that ask replicas again and again, and check that each request has one answer, which is right."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore
from typing import Any, Self

import httpx

# Decay 0.5 and threshold 1: at each step 1 charges 1, which is a spike and leaves 0; 0 never charges.
SAMPLE: dict[str, Any] = {"inputs": [[1.0, 0.0]]}


class Load:
    """Clients that ask `toy` again and again until they are stopped, and what they were answered, in order.

    They follow the rule of the page: what Ray's proxy answers in plain text, and a lost connection, is asked again.
    Version 2 has the inputs exchanged, so that an answer shows which version gave it.
    """

    def __init__(self, url: str, clients: int = 4, time_steps: int = 3) -> None:
        self.url = url
        self.body = {**SAMPLE, "time_steps": time_steps}
        self.counts = {1: [time_steps, 0], 2: [0, time_steps]}  # by the version
        self.stopped = Event()
        self.answered = Semaphore(0)
        self.answers: list[dict[str, Any]] = []
        self.asked_again: list[int | str] = []
        self.pool = ThreadPoolExecutor(clients)
        self.tasks = [self.pool.submit(self._ask) for _ in range(clients)]

    def _ask(self) -> int:
        accepted = 0
        with httpx.Client(timeout=60) as client:
            while not self.stopped.is_set():
                self.answers.append(self._answer(client))
                self.answered.release()
                accepted += 1
        return accepted

    def _answer(self, client: httpx.Client) -> dict[str, Any]:
        while True:
            try:
                response = client.post(f"{self.url}/models/toy/predict", json=self.body)
            except httpx.TransportError as error:
                self.asked_again.append(type(error).__name__)
                continue
            if response.status_code == 200:
                return response.json()
            assert response.headers["content-type"].startswith("text/plain"), response.text
            self.asked_again.append(response.status_code)

    def wait(self, answers: int) -> None:
        """Wait for so many more answers."""
        for _ in range(answers):
            assert self.answered.acquire(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        accepted = sum(task.result() for task in self.tasks)
        self.pool.shutdown()
        assert len(self.answers) == accepted  # each request has one answer
        for answer in self.answers:  # which is the reference's
            assert answer["predictions"][0]["spike_counts"] == self.counts[answer["version"]]
