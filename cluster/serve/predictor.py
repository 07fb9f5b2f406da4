"""One process with the model: pictures are admitted, decoded in threads, gathered into batches and answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from ray import serve
from torch import Tensor

from cluster.serve.answer import Prediction, Timings, Wishes, describe_answer, draw_explanation
from cluster.serve.batcher import Batcher
from cluster.serve.batching import Batching, find_batching
from cluster.serve.body import Held
from cluster.serve.compute import Job, check_prepared, compute_jobs
from cluster.serve.metrics import Recorder
from cluster.serve.models import Models, Served
from cluster.serve.options import Limits, ServeOptions
from cluster.serve.problem import RETRY, ProblemError
from cluster.serve.report import ReplicaReport
from cluster.serve.rollout import Rollout
from shards.errors import DecodeError, ShardError, UsageError
from shards.storage.shown import show_location
from trainer.contract.bundle import Bundle, Output, read_versions
from trainer.contract.decision.decision import Answer
from trainer.contract.preprocess import PreprocessSpec, prepare

logger = logging.getLogger(__name__)


@dataclass
class Stats:
    """Counts of one replica since it started; only its event loop changes them."""

    pictures: int = 0
    """Pictures that went through the model."""
    batches: int = 0
    largest_batch: int = 0
    compared: int = 0
    """Pictures that a bundle on trial computed as well."""
    agreed: int = 0
    """Those of them for which both bundles gave the same labels."""


class Predictor:
    """What a replica does; see `cluster.serve.app.Replica`."""

    def __init__(self, options: ServeOptions) -> None:
        torch.set_num_threads(options.cpus_per_replica)
        self.limits: Limits = options
        self.held = Held(options)
        self.model_name = options.model_name
        self._options = options
        self._models = Models(options)
        self._has_model = asyncio.Event()
        self._waiting = 0
        self.stats = Stats()
        self._recorder = Recorder(options.max_waiting)
        self._trials: set[asyncio.Task[None]] = set()
        # Both keep the event loop free. Two decoders, so that one huge picture does not delay all others; one thread
        # for the model, since one batch is computed at a time.
        self._decoders = ThreadPoolExecutor(max(2, options.cpus_per_replica), "decode")
        self._model = ThreadPoolExecutor(1, "model")
        self._batcher = Batcher(compute_jobs, self._model, 1, 0.0, self._count_batch)  # until a bundle is loaded
        self._batching: Batching | None = None

    async def follow(self, rollout: Rollout) -> ReplicaReport:
        """Load the bundles of a rollout, answer by it from then on, and return what came of it.

        If a bundle cannot be loaded, all stays as it was.

        Raises:
            UsageError, ShardError: There was nothing before.
        """
        failed = None
        try:
            await self._models.follow(rollout)
        except Exception as err:  # whatever is wrong with a new bundle, the old one still answers
            if self._models.rollout is None:
                raise
            failed = f"{err}" if isinstance(err, ShardError | UsageError) else f"{type(err).__name__}: {err}"
            logger.warning("%s stays: %s", show_location(self._models.active.folder), failed)
        self._follow_batching(self._models.active)
        self._has_model.set()
        active, beside = self._models.active, self._models.beside
        self._recorder.follow(active.bundle.page, active.fingerprint)
        return ReplicaReport(
            asked=rollout,
            failed=failed,
            bundle=active.fingerprint,
            beside=beside.fingerprint if beside else None,
        )

    def _follow_batching(self, served: Served) -> None:
        root = served.bundle.folder
        assert root is not None
        self._batching = find_batching(self._options, root, served.bundle.page.weights_sha256)
        self.limit_batches(self._batching.max_batch_size, self._batching.batch_wait_ms)

    def limit_batches(self, max_size: int, wait_ms: float) -> None:
        """Set the size of batches, and how long the first picture of one waits for others, until the next rollout."""
        self._batcher.limit(max_size, wait_ms / 1000)

    @property
    def is_ready(self) -> bool:
        """Whether a bundle is loaded."""
        return self._has_model.is_set()

    async def predict_all(
        self, pictures: Sequence[bytes | Tensor], wishes: Wishes, client: str | None = None
    ) -> list[Prediction | ProblemError]:
        """Return an answer, or the reason why there is none, for each picture, all by the same bundle.

        Args:
            pictures: Encoded pictures, or prepared ones: uint8 or float32[C, S, S] in 0..255, as the model takes them.
            wishes: What the request asks for.
            client: A key of the client; all its requests are answered by the same bundle.

        Raises:
            ProblemError: The replica is busy, or the answers were not ready in time.
        """
        await self._has_model.wait()  # Ray Serve opens the port before it sends the first rollout
        limits = self.limits
        with self._admit(len(pictures)):
            served = self._models.choose(client)
            with served.used():  # at once: a change of bundles waits for it
                try:
                    async with asyncio.timeout(limits.max_wait_s):
                        if len(pictures) == 1:
                            return [await self._predict(pictures[0], served, wishes)]
                        return await asyncio.gather(*(self._predict(data, served, wishes) for data in pictures))
                except TimeoutError as err:
                    sentence = f"the answer was not ready within {limits.max_wait_s:g} s; send fewer pictures at once"
                    raise ProblemError("too-late", sentence, "max_wait_s", limits) from err

    @contextmanager
    def _admit(self, number: int) -> Iterator[None]:
        """Count pictures while they are worked on.

        Raises:
            ProblemError: The replica has too many already.
        """
        if self._waiting + number > self.limits.max_waiting:
            raise ProblemError(
                "busy",
                f"the replica already works on {self._waiting} pictures; send this request again",
                "max_waiting",
                self.limits,
                RETRY,
            )
        self._waiting += number
        self._recorder.set("shardline_waiting", self._waiting)
        try:
            yield
        finally:
            self._waiting -= number
            self._recorder.set("shardline_waiting", self._waiting)

    async def _predict(self, data: bytes | Tensor, served: Served, wishes: Wishes) -> Prediction | ProblemError:
        """Return the answer for a picture, or why there is none: no picture of a request spoils the others."""
        try:
            return await self._answer(data, served, wishes)
        except DecodeError as err:
            self._recorder.count("shardline_refused_pictures", reason=err.kind)
            return self._refuse(err)
        except ProblemError as problem:
            return problem
        except Exception as err:  # of the model or a library
            logger.exception("a picture could not be computed")
            return ProblemError("fault", f"the endpoint failed on this picture ({type(err).__name__}); see its log")

    async def _answer(self, data: bytes | Tensor, served: Served, wishes: Wishes) -> Prediction:
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        spec = served.bundle.page.preprocess
        if isinstance(data, Tensor):
            image, decode_s = check_prepared(data, spec), 0.0
        else:
            with self._batcher.announced():
                image, decode_s = await loop.run_in_executor(self._decoders, self._prepare, data, spec)
        result = await self._batcher.submit(Job(image, served))
        waited_s = time.perf_counter() - began - decode_s - result.model_s
        answer = self._judge(served.bundle, result.output, wishes)
        if (shadow := self._models.shadow) and isinstance(data, bytes):
            self._compare(data, shadow, answer)
        explanation = None
        if wishes.explain:
            explanation = await loop.run_in_executor(self._model, draw_explanation, served.bundle, image, answer)
        timings = Timings(queue_ms=max(0.0, waited_s * 1e3), decode_ms=decode_s * 1e3, model_ms=result.model_s * 1e3)
        self._record(served, answer, timings)
        return describe_answer(answer, wishes, bundle=served.fingerprint, timings=timings, explanation=explanation)

    def _record(self, served: Served, answer: Answer, timings: Timings) -> None:
        page, recorder = served.bundle.page, self._recorder
        recorder.count("shardline_pictures", bundle=served.fingerprint[:12])
        recorder.count_labels(answer.labels, len(page.classes))
        recorder.count("shardline_abstentions", bool(answer.abstain))
        if page.decision.ood is not None:
            is_foreign = not (answer.ood_score or 0.0) <= page.decision.ood.threshold
            recorder.count("shardline_foreign_pictures", is_foreign)
        for name, value in timings:
            recorder.observe("shardline_stage_ms", value, stage=name.removesuffix("_ms"))

    def start_requests(self, page: str, outcomes: list[str]) -> None:
        """Let the counts of a page's requests begin at 0."""
        self._recorder.start_requests(page, outcomes)

    def count_request(self, page: str, outcome: str, ms: float) -> None:
        """Count a request of a page by its outcome: `ok`, or the kind of its problem."""
        self._recorder.count("shardline_requests", page=page, outcome=outcome)
        self._recorder.observe("shardline_request_ms", ms, page=page)

    def _compare(self, data: bytes, shadow: Served, answer: Answer) -> None:
        """Compute a picture by the bundle on trial as well; skipped while the replica is half full."""
        if 2 * self._waiting > self.limits.max_waiting or len(self._trials) > self.limits.max_waiting:
            return
        trial = asyncio.create_task(self._try(data, shadow, answer))
        self._trials.add(trial)
        trial.add_done_callback(self._trials.discard)

    async def _try(self, data: bytes, shadow: Served, answer: Answer) -> None:
        with shadow.used():
            loop = asyncio.get_running_loop()
            image, _ = await loop.run_in_executor(self._decoders, self._prepare, data, shadow.bundle.page.preprocess)
            result = await self._batcher.submit(Job(image, shadow))
            other = self._judge(shadow.bundle, result.output, Wishes())
        is_same = other.labels == answer.labels
        self.stats.compared += 1
        self.stats.agreed += is_same
        self._recorder.count("shardline_compared")
        self._recorder.count("shardline_agreed", is_same)

    def _prepare(self, data: bytes, spec: PreprocessSpec) -> tuple[Tensor, float]:
        """Return uint8[C, S, S] of an encoded picture, and the seconds that it took; raises DecodeError."""
        began = time.perf_counter()
        most = min(spec.decode.max_pixels, self.limits.max_pixels)
        decode = spec.decode.model_copy(update={"max_pixels": most})
        return prepare(data, spec.model_copy(update={"decode": decode})), time.perf_counter() - began

    def _count_batch(self, size: int) -> None:
        self.stats.batches += 1
        self.stats.pictures += size
        self.stats.largest_batch = max(self.stats.largest_batch, size)
        self._recorder.observe("shardline_batch_size", size)

    def _judge(self, bundle: Bundle, output: Output | Exception, wishes: Wishes) -> Answer:
        if isinstance(output, Exception):
            raise output
        if not bool(output.logits.isfinite().all()):
            raise ProblemError("fault", "the model's logits for this picture are not finite; its weights overflow")
        try:
            return bundle.answer(*output, threshold=wishes.threshold)
        except UsageError as err:
            raise ProblemError("invalid-request", str(err)) from err

    def _refuse(self, err: DecodeError) -> ProblemError:
        if err.kind == "bomb":
            return ProblemError("too-large", str(err), "max_megapixels", self.limits)
        return ProblemError("picture-refused", str(err))

    def describe_model(self) -> dict[str, Any]:
        """Return a description of the bundle that answers and of the endpoint's options, as JSON."""
        served = self._models.active
        bundle = served.bundle.page
        page = bundle.model_dump(mode="json")
        wanted = ("model", "preprocess", "classes", "display_names", "task", "positive", "decision")
        return {
            **{name: page[name] for name in wanted},
            "metrics": bundle.name_metrics(),
            "fingerprints": {"bundle": served.fingerprint, "dataset": page["dataset"], "recipe": page["recipe"]},
            "versions": {"bundle": page["versions"], "endpoint": read_versions()},
            "device": str(served.bundle.device),
            "backend": served.why,
            "batching": self._batching.model_dump() if self._batching else None,
            "limits": self.limits.describe(),
            "options": self._options.show(),
            # The rule in use; the bundle also keeps argmax beside an operating point.
            "decision": bundle.decision.state_rule().model_dump(mode="json"),
        }

    def describe_stats(self) -> dict[str, Any]:
        """Return the counts of this replica, as JSON."""
        return {"replica": serve.get_replica_context().replica_tag, **asdict(self.stats)}
