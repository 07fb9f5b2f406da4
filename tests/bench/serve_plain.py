"""A plain FastAPI application with a batcher written by hand, for `serve.py`: python serve_plain.py BUNDLE PORT."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request

from trainer.contract.bundle import Bundle

BATCH, WAIT_S = 16, 0.005


def build(folder: str) -> FastAPI:
    """Return the application for a bundle."""
    torch.set_num_threads(1)
    bundle = Bundle.load(folder)
    decoders, model = ThreadPoolExecutor(2), ThreadPoolExecutor(1)
    queue: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    def compute(images: list[Any]) -> list[Any]:
        return [bundle.answer(*output).describe() for output in bundle.compute(torch.stack(images))]

    async def gather_batches() -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await queue.get()]
            until = loop.time() + WAIT_S
            while len(batch) < BATCH and (left := until - loop.time()) > 0:
                try:
                    batch.append(await asyncio.wait_for(queue.get(), left))
                except TimeoutError:
                    break
            answers = await loop.run_in_executor(model, compute, [image for image, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        task = asyncio.create_task(gather_batches())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/predict")
    async def predict(request: Request) -> Any:
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(decoders, bundle.prepare, await request.body())
        future = loop.create_future()
        await queue.put((image, future))
        return await future

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
