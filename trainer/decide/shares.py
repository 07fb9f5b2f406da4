"""How often a decision gives each label: what an endpoint's answers are compared with."""

from __future__ import annotations

import torch

from trainer.contract.bundle import MOST_SHARES
from trainer.contract.decision.calibration import calibrate
from trainer.contract.decision.decision import Decision
from trainer.decide.seen import Seen


def measure_shares(decision: Decision, classes: list[str], seen: Seen) -> dict[str, float] | None:
    """Return, by class, the share of pictures to which a decision gives the label; None with too many classes."""
    if len(classes) > MOST_SHARES:
        return None
    thresholds = decision.find_thresholds(classes)
    calibrated = calibrate(torch.from_numpy(seen.logits), decision.temperature, decision.priors)
    shares = seen.task.soften(calibrated).numpy()
    predicted = seen.task.predict(shares if thresholds else calibrated.numpy(), shares, thresholds)
    given = seen.task.flag(predicted, len(classes)).mean(axis=0)
    return dict(zip(classes, given.tolist(), strict=True))
