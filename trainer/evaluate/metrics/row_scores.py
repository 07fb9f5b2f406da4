"""Scores of each sample for one label per picture, from one pass over the logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.blocks import cut_rows
from trainer.evaluate.metrics.calibration import brier_scores
from trainer.evaluate.metrics.rule import Rule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

TOP = 5


@dataclass(frozen=True)
class RowScores:
    """Scores of N samples: predicted int64, by the rule; best int64, the class with the largest logit; confidences
    float64, its probability; log_losses and brier float64; in_top bool, whether the label is among the first five."""

    predicted: Ints
    best: Ints
    confidences: Floats
    log_losses: Floats
    brier: Floats
    in_top: Bools


def score_rows(labels: Ints, logits: Logits, rule: Rule) -> RowScores:
    """Return the scores of logits float32[N, K] against labels int64[N]; computed in blocks of rows."""
    blocks = [_score_block(labels[rows], logits[rows], rule) for rows in cut_rows(*logits.shape)]
    columns = zip(*blocks, strict=True)
    return RowScores(*(np.concatenate(column) for column in columns))


def _score_block(labels: Ints, logits: Logits, rule: Rule) -> tuple[Ints, Ints, Floats, Floats, Floats, Bools]:
    probabilities = rule.task.compute_probabilities(logits)
    return (
        rule.predict(logits, probabilities),
        logits.argmax(axis=1),
        probabilities.max(axis=1),
        rule.task.log_losses(labels, logits),
        brier_scores(labels, probabilities),
        _is_in_top(labels, logits),
    )


def _is_in_top(labels: Ints, logits: Logits) -> Bools:
    """Return bool[N], whether fewer than 5 classes rank before the true one; ties go to the lower class number."""
    own = logits[np.arange(len(labels)), labels][:, None]
    before = (logits > own).sum(axis=1)
    tied = np.flatnonzero((logits == own).sum(axis=1) > 1)
    lower = np.arange(logits.shape[1]) < labels[tied, None]
    before[tied] += ((logits[tied] == own[tied]) & lower).sum(axis=1)
    in_top: Bools = before < TOP
    return in_top
