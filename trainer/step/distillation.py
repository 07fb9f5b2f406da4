"""Distillation: a trained bundle (the teacher) whose outputs are targets in addition to the labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, kl_div

from shards.dataset.manifest import Task
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.preprocess import PreprocessSpec, take_luminance
from trainer.contract.task import make_task
from trainer.recipes.options.loss import LossOptions


class Distillation:
    """The teacher, in evaluation mode and without gradients, and the distance of the student's logits to its logits.

    It is not part of the model: optimizer, snapshots and bundle do not contain it.
    """

    def __init__(self, bundle: Bundle, temperature: float, share: float) -> None:
        self._teacher = bundle.model.eval().requires_grad_(False)
        self._spec = bundle.page.preprocess
        self._temperature = temperature
        self._share = share
        self._task = make_task(bundle.page.task)

    @torch.no_grad()
    def compute_logits(self, images: Tensor) -> Tensor:
        """Return float32[n, K], the teacher's logits for the student's augmented pictures, on their device.

        images: uint8 or float32[n, C, S, S] in 0..255, C in {1, 3}. They are resized (antialiased, with the teacher's
        interpolation) and converted to gray or RGB if the teacher needs it.
        """
        logits: Tensor = self._teacher(self._fit(images))
        return logits

    def per_sample(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return float32[n], T ** 2 * KL(teacher || student) of both softmaxes at temperature T.

        For several labels, it is the mean over classes of the divergence of both sigmoids (yes and no), like their
        loss.

        Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2; Yang et al. 2023,
        Multi-Label Knowledge Distillation, for several labels.
        """
        student = student_logits / self._temperature
        teacher = teacher_logits.to(student.dtype) / self._temperature
        ours, theirs = self._task.log_answers(student), self._task.log_answers(teacher)
        # p * log(p / q) for each answer, with the teacher's p and the student's q.
        distances = kl_div(ours, theirs, reduction="none", log_target=True)
        return distances.sum(2).mean(1) * self._temperature**2

    def mix(self, hard: Tensor, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the combined losses float32[n]; hard: losses of the labels, float32[n]."""
        return (1 - self._share) * hard + self._share * self.per_sample(student_logits, teacher_logits)

    def _fit(self, images: Tensor) -> Tensor:
        if self._spec.channels == 1 and images.shape[1] == 3:
            images = take_luminance(images, self._spec.luminance)
        size = self._spec.size
        if images.shape[-1] == size:
            return images
        # Clip overshoots: the teacher was trained on 0..255.
        resized = interpolate(images.float(), (size, size), mode=self._spec.interpolation, antialias=True)
        return resized.clamp(0, 255)


def load_distillation(
    options: LossOptions, task: Task, classes: list[str], preprocess: PreprocessSpec, device: str
) -> Distillation:
    """Return the recipe's teacher on `device`.

    Args:
        options: The recipe's loss options, with a teacher.
        task: Task of the dataset.
        classes: Classes of the dataset.
        preprocess: The student's preprocessing.
        device: Device, by torch's name.

    Raises:
        UsageError: The folder is not a bundle, or the teacher has other classes, another task or another scaling of
            pixel values.
        ShardError: The bundle is damaged.
    """
    assert options.teacher is not None
    assert options.teacher_temperature is not None  # LossOptions fills both in
    assert options.teacher_share is not None
    bundle = Bundle.load(options.teacher, device)
    if bundle.page.task != task:
        raise UsageError(
            f"the teacher {options.teacher} is {bundle.page.task}, but the dataset is {task}, so its answers cannot be "
            "targets; use a teacher that was trained on this dataset"
        )
    if bundle.page.classes != classes:
        raise UsageError(
            f"the teacher {options.teacher} has {_describe(bundle.page.classes)}, but the dataset has "
            f"{_describe(classes)}; use a teacher that was trained on these classes, in this order"
        )
    ours, theirs = _describe_values(preprocess), _describe_values(bundle.page.preprocess)
    if ours != theirs:
        raise UsageError(
            f"the teacher {options.teacher} decodes pictures with {theirs}, but the dataset uses {ours}, so it "
            "would see other values than in its training; use a teacher trained on this dataset"
        )
    return Distillation(bundle, options.teacher_temperature, options.teacher_share)


def _describe(classes: list[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''})"


def _describe_values(preprocess: PreprocessSpec) -> str:
    return f"gray_range={preprocess.decode.gray_range} and background={preprocess.decode.background}"
