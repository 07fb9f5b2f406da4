"""What a step is made of: model, loss, optimizer, mixed precision; and their state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from shards.errors import UsageError
from trainer.contract.model import Classifier, find_head
from trainer.feed.feed import Batch
from trainer.options.optim import OptimOptions
from trainer.ranks import Ranks
from trainer.recipe import Recipe

_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
_Norm = nn.modules.batchnorm._BatchNorm


class Engine:
    """Takes steps whose gradient is that of the global batch, however it is cut into ranks."""

    def __init__(self, model: Classifier, recipe: Recipe, ranks: Ranks) -> None:
        self.model = model.to(ranks.device)
        self._recipe = recipe
        self._ranks = ranks
        self._frozen_norms = freeze_parameters(self.model, recipe.freeze)
        self.optimizer = build_optimizer(self.model, recipe.optim)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=recipe.amp == "fp16")
        self._parallel: nn.Module = self.model
        if ranks.num_ranks > 1:
            self._parallel = DistributedDataParallel(self.model)

    def step(self, batch: Batch, total_weight: Tensor, lr_scale: float, step: int) -> Tensor:
        """Take one step; return this rank's weighted loss sum, float32[].

        Args:
            batch: This rank's slice; an empty one takes part with zero weight.
            total_weight: float32[], sum of sample weights over the global batch.
            lr_scale: Share of the peak learning rate.
            step: Number of the global step; with seed and rank it seeds dropout.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self._recipe.optim.peak_lr * lr_scale
        seed = np.random.SeedSequence((self._recipe.seed, step, self._ranks.rank)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.optimizer.zero_grad(set_to_none=True)
        with self._training(len(batch)):
            loss_sum = self._compute_loss_sum(batch)
            # DDP averages gradients over ranks; the product makes that average the sum over the global batch.
            loss = loss_sum * (self._ranks.num_ranks / total_weight)
            self.scaler.scale(loss).backward()
        if self._recipe.optim.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss_sum.detach()

    def _compute_loss_sum(self, batch: Batch) -> Tensor:
        device = self._ranks.device
        images, labels = batch.images.to(device), batch.labels.to(device)
        weights = self.weigh(batch).to(device)
        if len(batch) == 0:  # a stand-in keeps the collectives of all ranks equal; its weight is zero
            images, labels, weights = (
                images.new_zeros((1, *images.shape[1:])),
                labels.new_zeros(1),
                weights.new_zeros(1),
            )
        dtype = _AMP.get(self._recipe.amp, torch.float32)
        with torch.autocast(device.type, dtype, enabled=self._recipe.amp != "off"):
            logits = self._parallel(images)
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=self._recipe.loss.label_smoothing)
        return (losses * weights).sum()

    def weigh(self, batch: Batch) -> Tensor:
        """Return float32[n], the weight of each sample in the loss; 1 where an order by weights has used them up."""
        counts = self._recipe.loss.sample_weights and self._recipe.stream.order != "weighted"
        return batch.weights if counts else torch.ones_like(batch.weights)

    @contextlib.contextmanager
    def _training(self, size: int) -> Iterator[None]:
        """Training mode; norms that are frozen, or would see no or one picture, keep their statistics."""
        self._parallel.train()
        norms = [m for m in self.model.modules() if isinstance(m, _Norm)] if size < 2 else self._frozen_norms
        for norm in norms:
            norm.eval()
        yield

    def state_dict(self) -> dict[str, Any]:
        """Return optimizer and scaler state; the model's is apart, because a bundle needs it alone."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def describe_local_norms(model: Classifier, num_ranks: int) -> str | None:
    """Return what must be said of BatchNorm, the one thing that depends on the number of ranks; None without it."""
    if num_ranks == 1 or not any(isinstance(module, _Norm) for module in model.modules()):
        return None
    return (
        f"{model.spec.name} has BatchNorm, whose statistics are those of each rank's slice: the weights depend on "
        f"num_ranks={num_ranks}. A model with GroupNorm does not; SyncBatchNorm would not either, on CUDA"
    )


def freeze_parameters(model: Classifier, prefixes: list[str]) -> list[nn.Module]:
    """Freeze backbone parameters by the beginning of their name; return the norms among them.

    Raises:
        UsageError: A prefix that no parameter has, or nothing left to train.
    """
    head = find_head(model.backbone)
    names = [name for name, _ in model.backbone.named_parameters()]
    for prefix in prefixes:
        if prefix != "backbone" and not any(_is_below(name, prefix) for name in names):
            tops = sorted({name.split(".")[0] for name in names})
            raise UsageError(
                f"freeze: no parameter of {model.spec.name} begins with '{prefix}'; it has {', '.join(tops)}"
            )
    chosen = [name for name in names if _is_chosen(name, prefixes, head)]
    if len(chosen) == len(names):
        raise UsageError("freeze leaves nothing to train; [backbone] freezes all but the head")
    for name in chosen:
        model.backbone.get_parameter(name).requires_grad_(False)
    modules = model.backbone.named_modules()
    return [module for name, module in modules if isinstance(module, _Norm) and _is_chosen(name, prefixes, head)]


def _is_chosen(name: str, prefixes: list[str], head: str) -> bool:
    if "backbone" in prefixes and not _is_below(name, head):
        return True
    return any(_is_below(name, prefix) for prefix in prefixes)


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def build_optimizer(model: nn.Module, options: OptimOptions) -> torch.optim.Optimizer:
    """Return the optimizer over what is not frozen; tensors of one dimension are not decayed."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.peak_lr)
    return torch.optim.SGD(groups, lr=options.peak_lr, momentum=options.momentum, nesterov=options.momentum > 0)
