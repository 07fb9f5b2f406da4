"""From logits to an answer.

The order is fixed: logits are divided by the temperature; the probabilities that these give are re-weighted to the
class shares of the place of use; then the operating point and the conformal set look at these probabilities. All of it
is fitted by `trainer.decide` and stored in the bundle. What an answer says:

- probability, probabilities: after temperature and class shares.
- label: the class finally given. It is the operating point's class where the bundle has one, else the most probable.
- decision: the same class again where `trainer.decide` has run, absent otherwise: who reads it knows that a rule was
  chosen on purpose.
- ood_score: how far the penultimate features are from those of the fit, >= 0; absent where none was fitted.
- set: the classes that the picture may be of, the most probable first; it may be empty. It holds the true class with
  the level's probability; the operating point minds costs instead, so that `label` may lie outside. Absent where none
  was fitted.
- abstain: somebody else should look. True where the score is above its threshold, the set does not have exactly one
  class, or no class has the probability `abstain_below` (Chow 1970, On Optimum Recognition Error and Reject Tradeoff).
  `label` is given all the same. Absent where `trainer.decide` has not run.

Where a picture has any number of labels, each class is a question of its own: its probability is the sigmoid of its
logit, divided by the temperature, and `labels`, the classes whose probability reaches the threshold of their operating
point, 0.5 where they have none, is the decision. `decision` and `set` are absent.
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
    """What a decision was fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    """Fingerprint of the dataset."""
    part: Literal["train", "val", "test"]
    samples: int
    groups: int | None = None
    """What belongs together (patients, modules), counted by the intervals; None: they count pictures."""
    notes: list[str]
    """What its user must know."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class Decision(BaseModel):
    """How logits become a label; stored in the bundle, used by predict and serve alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: RuleName = "argmax"
    """argmax: the most probable class; the lower class number wins a tie. threshold: the class of the operating point
    from its threshold on, else the most probable of the others. each: every class whose own probability is at least
    0.5, or what its operating point says. Bundles keep argmax beside a point, too; `state_rule` tells them apart."""
    temperature: float | None = Field(default=None, gt=0)
    """Logits are divided by it; None is 1."""
    priors: PriorShift | None = None
    """Class shares in training and where the model is used; None where they are the same."""
    point: OperatingPoint | None = None
    """Replaces the most probable class by one that is decided from a probability on."""
    points: list[OperatingPoint] | None = Field(default=None, min_length=1)
    """Where each class is asked for: of those that are there from another probability on than 0.5."""
    conformal: ConformalSets | None = None
    ood: OodRule | None = None
    abstain_below: float | None = Field(default=None, gt=0, lt=1)
    """Abstain where no class has this probability."""
    fitted: Fitted | None = None
    """None where `trainer.decide` has not run."""

    @model_validator(mode="after")
    def _fits_its_rule(self) -> Self:
        others = ["priors", "point", "conformal", "abstain_below"] if self.rule == "each" else ["points"]
        for name in others:
            if getattr(self, name) is not None:
                raise ValueError(f"a decision by the rule {self.rule} has no {name}")
        if self.rule == "threshold" and self.point is None:
            raise ValueError("a decision by the rule threshold has a point")
        if len({point.positive for point in self.points or []}) != len(self.points or []):
            raise ValueError("a class has two operating points")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A bundle that was never decided keeps the page, and so the fingerprint, that it had before there was more.
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def task(self) -> Task:
        """What the rule decides about."""
        return next(task for task in (ONE_LABEL, MANY_LABELS) if self.rule in task.rules)

    def find_thresholds(self, classes: list[str]) -> Thresholds:
        """Return the thresholds of its operating points, by number of their class."""
        points = {point.positive: point for point in self.points or ([self.point] if self.point else [])}
        return {number: points[name].threshold for number, name in enumerate(classes) if name in points}

    def state_rule(self) -> Decision:
        """Return the same decision with the rule that is applied: threshold, not argmax, where a point decides.

        What a bundle stores stays argmax: its fingerprint, and that of bundles made before, must not change.
        """
        return self if self.point is None else self.model_copy(update={"rule": "threshold"})


def make_plain_decision(task: StoredTask) -> Decision:
    """Return what a bundle of a task decides by until `trainer.decide` has run."""
    return Decision(rule=make_task(task).rules[0])


class Answer(BaseModel):
    """What is said of one picture; the module's text has the meaning of each."""

    model_config = ConfigDict(frozen=True)

    label: str | None
    """The class that is given; where each is asked for the most probable of those that are there, None if none is."""
    labels: list[str]
    """All classes that are there, in class order: `label` alone, or any number where each is asked for."""
    probability: float
    """Probability of `label`, 0..1; where none is there, of the most probable class."""
    probabilities: dict[str, float]
    """Softmax of all classes, which sum to 1; where each is asked for, the sigmoid of each."""
    logits: list[float]
    """As the model gave them."""
    decision: str | None = None
    abstain: bool | None = None
    ood_score: float | None = None
    set: list[str] | None = None

    def describe(self) -> dict[str, Any]:
        """Return what there is to say, for people and JSON: fields that nothing was fitted for are left out."""
        return {name: value for name, value in self.model_dump().items() if value is not None or name == "label"}

    def _repr_html_(self) -> str:
        """Return a table for notebooks: what is given, and the probabilities, largest first."""
        from html import escape  # late: notebooks alone

        said = {name: value for name, value in self.describe().items() if name not in ("probabilities", "logits")}
        rows = [(name, escape(str(value))) for name, value in said.items()]
        largest = sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:10]
        rows += [(escape(name), f"<progress value={share:.4f}></progress> {share:.1%}") for name, share in largest]
        return f"<table>{''.join(f'<tr><td>{name}</td><td>{value}</td></tr>' for name, value in rows)}</table>"


def answer(logits: Tensor, classes: list[str], decision: Decision, ood_score: float | None = None) -> Answer:
    """Return the answer for one picture.

    Args:
        logits: float32[K].
        classes: K names.
        decision: What the bundle says.
        ood_score: Of the same forward pass, where the decision has `ood`.

    Raises:
        ValueError: The decision needs a score, and there is none.
    """
    if decision.ood is not None and ood_score is None:
        raise ValueError("this bundle scores how far pictures are from training's; use Bundle.compute, which gives it")
    task, thresholds = decision.task, decision.find_thresholds(classes)
    calibrated = calibrate(logits, decision.temperature, decision.priors)
    shares = task.soften(calibrated)
    # Beside a threshold the others are ranked by probability, as the program of an export does it.
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
    """Return what only a decision that was fitted adds to an answer, of either task."""
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
