"""From logits to an answer.

The order is fixed: logits are divided by the temperature; the resulting probabilities are re-weighted to the class
shares at deployment; the operating point and the conformal set then use these probabilities. `trainer.decide` fits all
of it and stores it in the bundle. The fields of an answer:

- probability, probabilities: after temperature and class shares.
- label: the class that is decided: by the operating point if the bundle has one, else the most probable class.
- decision: the same class again if `trainer.decide` has run, else absent: its presence shows that a rule was
  chosen on purpose.
- ood_score: distance of the penultimate features from those of the fit, >= 0; absent if none was fitted.
- set: the classes that the picture may be of, the most probable first; it may be empty. It holds the true class with
  the probability `level`. The operating point weighs costs instead, so `label` may lie outside the set. Absent if none
  was fitted.
- abstain: a person should look at the picture. True if the score is above its threshold, the set does not have exactly
  one class, or no class has the probability `abstain_below` (Chow 1970, On Optimum Recognition Error and Reject
  Tradeoff). `label` is given anyway. Absent if `trainer.decide` has not run.

With several labels per picture, each class is a separate yes/no question: its probability is the sigmoid of its logit
divided by the temperature. `labels` has the classes whose probability reaches the threshold of their operating point,
or 0.5 if they have none. `decision` and `set` are absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor

from trainer.contract.decision.calibration import PriorShift, calibrate
from trainer.contract.decision.conformal import ConformalSets, find_members
from trainer.contract.decision.ood import OodRule
from trainer.contract.decision.operating_point import OperatingPoint
from trainer.contract.task import MANY_LABELS, ONE_LABEL, RuleName, Task, Thresholds, make_task

if TYPE_CHECKING:
    from shards.dataset.manifest import Task as StoredTask  # serving does without it


class Fitted(BaseModel):
    """The data that a decision was fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    """Fingerprint of the dataset."""
    part: Literal["train", "val", "test"]
    samples: int
    groups: int | None = None
    """Name of the groups (patients, modules) that the intervals count; None: they count pictures."""
    notes: list[str]
    """Caveats for the user."""
    label_shares: dict[str, float] | None = None
    """By class, the share of these pictures to which the decision gives it; None: not measured."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class Decision(BaseModel):
    """How logits become a label; stored in the bundle, used by predict and serve alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: RuleName = "argmax"
    """argmax: the most probable class; the lower class number wins a tie. threshold: the class of the operating point
    from its threshold on, else the most probable of the others. each: every class whose own probability is at least
    0.5 or that of its operating point. Bundles with a point also store argmax; see `state_rule`."""
    temperature: float | None = Field(default=None, gt=0)
    """Divisor of the logits; None means 1."""
    priors: PriorShift | None = None
    """Class shares in training and at deployment; None if they are the same."""
    point: OperatingPoint | None = None
    """Decides for one class from a probability threshold on, else for the most probable of the others."""
    points: list[OperatingPoint] | None = Field(default=None, min_length=1)
    """With several labels: operating points of the classes whose threshold is not 0.5."""
    conformal: ConformalSets | None = None
    ood: OodRule | None = None
    abstain_below: float | None = Field(default=None, gt=0, lt=1)
    """Abstain if no class reaches this probability."""
    fitted: Fitted | None = None
    """None if `trainer.decide` has not run."""

    @model_validator(mode="after")
    def _fits_its_rule(self) -> Self:
        others = ["priors", "point", "conformal", "abstain_below"] if self.rule == "each" else ["points"]
        for name in others:
            if getattr(self, name) is not None:
                raise ValueError(f"a decision with the rule {self.rule} must not have {name}")
        if self.rule == "threshold" and self.point is None:
            raise ValueError("a decision with the rule `threshold` needs an operating point")
        if len({point.positive for point in self.points or []}) != len(self.points or []):
            raise ValueError("a class has two operating points")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A bundle without a fitted decision keeps its earlier stored form, and so its fingerprint.
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def task(self) -> Task:
        """The task that the rule belongs to."""
        return next(task for task in (ONE_LABEL, MANY_LABELS) if self.rule in task.rules)

    def find_thresholds(self, classes: list[str]) -> Thresholds:
        """Return the thresholds of its operating points by class number."""
        points = {point.positive: point for point in self.points or ([self.point] if self.point else [])}
        return {number: points[name].threshold for number, name in enumerate(classes) if name in points}

    def state_rule(self) -> Decision:
        """Return the same decision with the rule that is applied: threshold, not argmax, if it has a point.

        Bundles still store argmax, because the fingerprints of existing bundles must not change.
        """
        return self if self.point is None else self.model_copy(update={"rule": "threshold"})


def make_plain_decision(task: StoredTask) -> Decision:
    """Return the decision of a bundle before `trainer.decide` has run."""
    return Decision(rule=make_task(task).rules[0])


class Answer(BaseModel):
    """The prediction for one picture; the module docstring explains each field."""

    model_config = ConfigDict(frozen=True)

    label: str | None
    """The decided class; with several labels the most probable predicted one, None if none is predicted."""
    labels: list[str]
    """All predicted classes in class order: `label` alone, or any number with several labels."""
    probability: float
    """Probability of `label`, 0..1; if `label` is None, of the most probable class."""
    probabilities: dict[str, float]
    """Softmax over all classes, summing to 1; with several labels, the sigmoid of each."""
    logits: list[float]
    """Raw output of the model."""
    decision: str | None = None
    abstain: bool | None = None
    ood_score: float | None = None
    set: list[str] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the fields for display and JSON, without those that nothing was fitted for."""
        return {name: value for name, value in self.model_dump().items() if value is not None or name == "label"}

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the decision, then the probabilities, largest first."""
        from html import escape  # late: notebooks alone

        said = {name: value for name, value in self.describe().items() if name not in ("probabilities", "logits")}
        rows = [(name, escape(str(value))) for name, value in said.items()]
        largest = sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:10]
        rows += [(escape(name), f"<progress value={share:.4f}></progress> {share:.1%}") for name, share in largest]
        return f"<table>{''.join(f'<tr><td>{name}</td><td>{value}</td></tr>' for name, value in rows)}</table>"


def answer(
    logits: Tensor,
    classes: list[str],
    decision: Decision,
    ood_score: float | None = None,
    thresholds: Thresholds | None = None,
) -> Answer:
    """Return the answer for one picture.

    Args:
        logits: float32[K].
        classes: K names.
        decision: The bundle's decision.
        ood_score: From the same forward pass, if the decision has `ood`.
        thresholds: Probabilities in place of those of the decision's operating points, by class number.

    Raises:
        ValueError: The decision needs a score, but none was given.
    """
    if decision.ood is not None and ood_score is None:
        raise ValueError("this bundle needs an out-of-distribution score; use Bundle.compute, which returns it")
    task = decision.task
    thresholds = decision.find_thresholds(classes) if thresholds is None else thresholds
    calibrated = calibrate(logits, decision.temperature, decision.priors)
    shares = task.soften(calibrated)
    # With a threshold, the other classes are ranked by probability, as in the program of an export.
    scores = (shares if thresholds else calibrated).numpy()
    given = task.flag(task.predict(scores[None], shares.numpy()[None], thresholds), len(classes))[0]
    among = calibrated.where(torch.from_numpy(given), -torch.inf) if given.any() else calibrated
    best = int(among.argmax())
    label = classes[best] if given[best] else None
    return Answer(
        label=label,
        labels=[name for name, is_given in zip(classes, given.tolist(), strict=True) if is_given],
        probability=float(shares[best]),
        probabilities=dict(zip(classes, shares.tolist(), strict=True)),
        logits=logits.tolist(),
        decision=label if task.is_exclusive and decision.fitted else None,
        **_judge(shares, classes, decision, ood_score),
    )


def _judge(shares: Tensor, classes: list[str], decision: Decision, ood_score: float | None) -> dict[str, Any]:
    """Return the fields that only a fitted decision adds to an answer, for either task."""
    if decision.fitted is None:
        return {}
    members = find_members(shares.numpy(), decision.conformal) if decision.conformal else None
    reasons = (
        decision.ood is not None and not (ood_score or 0.0) <= decision.ood.threshold,
        members is not None and len(members) != 1,
        decision.abstain_below is not None and float(shares.max()) < decision.abstain_below,
    )
    return {
        "abstain": any(reasons),
        "ood_score": ood_score if decision.ood else None,
        "set": None if members is None else [classes[member] for member in members],
    }
