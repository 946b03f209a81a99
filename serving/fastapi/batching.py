"""Requests that arrive while a network runs share its next batch: the FastAPI server has one queue per model."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import HTTPException

from serving.host.promoted import Model
from serving.worker.encoder import Answer, Encoder, Request

BATCH = 4  # requests: a larger one leaves the other run without work
RUNS = 2  # parallel batches: one runs while the other's answers are sent and its next requests arrive


@dataclass
class Job:
    """A request that waits for its answer."""

    request: Request
    answer: asyncio.Future[Answer]


class Batcher:
    """A model, its queue of at most so many requests, and the threads on which its network runs.

    seconds: the longest that a request waits.
    """

    def __init__(self, model: Model, encoder: Encoder, most: int, seconds: float) -> None:
        self.model, self.encoder, self.seconds = model, encoder, seconds
        self.queue: asyncio.Queue[Job] = asyncio.Queue(most)
        self.threads = ThreadPoolExecutor(RUNS)

    async def ask(self, request: Request) -> Answer:
        """The answer. Raises HTTPException: 503 when the queue is full, 504 when it takes too long."""
        job = Job(request, asyncio.get_running_loop().create_future())
        try:
            self.queue.put_nowait(job)
            async with asyncio.timeout(self.seconds):
                return await job.answer
        except asyncio.QueueFull:
            raise HTTPException(503, "Too many requests are waiting. Try again later.") from None
        except TimeoutError:
            raise HTTPException(504, f"There was no answer within {self.seconds:g} s. Try again later.") from None

    async def run(self) -> None:
        """Answer requests until cancelled."""
        await asyncio.gather(*(self._run() for _ in range(RUNS)))

    async def _run(self) -> None:
        """Run one batch after the other."""
        while True:
            jobs = [await self.queue.get()]
            while len(jobs) < BATCH and not self.queue.empty():
                jobs.append(self.queue.get_nowait())
            jobs = [job for job in jobs if not job.answer.done()]  # without the jobs that timed out
            requests = [job.request for job in jobs]
            loop = asyncio.get_running_loop()
            try:
                answers = await loop.run_in_executor(self.threads, self.encoder.answer, self.model.name, requests)
            except Exception as error:
                answers = [Answer(json.dumps({"error": f"The network failed: {error}."}).encode(), 500)] * len(jobs)
            for job, answer in zip(jobs, answers, strict=True):
                if not job.answer.done():
                    job.answer.set_result(answer)
