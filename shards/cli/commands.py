"""All commands, one row each, read by the console script, the packages' lists, completion and tests.

A row names the command's `main(argv) -> exit code`, also in packages above this one: it is imported only to be run.
The same module has `build_parser()`, for `--help` and completion.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.cli.table import Row, Table

CONSOLE = "shardline"
"""The console script; `pyproject.toml` declares it."""


@dataclass(frozen=True)
class Command(Row):
    """A command; its builder is the function that runs it."""

    check: tuple[str, ...] = ()
    """The options with which it checks all that it needs, and starts nothing; empty if it has none."""

    @property
    def package(self) -> str:
        """Return the package that lists the command; commands of the console script alone have none ("")."""
        return "" if self.builder.startswith("shards.cli.") else self.builder.partition(".")[0]

    @property
    def module(self) -> str:
        """Return its name after `python -m`, for example "trainer.run" or "shards pack"."""
        place = self.builder.partition(":")[0]
        return place.removesuffix(".__main__").replace("shards.commands.", "shards ")

    @property
    def parser(self) -> str:
        """Return package.module:function for the function that builds its parser."""
        return f"{self.builder.partition(':')[0]}:build_parser"


COMMANDS = Table(
    "commands",
    Command("pack", "pictures -> audit -> dataset of tar shards", "shards.commands.pack:main"),
    Command("audit", "find bad files, duplicates, leaks, conflicts", "shards.commands.audit:main"),
    Command("index", "make a dataset of WebDataset tars, in place", "shards.commands.index:main"),
    Command("stat", "show what a dataset and its shards hold", "shards.commands.stat:main"),
    Command("verify", "hash every shard again and decode its pictures", "shards.commands.verify:main"),
    Command("run", "train by a recipe, evaluate, make a bundle", "trainer.run.__main__:main", check=("--dry-run",)),
    Command("evaluate", "compute metrics of a bundle on labelled pictures", "trainer.evaluate.__main__:main"),
    Command("predict", "label pictures that have no label", "trainer.predict.__main__:main"),
    Command("decide", "fit how a bundle's logits become decisions", "trainer.decide.__main__:main"),
    Command("export", "write a bundle as ONNX, torch-export or TorchScript", "trainer.export.__main__:main"),
    Command("bench", "measure the back ends of a bundle", "trainer.bench.__main__:main"),
    Command("bundle", "make a bundle from a foreign checkpoint", "trainer.bundle.__main__:main"),
    Command("models", "list models, or the layers of one", "trainer.models.__main__:main"),
    Command("augment", "draw pictures before and after augmentation", "trainer.augment.__main__:main"),
    Command("report", "rewrite the report of a finished run", "trainer.report.__main__:main"),
    Command("sweep", "screen variants, confirm the best, keep a bundle", "tune.run.__main__:main", check=("--plan",)),
    Command("sweep-report", "write the page of a sweep again", "tune.report.__main__:main"),
    Command("dashboard", "make the W&B workspace and report of a sweep", "tune.dashboard.__main__:main"),
    Command("compare", "do variants differ, seeds and pictures counted", "tune.compare.__main__:main"),
    Command("serve", "serve a bundle over HTTP", "cluster.serve.__main__:main"),
    Command("promote", "let another bundle answer, without downtime", "cluster.promote.__main__:main"),
    Command("rollback", "go back to the bundle before", "cluster.rollback.__main__:main"),
    Command("status", "show an endpoint's bundles and replicas", "cluster.status.__main__:main"),
    Command("client", "send pictures to an endpoint", "cluster.client.__main__:main"),
    Command("verify-endpoint", "compare an endpoint with a bundle in process", "cluster.verify.__main__:main"),
    Command("submit", "run a command as a job of a Ray cluster", "cluster.submit.__main__:main"),
    Command("jobs", "list the jobs of a Ray cluster, or show one", "cluster.jobs.__main__:main"),
    Command("stop", "stop a job so that it can be resumed", "cluster.stop.__main__:main"),
    Command("doctor", "look at every node of a cluster before a run needs it", "cluster.doctor.__main__:main"),
    Command("completion", "print the completion script for bash, zsh or fish", "shards.cli.completion:main"),
)
