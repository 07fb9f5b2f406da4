"""Synonyms: names of options in other trainers, and the recipe's options for them."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from trainer.recipes.recipe import Recipe

MEANINGS: Final = {
    "optim.peak_lr": ("lr", "learning_rate", "max_lr", "base_lr", "lr0", "initial_lr", "init_lr"),
    "optim.name": ("optimizer", "optimiser", "opt"),
    "optim.weight_decay": ("wd", "decay", "l2"),
    "optim.clip_norm": ("clip", "clip_grad", "grad_clip", "gradient_clip_val", "max_grad_norm", "clip_grad_norm"),
    "batch_size_global": ("batch_size", "batch", "bs", "train_batch_size", "per_device_train_batch_size"),
    "epochs": ("num_epochs", "n_epochs", "max_epochs", "num_train_epochs"),
    "image_size": ("img_size", "imgsz", "size", "input_size", "resolution", "img_dim"),
    "model": ("arch", "architecture", "backbone", "net", "network", "model_name"),
    "weights": ("pretrained", "checkpoint", "init_checkpoint", "pretrained_weights"),
    "name": ("run_name", "experiment", "exp_name", "run"),
    "data": ("dataset", "data_dir", "data_path", "root_dir", "train_dir"),
    "workers": ("num_workers", "n_workers", "dataloader_num_workers", "dataloaders"),
    "num_ranks": ("gpus", "num_gpus", "devices", "world_size", "nproc_per_node", "ngpus", "num_processes"),
    "amp": ("precision", "fp16", "bf16", "mixed_precision", "half"),
    "seed": ("random_seed", "random_state", "manual_seed"),
    "schedule": ("scheduler", "lr_scheduler", "sched", "lr_schedule", "lr_scheduler_type"),
    "schedule.warmup_epochs": ("warmup", "warmup_steps"),
    "schedule.warmup_frac": ("warmup_ratio", "pct_start"),
    "loss.name": ("criterion", "loss_fn", "loss_function"),
    "loss.label_smoothing": ("smoothing",),
    "loss.class_weights": ("class_weight", "weight", "pos_weight"),
    "loss.focal_gamma": ("fl_gamma",),
    "step.accumulate": ("grad_accum", "gradient_accumulation_steps", "accumulate_grad_batches", "accumulation_steps"),
    "step.ema": ("ema", "ema_decay", "model_ema", "model_ema_decay"),
    "step.sync_batch_norm": ("sync_bn", "syncbn"),
    "stop.patience": ("patience", "early_stopping", "early_stopping_patience", "early_stop"),
    "stop.metric": ("monitor", "eval_metric", "metric", "metric_for_best_model", "best_metric"),
    "augment.policy": ("augmentation", "augmentations", "aug", "aa", "auto_augment", "transforms"),
    "augment.erase": ("reprob", "random_erasing", "erasing"),
    "head_dropout": ("dropout", "drop", "drop_rate"),
    "storage.root": ("output_dir", "out", "out_dir", "save_dir", "output", "log_dir"),
    "track.wandb": ("use_wandb", "wandb", "report_to"),
    "track.tensorboard": ("use_tensorboard", "tb"),
    "snapshot.every_epochs": ("save_every", "save_period", "checkpoint_every"),
    "stream.order": ("sampler", "shuffle"),
    "limit_samples": ("max_train_samples", "num_samples", "limit_train_batches"),
    "freeze": ("frozen", "freeze_backbone", "freeze_layers"),
    "preprocess.normalise": ("normalize", "normalization", "mean_std"),
}
"""Synonyms of each option, without punctuation and case."""


def find_meant(name: str) -> str | None:
    """Return the option for a synonym, or the option of that name in another group; None if there is neither.

    >>> find_meant("lr"), find_meant("optim.lr"), find_meant("label-smoothing"), find_meant("zzz")
    ('optim.peak_lr', 'optim.peak_lr', 'loss.label_smoothing', None)
    """
    group, _, last = name.rpartition(".")
    word = _fold(last)
    meant = {_fold(each): option for option, names in MEANINGS.items() for each in names}
    found = meant.get(word)
    if group and found is not None and found.partition(".")[0] != group:
        found = None  # `loss.weight` may mean class weights; in `optim.weight` it cannot
    elsewhere = [option for option in list_options(Recipe) if _fold(option.rpartition(".")[2]) == word]
    return found or (elsewhere[0] if len(elsewhere) == 1 else None)


def list_options(section: type[BaseModel], before: str = "") -> list[str]:
    """Return the names of all options in a section, with their groups."""
    names = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        is_group = isinstance(kind, type) and issubclass(kind, BaseModel)
        names += list_options(kind, f"{before}{name}.") if is_group else [before + name]  # type: ignore[arg-type]
    return names


def _fold(word: str) -> str:
    return word.casefold().replace("_", "").replace("-", "").strip()
