"""Losses against other libraries and closed forms; class weights; the teacher."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.loss
import torch
import torchvision.ops
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence
from torch.nn.functional import cross_entropy, interpolate

from shards.dataset.manifest import Task
from shards.errors import UsageError
from shards.pictures.decode import DecodeOptions
from trainer.contract.bundle import save_bundle
from trainer.contract.decision.decision import Decision
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.probes import synthesise_pictures
from trainer.recipes.file import load_recipe
from trainer.recipes.options.loss import LOSSES, LossOptions
from trainer.step.distillation import Distillation, load_distillation
from trainer.step.loss import Loss, build_loss
from trainer.step.multi_label_loss import MultiLabelLoss, build_multi_label_loss

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

CLASSES = ["ants", "bees", "wasps"]
COUNTS = np.array([10, 40, 150])
LABELS = torch.tensor([0, 1, 2, 2, 1])


def draw_logits(classes: int = 3) -> Tensor:
    return 3 * torch.randn(5, classes, generator=torch.Generator().manual_seed(0))


def build(classes: list[str] = CLASSES, counts: Any = COUNTS, **options: object) -> Loss:
    return build_loss(LossOptions.model_validate(options), np.asarray(counts), classes)


def refusal(classes: list[str] = CLASSES, counts: Any = COUNTS, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        build(classes, counts, **options)
    return str(caught.value)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_that_of_the_smoothed_target(smoothing: float) -> None:
    target = torch.full((5, 3), smoothing / 3).scatter_add(1, LABELS[:, None], torch.full((5, 1), 1 - smoothing))
    expected = -(target * draw_logits().softmax(1).log()).sum(1)
    torch.testing.assert_close(build(label_smoothing=smoothing).per_sample(draw_logits(), LABELS), expected)


def test_focal_loss_without_gamma_is_cross_entropy() -> None:
    expected = cross_entropy(draw_logits(), LABELS, reduction="none")
    torch.testing.assert_close(build(name="focal", focal_gamma=0).per_sample(draw_logits(), LABELS), expected)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (0.5, 0.25), (5.0, 0.9)])
def test_focal_loss_of_two_classes_is_torchvisions_of_their_difference(gamma: float, alpha: float | None) -> None:
    """A softmax of two logits is a sigmoid of their difference."""
    logits, labels = draw_logits(2), torch.tensor([0, 1, 1, 0, 1])
    loss = build(["no", "yes"], [1, 1], name="focal", focal_gamma=gamma, focal_alpha=alpha)
    difference = logits[:, 1] - logits[:, 0]
    expected = torchvision.ops.sigmoid_focal_loss(difference, labels.float(), -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(loss.per_sample(logits, labels), expected)


def test_focal_alpha_of_each_class_multiplies_its_losses() -> None:
    plain = build(name="focal").per_sample(draw_logits(), LABELS)
    scaled = build(name="focal", focal_alpha=[1, 2, 0.5]).per_sample(draw_logits(), LABELS)
    torch.testing.assert_close(scaled, plain * torch.tensor([1, 2, 0.5, 0.5, 2]))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_gradient_is_finite_where_the_answer_is_certain(gamma: float) -> None:
    logits = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0], [20.0, 0.0, 0.0]], requires_grad=True)
    build(name="focal", focal_gamma=gamma).per_sample(logits, torch.tensor([0, 0, 0])).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, 0] < 0 < logits.grad[1, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_vs_all_is_timms(smoothing: float) -> None:
    peer = timm.loss.BinaryCrossEntropy(smoothing=smoothing, reduction="none")
    loss = build(name="bce", label_smoothing=smoothing)
    torch.testing.assert_close(loss.per_sample(draw_logits(), LABELS), peer(draw_logits(), LABELS).mean(1))


SEVERAL = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0]])
"""Pictures of several labels and of none."""


def build_several(name: str = "bce", **options: object) -> MultiLabelLoss:
    """The loss of 200 pictures whose classes are in 10, 40 and 150 of them."""
    given = LossOptions.model_validate({"name": name, **options})
    return build_multi_label_loss(given, COUNTS, 200, CLASSES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_several_labels_is_the_mean_over_questions_of_yes_and_no(smoothing: float) -> None:
    p, target = draw_logits().sigmoid(), SEVERAL * (1 - smoothing) + smoothing / 2
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean(1)
    loss = build_several(label_smoothing=smoothing)
    torch.testing.assert_close(loss.per_sample(draw_logits(), SEVERAL), expected)


def test_balanced_classes_of_several_labels_count_as_much_where_they_are_as_where_they_are_not() -> None:
    """190, 160 and 50 pictures are without them: torch's own loss with these numbers over their counts."""
    peer = torch.nn.BCEWithLogitsLoss(reduction="none", pos_weight=torch.tensor([19, 4, 1 / 3]))
    loss = build_several(class_weights="balanced")
    torch.testing.assert_close(loss.per_sample(draw_logits(), SEVERAL), peer(draw_logits(), SEVERAL).mean(1))
    assert loss.weigh(SEVERAL).tolist() == [1.0] * 5


@pytest.mark.parametrize("given", [[0.5, 1, 4], {"wasps": 4, "ants": 0.5}])
def test_given_weights_of_several_labels_are_those_of_what_is_there(given: object) -> None:
    alone = build_several().per_sample(torch.zeros(3, 3), torch.eye(3))
    weighted = build_several(class_weights=given).per_sample(torch.zeros(3, 3), torch.eye(3))
    torch.testing.assert_close(weighted / alone, torch.tensor([2.5 / 3, 1, 2]))


@pytest.mark.parametrize(("count", "told"), [(0, "0 of 200"), (200, "200 of 200")])
def test_class_of_all_or_no_pictures_has_no_balanced_weight(count: int, told: str) -> None:
    options = LossOptions(name="bce", class_weights="balanced")
    with pytest.raises(UsageError) as caught:
        build_multi_label_loss(options, np.array([10, count, 20]), 200, CLASSES)
    assert str(caught.value) == (
        f"class 'bees' has {told} samples in the training split, so that loss.class_weights=balanced has no weight for "
        "it; give a number for each class"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_several_labels_are_those_of_the_batchs_parts(dtype: torch.dtype) -> None:
    loss, logits = build_several(class_weights="balanced", label_smoothing=0.1), draw_logits().to(dtype)
    whole = loss.per_sample(logits, SEVERAL)
    parts = [loss.per_sample(logits[part], SEVERAL[part]) for part in (slice(0, 2), slice(2, 2), slice(2, 5))]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.dtype == dtype
    assert loss.weigh(SEVERAL[:0]).shape == (0,)


def build_any(name: str, labels: Tensor, **options: object) -> Loss:
    """The loss of that name, of one label or of several as these labels are."""
    return build_several(name=name, **options) if labels.ndim == 2 else build(name=name, **options)


# What is added to the table is tested by all that is parametrised with it, and once more where it takes several labels.
NAMES = [(name, LABELS) for name in LOSSES] + [(name, SEVERAL) for name, row in LOSSES.items() if row.several]
ROWS = pytest.mark.parametrize(("name", "labels"), NAMES, ids=[f"{name}-{labels.ndim}" for name, labels in NAMES])


@ROWS
@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
def test_gradient_is_finite_for_logits_of_any_size(name: str, labels: Tensor, size: float) -> None:
    logits = (size * draw_logits()).requires_grad_()
    build_any(name, labels).per_sample(logits, labels).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@ROWS
def test_step_against_the_gradient_makes_the_loss_less(name: str, labels: Tensor) -> None:
    loss, logits = build_any(name, labels), (draw_logits().double() / 3).requires_grad_()
    before = loss.per_sample(logits, labels)
    (gradient,) = torch.autograd.grad(before.sum(), logits)
    after = loss.per_sample(logits - 0.01 * gradient, labels)
    assert (after <= before).all(), f"{name}: a small step against the gradient makes the loss of some sample larger"
    assert after.sum() < before.sum(), f"{name}: its gradient is 0, or leads nowhere"


@ROWS
def test_certain_and_right_answer_costs_nothing_unless_an_option_asks_for_it(name: str, labels: Tensor) -> None:
    yes = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels, 3).float()
    loss = build_any(name, labels)
    assert loss.per_sample(60 * (yes - 0.5), labels).max() < 1e-9
    assert loss.per_sample(60 * (0.5 - yes), labels).min() > 1


@ROWS
def test_labels_for_a_step_without_pictures_are_as_the_loss_takes_them(name: str, labels: Tensor) -> None:
    loss = build_any(name, labels)
    blank = loss.blank_labels(5, 3)
    assert (blank.shape, blank.dtype) == (labels.shape, labels.dtype)
    assert loss.per_sample(draw_logits(), blank).shape == loss.weigh(blank).shape == (5,)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_a_batch_are_those_of_its_parts(name: str, dtype: torch.dtype) -> None:
    """A slice of a rank has the losses that its samples have in the global batch; an empty one has none."""
    loss, logits = build(name=name, class_weights="balanced"), draw_logits().to(dtype)
    whole = loss.per_sample(logits, LABELS)
    parts = [loss.per_sample(logits[part], LABELS[part]) for part in (slice(0, 2), slice(2, 2), slice(2, 5))]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.dtype == dtype
    assert loss.weigh(LABELS[:0]).shape == (0,)


def test_without_class_weights_each_sample_weighs_one() -> None:
    assert build().weigh(LABELS).tolist() == [1.0] * 5


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat(np.arange(3), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    torch.testing.assert_close(build(class_weights="balanced").weigh(torch.arange(3)), torch.tensor(expected).float())


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.999999])
def test_effective_weights_are_those_of_the_paper(beta: float) -> None:
    """Cui et al. 2019: (1 - beta) / (1 - beta ** n), scaled so that they sum to the number of classes."""
    raw = [(1 - beta) / (1 - beta**count) for count in COUNTS.tolist()]
    expected = [3 * weight / sum(raw) for weight in raw]
    got = build(class_weights="effective", effective_beta=beta).weigh(torch.arange(3))
    assert got.tolist() == pytest.approx(expected, rel=1e-5)


def test_effective_weights_lie_between_equal_and_balanced_ones() -> None:
    near_none, between, near_balanced = (
        build(class_weights="effective", effective_beta=beta).weigh(torch.arange(3)) for beta in (1e-6, 0.99, 1 - 1e-9)
    )
    balanced = build(class_weights="balanced").weigh(torch.arange(3))
    torch.testing.assert_close(near_none, torch.ones(3), rtol=1e-4, atol=0)
    torch.testing.assert_close(near_balanced, balanced * 3 / balanced.sum(), rtol=1e-4, atol=0)
    assert near_none[0] < between[0] < near_balanced[0]


@pytest.mark.parametrize("given", [[0.5, 1, 4], {"wasps": 4, "ants": 0.5}])
def test_given_weights_are_those_of_the_labels(given: object) -> None:
    assert build(class_weights=given).weigh(LABELS).tolist() == [0.5, 1, 4, 4, 1]


def test_classes_that_are_numbers_are_given_weights_by_number() -> None:
    assert load_recipe("smoke", ["data=x", "loss.class_weights={red: 0}"]).loss.class_weights == {"red": 0.0}
    recipe = load_recipe("smoke", ["data=x", "loss.class_weights={0: 2, 7: 1e-1}"])
    assert recipe.loss.class_weights == {"0": 2.0, "7": 0.1}
    weights = build_loss(recipe.loss, np.ones(2, dtype=np.int64), ["0", "7"]).weigh(torch.tensor([1, 0]))
    assert weights.tolist() == pytest.approx([0.1, 2.0])


def test_weighted_mean_is_torchs() -> None:
    """Over the sum of weights, as the engine divides by it."""
    loss = build(class_weights="balanced", label_smoothing=0.0)
    weights = loss.weigh(LABELS)
    got = (loss.per_sample(draw_logits(), LABELS) * weights).sum() / weights.sum()
    torch.testing.assert_close(got, cross_entropy(draw_logits(), LABELS, weight=loss.weigh(torch.arange(3))))


def test_weights_that_do_not_fit_the_classes_are_refused() -> None:
    assert refusal(class_weights=[1, 2]) == (
        "loss.class_weights has 2 numbers for 3 classes; give one for each of ants, bees, wasps, in this order"
    )
    assert refusal(class_weights={"bee": 2}) == (
        "loss.class_weights names 'bee', which is not a class of the dataset; did you mean 'bees'?"
    )
    assert refusal(class_weights={"ants": 0, "bees": 0, "wasps": 0}) == (
        "loss.class_weights is 0 for every class, so that nothing is learned; set the weight of at least one class"
    )
    assert refusal(class_weights={"x": 2}) == (
        "loss.class_weights names 'x', which is not a class of the dataset; they are ants, bees, wasps"
    )
    assert refusal(name="focal", focal_alpha=0.25) == (
        "loss.focal_alpha has 2 numbers for 3 classes; give one for each of ants, bees, wasps, in this order"
    )
    assert refusal([f"c{i}" for i in range(30)], [1] * 30, class_weights=[1]).endswith(" c9 and 20 more, in this order")


@pytest.mark.parametrize("how", ["balanced", "effective"])
def test_class_without_samples_has_no_weight_by_their_number(how: str) -> None:
    assert refusal(counts=[3, 0, 2], class_weights=how) == (
        f"class 'bees' has 0 samples in the training split, so that loss.class_weights={how} has no weight for it; "
        "give a number for each class"
    )
    assert build(counts=[3, 0, 2], class_weights=[1, 2, 3]).weigh(LABELS[:2]).tolist() == [1, 2]


def list_users(option: str) -> str:
    return " or ".join(name for name, row in LOSSES.items() if option in row.uses)


REFUSED = {
    "loss.focal_gamma=1": (
        "loss: cross_entropy does not use focal_gamma, got focal_gamma=1; leave it out (null), "
        f"or use {list_users('focal_gamma')}"
    ),
    "loss={name: focal, label_smoothing: 0.1}": (
        "loss: focal does not use label_smoothing, got label_smoothing=0.1; leave it out (null), "
        f"or use {list_users('label_smoothing')}"
    ),
    "loss.teacher_share=0.9": (
        "loss: loss without teacher does not use teacher_share, got teacher_share=0.9; leave it out (null), "
        "or use teacher"
    ),
    "loss.effective_beta=0.9": (
        "loss: none does not use effective_beta, got effective_beta=0.9; leave it out (null), or use effective"
    ),
    "loss.class_weights=balance": (
        "loss.class_weights: class weights must be none, balanced, effective, a list, or class: number, got 'balance'"
    ),
    "loss.class_weights=[1, -2]": ("loss.class_weights: weights must be numbers of at least 0, not all 0, got [1, -2]"),
    "loss.class_weights=[0, 0]": "loss.class_weights: weights must be numbers of at least 0, not all 0, got [0, 0]",
    "loss.class_weights=3": "loss.class_weights: weights must be numbers of at least 0, not all 0, got 3",
    "loss={name: focal, focal_alpha: 2}": "loss.focal_alpha: a number for two classes must be in (0, 1), got 2",
    "loss.name=hinge": f"loss.name: the losses are {', '.join(LOSSES)}, got 'hinge'",
    "loss.name=fokal": f"loss.name: the losses are {', '.join(LOSSES)}, got 'fokal'; did you mean 'focal'?",
}


@pytest.mark.parametrize("option", REFUSED)
def test_option_that_the_loss_does_not_use_is_refused(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("smoke", ["data=x", option])
    assert str(caught.value) == REFUSED[option]


@pytest.mark.parametrize(
    "values",
    [
        {"name": "focal", "focal_alpha": [1, 2], "class_weights": {"a": 2}},
        {"class_weights": "effective", "label_smoothing": 0.1},
        {"teacher": "runs/a/bundle", "teacher_share": 0.3, "class_weights": [1, 2]},
        {"name": "bce", "class_weights": "balanced", "teacher": "runs/a/bundle"},
    ],
)
def test_resolved_options_go_through_json_unchanged(values: dict[str, object]) -> None:
    options = LossOptions.model_validate(values)
    assert LossOptions.model_validate(options.model_dump(mode="json")) == options


SIZE = 32
STUDENT = PreprocessSpec(size=SIZE)


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "bundle", STUDENT)


def make_teacher(folder: Path, preprocess: PreprocessSpec) -> Path:
    torch.manual_seed(1)
    normal: dict[str, Any] = {"mean": (0.5,) * preprocess.channels, "std": (0.25,) * preprocess.channels}
    spec = ModelSpec(name="timm/test_efficientnet", num_classes=3, in_channels=preprocess.channels, **normal)
    model = Classifier(spec)
    save_bundle(
        folder, model, synthesise_pictures(), preprocess=preprocess, classes=CLASSES,
        display_names=CLASSES, decision=Decision(), probes="synthetic", dataset="d", recipe="r", metrics={},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def several_path(teacher_path: Path) -> Path:
    """The same teacher, of pictures of several labels."""
    folder = shutil.copytree(teacher_path, teacher_path.with_name("several"))
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    changed = text.replace('"argmax"', '"each"').replace('"single-label"', '"multi-label"')
    (folder / "bundle.json").write_text(changed, encoding="utf-8")
    return folder


def load(path: Path, task: Task = "single-label", **options: object) -> Distillation:
    given = LossOptions.model_validate({"teacher": str(path), **options})
    return load_distillation(given, task, CLASSES, STUDENT, "cpu")


def draw_images(size: int = SIZE, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (5, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distance_to_the_teacher_is_the_divergence_at_its_temperature(teacher_path: Path, temperature: float) -> None:
    student, teacher = draw_logits(), draw_logits().flip(1)
    p, q = (teacher / temperature).softmax(1).double(), (student / temperature).softmax(1).double()
    expected = temperature**2 * (p * (p.log() - q.log())).sum(1)
    got = load(teacher_path, teacher_temperature=temperature).per_sample(student, teacher)
    torch.testing.assert_close(got, expected.float())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distance_of_several_labels_is_the_mean_of_the_divergences_of_yes_and_no(
    several_path: Path, temperature: float
) -> None:
    student, teacher = draw_logits(), draw_logits().flip(1)
    p, q = (Bernoulli(logits=logits.double() / temperature) for logits in (teacher, student))
    expected = temperature**2 * kl_divergence(p, q).mean(1)
    got = load(several_path, "multi-label", teacher_temperature=temperature).per_sample(student, teacher)
    torch.testing.assert_close(got, expected.float())


def test_distance_of_several_labels_is_finite_where_the_teacher_is_certain(several_path: Path) -> None:
    student = draw_logits().requires_grad_()
    distances = load(several_path, "multi-label").per_sample(student, 1e4 * draw_logits())
    distances.sum().backward()  # type: ignore[no-untyped-call]
    assert distances.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_student_that_answers_like_the_teacher_has_no_distance(teacher_path: Path) -> None:
    distances = load(teacher_path).per_sample(draw_logits() + 7, draw_logits())
    torch.testing.assert_close(distances, torch.zeros(5), rtol=0, atol=1e-5)


def test_share_of_the_teacher_is_taken_from_the_labels(teacher_path: Path) -> None:
    distillation, teacher = load(teacher_path, teacher_share=0.3), draw_logits().flip(1)
    hard = cross_entropy(draw_logits(), LABELS, reduction="none")
    expected = 0.7 * hard + 0.3 * distillation.per_sample(draw_logits(), teacher)
    torch.testing.assert_close(distillation.mix(hard, draw_logits(), teacher), expected)


def test_teacher_answers_as_its_bundle_does_and_stays_as_it_is(teacher_path: Path) -> None:
    """In evaluation mode: its norms' statistics do not move, and it has no gradient."""
    distillation = load(teacher_path)
    model = distillation._teacher
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    got = distillation.compute_logits(draw_images())
    assert torch.equal(got, model(draw_images()))
    assert not got.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_gradient_reaches_the_student_through_the_teachers_answer(teacher_path: Path) -> None:
    distillation, student = load(teacher_path, teacher_temperature=1), draw_logits().requires_grad_()
    teacher = distillation.compute_logits(draw_images())
    distillation.per_sample(student, teacher).sum().backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, student.detach().softmax(1) - teacher.softmax(1))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_teacher_of_another_size_sees_the_picture_resized(tmp_path: Path, interpolation: Any) -> None:
    distillation = load(make_teacher(tmp_path / "bundle", PreprocessSpec(size=48, interpolation=interpolation)))
    resized = interpolate(draw_images().float(), (48, 48), mode=interpolation, antialias=True).clamp(0, 255)
    assert torch.equal(distillation.compute_logits(draw_images()), distillation._teacher(resized))


def test_teacher_of_gray_pictures_sees_luminance(tmp_path: Path) -> None:
    distillation = load(make_teacher(tmp_path / "bundle", PreprocessSpec(size=SIZE, channels=1)))
    images = draw_images().float()
    gray = 0.2989 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    torch.testing.assert_close(distillation.compute_logits(images), distillation._teacher(gray), rtol=1e-3, atol=1e-3)


def test_teacher_of_colours_sees_a_gray_picture_three_times(teacher_path: Path) -> None:
    distillation, gray = load(teacher_path), draw_images(channels=1)
    torch.testing.assert_close(
        distillation.compute_logits(gray), distillation.compute_logits(gray.expand(-1, 3, -1, -1))
    )


def test_teacher_of_other_classes_is_refused(teacher_path: Path) -> None:
    options = LossOptions.model_validate({"teacher": str(teacher_path)})
    with pytest.raises(UsageError) as caught:
        load_distillation(options, "single-label", ["ants", "wasps", "bees"], STUDENT, "cpu")
    assert str(caught.value) == (
        f"the teacher {teacher_path} has 3 classes (ants, bees, wasps), but the dataset has 3 classes "
        "(ants, wasps, bees); use a teacher that was trained on these classes, in this order"
    )


def test_teacher_of_another_number_of_labels_is_refused(teacher_path: Path, several_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"several is multi-label, but the dataset is single-label, so its answers can"
    ):
        load(several_path)
    with pytest.raises(
        UsageError, match=r"bundle is single-label, but the dataset is multi-label, .* trained on this datase"
    ):
        load(teacher_path, "multi-label")


def test_teacher_that_reads_other_values_is_refused(teacher_path: Path) -> None:
    options = LossOptions.model_validate({"teacher": str(teacher_path)})
    other = PreprocessSpec(size=SIZE, decode=DecodeOptions(gray_range=(0, 4095)))
    with pytest.raises(
        UsageError, match=r"gray_range=None .* gray_range=\(0\.0, 4095\.0\) .* teacher trained on this dataset$"
    ):
        load_distillation(options, "single-label", CLASSES, other, "cpu")


def test_teacher_that_is_not_there_is_refused(tmp_path: Path) -> None:
    options = LossOptions.model_validate({"teacher": str(tmp_path)})
    with pytest.raises(UsageError, match=r"is not a bundle"):
        load_distillation(options, "single-label", CLASSES, STUDENT, "cpu")
