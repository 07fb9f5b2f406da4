"""model_card.md: facts, results and limits of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shards.files.atomic import write_text
from trainer.contract.metrics import spell_metric
from trainer.contract.model.names import TIMM_PREFIX
from trainer.contract.preprocess import PreprocessSpec
from trainer.recipes.recipe import Recipe
from trainer.report.data import count_classes, describe_audit
from trainer.report.judged import list_metrics, tell_intervals
from trainer.report.page import list_fingerprints
from trainer.report.result import describe_result, list_positive, spell_figure
from trainer.report.sources import Finished

CARD = "model_card.md"
_OWNER = "*To be filled in by the owner of the model; not known from the run's files.*"


def write_card(run: Finished) -> Path:
    """Write model_card.md to the run folder and its bundle, and return the first path."""
    text = describe_model(run)
    for folder in (run.folder, run.folder / "bundle"):
        write_text(folder / CARD, text)
    return run.folder / CARD


def describe_model(run: Finished) -> str:
    """Return the card in Markdown."""
    recipe, page = run.recipe, run.page
    facts = {
        "model": page.model.name,
        "task": page.task,
        "classes": ", ".join(page.display_names),
        "starting weights": f"{recipe.weights}; licence: {find_licence(recipe)}",
        "training": f"{len(run.rows)} epochs, {recipe.optim.name}, {recipe.loss.name}, seed {recipe.seed}",
        "best epoch": f"{run.rows[-1]['val/best_epoch']:.0f}, by {spell_metric(recipe.stop.metric)} on val",
        "decides by": "the most probable class" if page.decision.task.is_exclusive else "each class from 0.5 on",
    }
    blocks = [
        f"# Model card: {recipe.name}",
        _table(["", ""], facts.items()),
        f"## Intended use\n\n{_OWNER}",
        f"## Not intended\n\n{_OWNER}",
        f"## Licence of the model and of its data\n\n{_OWNER}",
        f"## Data\n\n{_describe_data(run)}",
        f"## Preprocessing\n\n{_table(['', ''], _list_preprocess(page.preprocess))}",
        *(_describe_part(run, number) for number in range(len(run.evaluations))),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in list_limits(run)),
        f"## Fingerprints\n\n{_table(['', 'sha256'], list_fingerprints(run).items())}",
    ]
    return "\n\n".join(blocks) + "\n"


def _describe_data(run: Finished) -> str:
    manifest = run.dataset.manifest
    classes = [[name, *row] for name, row in count_classes(run)]
    samples = ["all pictures", *(split.samples for split in manifest.splits.values())]
    audit = _table(["", ""], describe_audit(run).items())
    return f"{_table(['class', *manifest.splits], [*classes, samples])}\n\n{audit}"


def _list_preprocess(spec: PreprocessSpec) -> list[tuple[str, Any]]:
    """Return name and value of the options that are set, including decoding."""
    told = spec.model_dump(mode="json")
    return [(name, value) for name, value in (told | told.pop("decode")).items() if value is not None]


def _describe_part(run: Finished, number: int) -> str:
    evaluation = run.evaluations[number]
    metrics = evaluation.metrics
    body = [[spell_figure(name, metrics, run.display_names), *rest] for name, *rest in list_metrics(metrics)]
    header = ["metric", "value", "95 % interval"]
    warning = f"**{metrics['warning']}.**\n\n" if "warning" in metrics else ""
    positive = "".join(f"{line}\n\n" for line in list_positive(run, metrics))
    return (
        f"## Results on {evaluation.part}\n\n{warning}{describe_result(run, evaluation)} "
        f"{tell_intervals(metrics)}\n\n{positive}{_table(header, body)}"
    )


def list_limits(run: Finished) -> list[str]:
    """Return the limits that a user of the model must know."""
    groups = describe_audit(run)["groups"]
    limits = [
        "Results hold for pictures taken like those of the dataset: another device, place or time, or other "
        "class shares, may change them, and this was not measured.",
        f"Groups (patients, devices): {groups}.",
    ]
    decision = run.page.decision
    if decision.temperature is None:
        limits.append("Probabilities are not calibrated.")
    if decision.ood is None:
        limits.append("A picture of none of the classes still gets a label: there is no out-of-distribution score.")
    return [*limits, *(f"{note}." for note in run.notes)]


def find_licence(recipe: Recipe) -> str:
    """Return the licence of the starting weights as stated by their library or package."""
    if recipe.weights == "none":
        return "none needed, the run started from random weights"
    from trainer.weights.installed import INSTALLED  # late: without weights nothing asks for it

    if recipe.weights in INSTALLED:
        return INSTALLED[recipe.weights].licence
    if recipe.model.startswith(TIMM_PREFIX) and not Path(recipe.weights).exists() and "://" not in recipe.weights:
        from timm.models import get_pretrained_cfg

        tag = "" if recipe.weights in ("pretrained", "DEFAULT") else f".{recipe.weights}"
        known = get_pretrained_cfg(recipe.model.removeprefix(TIMM_PREFIX) + tag, allow_unregistered=True)
        if known is not None and known.license:
            return f"{known.license}, according to timm"
    return "unknown; check the source of the weights"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def _escape(cell: object) -> str:
    """Return text for a table cell, with bars and line breaks escaped."""
    return str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
