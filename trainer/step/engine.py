"""The engine of a step: model, loss, optimizer, mixed precision, and their state."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shards.order.purposes import make_dropout_key
from trainer.contract.model.model import Classifier, find_head, split_outputs
from trainer.feed.augment.mix import Pairs, mix_images
from trainer.feed.feed import Batch
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe
from trainer.step.ema import Ema
from trainer.step.freeze import apply_freeze, list_frozen
from trainer.step.loss import Loss
from trainer.step.memory import (
    RankMemoryError,
    copy_buffers,
    cut_parts,
    fit_parts,
    is_out_of_memory,
    refuse_single_sample,
    release,
    restore_buffers,
    trial,
)
from trainer.step.norms import Microbatches, NormModes, sync_norms
from trainer.step.optimizers import build_optimizer, measure_state
from trainer.step.precision import are_finite, autocast, build_scaler, set_precision

if TYPE_CHECKING:
    from trainer.step.distillation import Distillation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """The result of a step.

    losses: Weighted loss of each sample of this rank, float32[n], not averaged.
    moved: Whether the weights changed. They do not if float16 overflowed or the step was skipped.
    left_out: Whether the step was skipped because a loss on some rank is not finite. Both are equal on all ranks.
    """

    losses: Tensor
    moved: bool = True
    left_out: bool = False


class Engine:
    """Takes steps whose gradient is that of the global batch, however it is split over ranks and microbatches."""

    def __init__(
        self,
        model: Classifier,
        recipe: Recipe,
        ranks: Ranks,
        loss: Loss,
        teacher: Distillation | None = None,
        least_parts: int = 1,
        samples_per_epoch: int | None = None,
    ) -> None:
        self._recipe = recipe
        self._ranks = ranks
        self._loss = loss
        self._teacher = teacher
        set_precision(recipe.step)
        if recipe.step.sync_batch_norm:
            sync_norms(model, ranks.device)
        self.model = model.to(ranks.device)
        self.frozen = bool(recipe.freeze)
        norms = apply_freeze(self.model, recipe.freeze, frozen=True)
        self.norms = NormModes(self.model, norms, recipe.freeze_epochs is None)
        late = list_frozen(self.model, recipe.freeze) if recipe.freeze_epochs is not None else []
        self.optimizer = build_optimizer(self.model, recipe.optim, find_head(self.model.backbone), late)
        self.scaler = build_scaler(recipe.amp, ranks.device)
        self.ema = Ema(self.model, recipe.step.ema) if recipe.step.ema is not None else None
        self._syncs_norms = recipe.step.sync_batch_norm
        self.parts = max(least_parts, 1 if recipe.step.accumulate == "auto" else recipe.step.accumulate)
        self._batch_size = min(recipe.batch_size_global, samples_per_epoch or sys.maxsize)
        self._largest: tuple[int, tuple[int, ...]] | None = None
        self._parallel = self._wrap()

    def begin_epoch(self, epoch: int) -> None:
        """Unfreeze layers frozen only for the first epochs, once these are over; every rank calls it.

        The backward pass then needs more memory, so microbatches that fitted may no longer fit.
        """
        release_at = self._recipe.freeze_epochs
        if self.frozen and release_at is not None and epoch >= release_at:
            self.frozen = False
            self.norms.frozen = apply_freeze(self.model, self._recipe.freeze, frozen=False)
            self._parallel = self._wrap()  # DDP only knows the gradients that existed when it was created
            if self._largest is not None:
                before = self.parts
                self.fit(*self._largest)
                self._note_parts(before)

    def fit(self, slice_size: int, shape: tuple[int, ...]) -> None:
        """Find the number of microbatches for a slice of `slice_size` pictures uint8[C, S, S]; every rank calls it."""
        if self._recipe.step.accumulate == "auto":
            self._largest = slice_size, shape
            size = max(1, slice_size)
            parts = fit_parts(lambda parts: self._try_part(-(-size // parts), shape), size, first=self.parts)
            self.parts = int(max(self._ranks.gather(parts)))

    def step(self, batch: Batch, total_weight: float, lr_scale: float, step: int) -> Step:
        """Take one step, or skip it if a loss or gradient is not finite and the recipe allows it.

        A step whose samples all have weight 0 changes nothing.

        Args:
            batch: This rank's slice; an empty one participates with zero weight.
            total_weight: Sum of sample weights over the global batch.
            lr_scale: Share of the peak learning rate.
            step: Number of the global step; seeds dropout, with the recipe's seed and the rank.
        """
        if not total_weight:
            return Step(torch.zeros(len(batch), device=self._ranks.device), moved=False)
        for group in self.optimizer.param_groups:
            group["lr"] = self._recipe.optim.peak_lr * lr_scale * group.get("lr_scale", 1.0)
        skips = self._recipe.step.on_nan == "skip"
        before = copy_buffers(self.model) if skips else []
        losses = self._try_backward(batch, total_weight, step)
        if losses is None:
            losses = self._backward_in_more_parts(batch, total_weight, step)
        if skips and self._ranks.agree(float(not self._is_finite(losses)))[0]:
            restore_buffers(self.model, before)  # undo BatchNorm's update
            return Step(losses, moved=False, left_out=True)
        return Step(losses, moved=self._apply(step))

    def _is_finite(self, losses: Tensor) -> bool:
        """Return whether this rank's losses and all gradients are finite; for fp16 the scaler checks gradients."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        looks = gradients and not self.scaler.is_enabled()
        return bool(losses.isfinite().all()) and (not looks or are_finite(gradients))

    def has_finite_weights(self) -> bool:
        """Return whether every parameter is finite: a gradient can overflow although the loss does not."""
        return are_finite([p.detach() for p in self.model.parameters()])

    def _backward(self, batch: Batch, total_weight: float, step: int) -> Tensor:
        """Compute the gradients of the global batch; return this rank's weighted losses, float32[n]."""
        key = make_dropout_key(self._recipe.seed, step, self._ranks.rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        self.optimizer.zero_grad(set_to_none=True)
        device = self._ranks.device
        images, labels, weights = (x.to(device) for x in (batch.images, batch.labels, batch.weights))
        pairs = batch.pairs.to(device) if batch.pairs else None
        if pairs is not None:
            images = mix_images(images, pairs)
        # DDP averages gradients over ranks; this factor turns the average into the sum over the global batch.
        scale = self._ranks.num_ranks / total_weight
        losses = []
        parts = self._cut(len(batch))
        for number, part in enumerate(parts):
            self.norms.enter_training(self._parallel, part.stop - part.start, self.cut(self._ranks.num_ranks))
            with self._synced(number == len(parts) - 1):
                loss = self._compute_losses(self._parallel, images, labels, weights, pairs, part)
                self.scaler.scale(loss.sum() * scale).backward()
            losses.append(loss.detach()[: part.stop - part.start])
        return torch.cat(losses)

    def _cut(self, size: int) -> list[slice]:
        """Return the microbatches of this rank's slice; SyncBatchNorm synchronises all ranks in each."""
        meets = self._syncs_norms and self.parts > 1
        return cut_parts(size, self.parts, int(max(self._ranks.gather(size))) if meets else None)

    def _try_backward(self, batch: Batch, total_weight: float, step: int) -> Tensor | None:
        """Like `_backward`; None if memory ran out. The error is dropped, so that its frames free their memory.

        Raises:
            RankMemoryError: Memory ran out on one of several ranks, while the others wait in a collective.
        """
        try:
            return self._backward(batch, total_weight, step)
        except RuntimeError as err:
            if not is_out_of_memory(err):
                raise
            refuse_single_sample(self.parts, len(batch), err)
            if self._ranks.num_ranks > 1:
                raise RankMemoryError(
                    f"rank {self._ranks.rank} ran out of memory in step {step}; after the restart every rank "
                    f"computes its slice in {2 * self.parts} microbatches",
                    2 * self.parts,
                ) from err
        return None

    def _backward_in_more_parts(self, batch: Batch, total_weight: float, step: int) -> Tensor:
        """Repeat a step with at least twice as many microbatches, also for all later steps."""
        losses: list[Tensor] = []
        before = self.parts

        def compute(parts: int) -> None:
            self.parts = parts
            losses.append(self._backward(batch, total_weight, step))

        release()
        fit_parts(compute, len(batch), first=2 * self.parts)
        self._note_parts(before)
        return losses[0]

    def cut(self, num_ranks: int) -> Microbatches:
        """Return how an ordinary step is split over a number of ranks."""
        return Microbatches(self._batch_size, num_ranks, self.parts)

    def _note_parts(self, before: int) -> None:
        """Log the effect of a changed number of microbatches."""
        note = self.norms.describe_single(self.cut(self._ranks.num_ranks)) if self.parts != before else None
        if note and self._ranks.is_first:
            logger.warning("%s", note)

    def _compute_losses(
        self, model: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, pairs: Pairs | None, part: slice
    ) -> Tensor:
        """Return the weighted losses of a microbatch; if it is empty, of a placeholder with zero weight."""
        images, labels, weights = images[part], labels[part], weights[part]
        if not len(images) and not self._syncs_norms:  # SyncBatchNorm supports no pictures; others need one
            images, labels, weights = (x.new_zeros((1, *x.shape[1:])) for x in (images, labels, weights))
            pairs = None
        with autocast(self._recipe.amp, self._ranks.device):
            answers = split_outputs(model(images))
            taught = self._teacher.compute_logits(images) if self._teacher else None
        losses = weights * self._judge(answers, labels, taught)
        if pairs is None:
            return losses
        lam, partners = pairs.lam[part], pairs.weights[part] * self._judge(answers, pairs.labels[part], taught)
        return lam * losses + (1 - lam) * partners

    def _judge(self, answers: tuple[Tensor, list[Tensor]], labels: Tensor, taught: Tensor | None) -> Tensor:
        """Return the unweighted losses float32[n] of the logits, including auxiliary heads if there are any."""
        logits, aux = answers
        losses = self._loss.per_sample(logits, labels)
        for other in aux:
            losses = losses + self.model.aux_weight * self._loss.per_sample(other, labels)
        return losses if self._teacher is None or taught is None else self._teacher.mix(losses, logits, taught)

    def _apply(self, step: int) -> bool:
        """Update the weights with the gradients of the global batch; return whether they changed.

        They do not if float16 overflowed: then the scaler lowers its scale.
        """
        if self._recipe.optim.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.optim.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:
            return False
        if self.ema is not None:
            self.ema.update(self.model, step)
        return True

    def _synced(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which gradients are summed over ranks only in the last microbatch."""
        return contextlib.nullcontext() if last or self._ddp is None else self._ddp.no_sync()

    def _wrap(self) -> nn.Module:
        """Return the model wrapped for steps: with DDP and torch.compile as needed."""
        self._ddp = DistributedDataParallel(self.model) if self._ranks.num_ranks > 1 else None
        # A performance hint of DDP in the first step that users cannot act on.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        wrapped: nn.Module = self._ddp or self.model
        if self._recipe.step.compile:
            wrapped.compile()
        return wrapped

    def _try_part(self, size: int, shape: tuple[int, ...]) -> None:
        """Run a microbatch of black pictures forward and backward, to test memory; nothing else changes."""
        device = self._ranks.device
        with trial(self.model, self.optimizer):
            images = torch.zeros((size, *shape), dtype=torch.uint8, device=device)
            labels = self._loss.blank_labels(size, self.model.spec.num_classes).to(device)
            weights = torch.ones(size, device=device)
            self._compute_losses(self.model, images, labels, weights, None, slice(0, size)).sum().backward()

    def judged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the model has the weights to evaluate: the average if the recipe keeps one."""
        return self.ema.swapped_in(self.model) if self.ema is not None else contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Return the state besides the model's: optimizer, scaler, average of the weights."""
        ema = self.ema.state_dict() if self.ema is not None else None
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "ema": ema}

    def measure_snapshot(self) -> int:
        """Return the bytes of the tensors of a snapshot: model, optimizer after a step, average of the weights."""
        model = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        return model * (1 if self.ema is None else 2) + measure_state(self.optimizer, self._recipe.optim)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
