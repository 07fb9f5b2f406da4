"""One label or several: both tasks keep one contract."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from shards.dataset.manifest import Task as StoredTask
from trainer.contract.bundle import BundlePage
from trainer.contract.decision.decision import Decision, make_plain_decision
from trainer.contract.task import MANY_LABELS, ONE_LABEL, RuleName, Task, make_task

TASKS = [ONE_LABEL, MANY_LABELS]
CLASSES = ["ants", "bees", "cats"]
LABELS = {"single-label": np.array([2, 0, 1, 0]), "multi-label": np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])}
LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def test_every_task_that_a_dataset_or_a_bundle_stores_is_made() -> None:
    assert {make_task(stored) for stored in get_args(StoredTask)} == set(TASKS)
    stored = get_args(BundlePage.model_fields["task"].annotation)
    assert [make_task(name).name for name in stored] == list(stored)


def test_every_rule_is_of_one_task() -> None:
    assert sorted(rule for task in TASKS for rule in task.rules) == sorted(get_args(RuleName))


@each_task
def test_plain_decision_is_of_its_task(task: Task) -> None:
    decision = make_plain_decision(task.name)
    assert (decision.task, decision.find_thresholds(CLASSES)) == (task, {})
    assert Decision().task is ONE_LABEL


@each_task
def test_probabilities_of_answers_and_of_evaluations_differ_in_the_last_bit_at_most(task: Task) -> None:
    answers = task.soften(torch.from_numpy(LOGITS).double()).numpy()
    assert task.compute_probabilities(LOGITS) == pytest.approx(answers, abs=1e-15)


@each_task
def test_labels_are_read_as_they_are_named(task: Task) -> None:
    labels = LABELS[task.name]
    assert np.array_equal(task.read_labels(task.name_labels(labels, CLASSES), CLASSES), labels)
    with pytest.raises(ValueError, match=r"dogs|1 rows have labels that are no classes"):
        task.read_labels(["ants", "dogs"], CLASSES)


@each_task
def test_view_by_class_has_a_yes_for_each_label(task: Task) -> None:
    labels = LABELS[task.name]
    flags = task.flag(labels, len(CLASSES))
    named = [[name for name, there in zip(CLASSES, row, strict=True) if there] for row in flags]
    assert [";".join(names) for names in named] == task.name_labels(labels, CLASSES)


@each_task
def test_batch_holds_the_labels_of_its_samples(task: Task) -> None:
    labels = LABELS[task.name]
    numbers = [tuple(np.flatnonzero(row).tolist()) for row in task.flag(labels, len(CLASSES))]
    assert np.array_equal(task.gather(numbers, len(CLASSES)).numpy(), labels)


def test_sample_without_a_label_is_fed_as_minus_one() -> None:
    """A contact sheet can be drawn of pictures that nobody has labelled."""
    assert make_task("unlabelled").gather([(), (1,)], 3).tolist() == [-1, 1]


@each_task
def test_prediction_is_right_where_all_of_it_is(task: Task) -> None:
    labels = LABELS[task.name]
    other = labels.copy()
    other.flat[0] = 1 - other.flat[0]
    assert task.compare(labels, labels).all()
    assert task.compare(labels, other).tolist() == [False, True, True, True]


@each_task
def test_truth_is_rated_by_the_mean_log_loss_of_its_answers(task: Task) -> None:
    labels = LABELS[task.name]
    losses = task.log_losses(labels, LOGITS).reshape(4, -1).mean(axis=1)
    assert task.rate_truth(labels, LOGITS) == pytest.approx(np.exp(-losses))


@each_task
def test_answers_to_a_question_share_one_probability(task: Task) -> None:
    answers = task.log_answers(torch.from_numpy(LOGITS)).exp()
    torch.testing.assert_close(answers.sum(2), torch.ones(answers.shape[:2]))
    assert answers.shape[1] == {"single-label": 1, "multi-label": len(CLASSES)}[task.name]


@each_task
def test_threshold_in_force_is_kept_and_the_others_are_the_plain_ones(task: Task) -> None:
    probabilities = np.array([[0.45, 0.35, 0.2], [0.6, 0.15, 0.25]])
    plain = task.predict(probabilities, probabilities, {})
    found = task.predict(probabilities, probabilities, {1: 0.3})
    flags, before = task.flag(found, 3), task.flag(plain, 3)
    assert flags[:, 1].tolist() == [True, False]
    assert flags[1].tolist() == before[1].tolist() == [True, False, False]
    assert (task.name_rule({}), task.name_rule({1: 0.3})) == (task.rules[0], task.rules[-1])
