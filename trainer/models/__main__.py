"""`python -m trainer.models [NAME]`: list models for recipes, or the layers of one model.

Without NAME, or with a part of a name (also with * and ?), it prints one line per model: parameters, GFLOPs, input
size, published weights. torchvision's figures are published; timm's are computed, which takes about a second per model,
so only for at most 40 models unless --figures is given. With a model's full NAME, it prints a summary, layer by layer.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from shards.cli.arguments import read_at_least, read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.contract.model.names import TIMM_PREFIX, resolve_alias, unknown_model

if TYPE_CHECKING:
    from trainer.models.facts import ModelFacts, Summary

MEASURED = 40


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    from trainer.models.facts import find_models, is_model, list_facts, summarise

    name = resolve_alias(arguments.name)
    if is_model(name):
        summary = summarise(name, arguments.size, arguments.num_classes, arguments.channels)
        if arguments.json:
            print(json.dumps(asdict(summary)))
        else:
            _show(summary)
        return 0
    found = find_models(name)
    if arguments.size or arguments.num_classes or arguments.channels != 3:
        raise UsageError("--size, --num-classes and --channels are for the summary of one model; give its full NAME")
    if not found:
        raise unknown_model(arguments.name, find_models(""))
    measured = arguments.figures or sum(name.startswith(TIMM_PREFIX) for name in found) <= MEASURED
    for number, facts in enumerate(list_facts(found, measured)):
        print(json.dumps(asdict(facts)) if arguments.json else _format(facts, number == 0), flush=True)
    if not measured and not arguments.json:
        print(f"timm's figures are not computed for more than {MEASURED} models; narrow the name, or use --figures")
    return 0


def _format(facts: ModelFacts, is_first: bool) -> str:
    """Return the line of a model, preceded by the column titles for the first."""
    title = f"{'name':<46}{'parameters':>14}{'GFLOPs':>9}{'pixels':>8}  weights\n" if is_first else ""
    parameters = f"{facts.parameters:,}" if facts.parameters is not None else "-"
    gflops = f"{facts.gflops:.2f}" if facts.gflops is not None else "-"
    weights = ", ".join(facts.weights[:3]) + (f" and {len(facts.weights) - 3} more" if len(facts.weights) > 3 else "")
    also = f"  (also {', '.join(facts.aliases)})" if facts.aliases else ""
    return f"{title}{facts.name:<46}{parameters:>14}{gflops:>9}{facts.image_size:>8}  {weights or 'none'}{also}"


def _show(summary: Summary) -> None:
    width = max(len(layer.name) for layer in summary.layers)
    print(f"{'layer':<{width}}  {'kind':<24}{'output':<24}{'parameters':>12}")
    for layer in summary.layers:
        shape = "x".join(map(str, layer.output)) or "-"
        print(f"{layer.name:<{width}}  {layer.kind:<24}{shape:<24}{layer.parameters:>12,}")
    facts = summary.facts
    print(f"\n{facts.name}: {facts.parameters:,} parameters, {facts.gflops:.3f} GFLOPs at {facts.image_size} pixels")
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (summary.mean, summary.std))
    print(f"preprocessing: mean {mean}; std {std}; {summary.interpolation}")
    print(f"published weights: {', '.join(facts.weights) or 'none'}")


def build_parser() -> CommandParser:
    style = argparse.ArgumentDefaultsHelpFormatter
    parser = CommandParser(prog="python -m trainer.models", description=__doc__, formatter_class=style)
    parser.add_argument("name", nargs="?", default="", help="a model, or a part of a name: resnet50, 'timm/*vit*'")
    parser.add_argument("--figures", action="store_true", help="compute timm's figures for any number of models")
    parser.add_argument("--size", type=read_count, help="summary: side of the input, pixels; default: the model's own")
    parser.add_argument("--num-classes", type=read_at_least(2), help="summary: outputs of the head (1,000)")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3, help="summary: channels of the input")
    parser.add_argument("--json", action="store_true", help="print one JSON object per model")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
