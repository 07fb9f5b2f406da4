"""The space of a sweep: factors with named levels, each level a set of changes to the recipe."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from shards.errors import UsageError, explain_invalid
from trainer.recipes.file import apply_override, build_recipe
from trainer.recipes.options.section import Section
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RunFolder

SPACES = Path(__file__).parent / "spaces"
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class Space(Section):
    """A full grid over factors, with early stopping by ASHA."""

    factors: dict[str, dict[str, dict[str, Any]]] = Field(min_length=1)
    """{factor: {level: {recipe option: value}}}; every combination of levels is a trial."""
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that every trial gets before it may be stopped early."""
    reduction_factor: int = Field(default=2, ge=2)
    """At each rung, the best 1/reduction_factor of the trials so far continue."""
    cpus_per_trial: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for a trial, and its torch threads."""
    gpus_per_trial: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for a trial; with a fraction, trials share a GPU."""

    @field_validator("factors")
    @classmethod
    def _two_levels(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, levels in value.items():
            if not levels:
                raise ValueError(f"factor '{name}' has no levels")
        return value


@dataclass(frozen=True)
class Trial:
    """One combination of levels, and its recipe."""

    name: str
    levels: dict[str, str]
    recipe: Recipe

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.recipe)


def load_space(location: str) -> Space:
    """Return the space of a YAML file, or of that name in tune/spaces.

    Raises:
        UsageError: No such space, or an invalid one.
    """
    path = next((path for path in (Path(location), SPACES / f"{location}.yaml") if path.is_file()), None)
    if path is None:
        names = ", ".join(sorted(path.stem for path in SPACES.glob("*.yaml")))
        raise UsageError(f"no space '{location}': neither a file nor one of {names}")
    try:
        return Space.model_validate(_parse(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as err:
        raise UsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    except ValidationError as err:
        raise UsageError(f"{path}: {explain_invalid(err)}") from err


def _parse(text: str) -> Any:
    """Parse YAML, with names of factors and levels as written: `no` is a name, not False.

    >>> _parse("factors: {pretrained: {yes: {epochs: 1}, 0x10: {freeze: no}}}")
    {'factors': {'pretrained': {'yes': {'epochs': 1}, '0x10': {'freeze': False}}}}
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        _take_names(node, 4)
        return loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _take_names(node: yaml.Node | None, depth: int) -> None:
    """Turn the keys of mappings into text, down to `depth`: keys of the space, factors, levels, options."""
    if depth == 0 or not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            key.tag = _TEXT
        _take_names(value, depth - 1)


def make_trials(recipe: Recipe, space: Space, sweep_dir: Path) -> list[Trial]:
    """Return the trials of the full grid, in the order of the file.

    A trial is evaluated only on the validation split; the test split stays untouched until one model is chosen.

    Raises:
        UsageError: A level sets an option that the recipe does not have, or two trials would have the same name.
    """
    trials: list[Trial] = []
    for chosen in itertools.product(*space.factors.values()):
        levels = dict(zip(space.factors, chosen, strict=True))
        # Unset options stay unset: a level that changes the optimizer gets that optimizer's defaults.
        values = recipe.model_dump(mode="json", exclude_unset=True)
        for factor, level in levels.items():
            for option, value in space.factors[factor][level].items():
                apply_override(
                    values, f"{option}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10))}"
                )
        name = "_".join(chosen)
        values |= {"name": name, "launch": "local", "num_ranks": 1, "evaluate_on": []}
        values["storage"] = {**values.get("storage", {}), "root": str(sweep_dir / "trials")}
        values["track"] = {**values.get("track", {}), "group": sweep_dir.name}
        trials.append(Trial(name, levels, build_recipe(values)))
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two trials would be named '{twice}'; levels joined by _ must differ, so rename a level")
    return trials
