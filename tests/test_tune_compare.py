"""`tune.compare` on runs that were trained: what is said of them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.cli.ending import run_command
from shards.errors import UsageError
from tests.conftest import train_smoke
from trainer.evaluate.predictions import read_predictions
from tune.compare.__main__ import main
from tune.stats.compare import compare, spell
from tune.stats.paired import Estimate
from tune.stats.runs import Variant, find_groups, read_variants


@pytest.fixture(scope="module")
def run(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained for an epoch, evaluated on 24 test pictures."""
    return train_smoke(dataset_path, tmp_path_factory.mktemp("compared"))


def write_run(run: Path, out: Path, wrong: set[int], groups: list[str] | None = None) -> Path:
    """Write the run's answers as those of another one, which is wrong about some of the pictures alone."""
    source = run / "evaluation/test/predictions.parquet"
    predictions, table = read_predictions(source), pq.read_table(source)
    for number, name in enumerate(predictions.classes):
        logits = np.where(predictions.labels == number, 2.0, 0.0)
        logits[sorted(wrong)] = np.where(predictions.labels[sorted(wrong)] == number, -2.0, 0.0)
        column = table.column_names.index(f"logit_{name}")
        table = table.set_column(column, f"logit_{name}", pa.array(logits.astype(np.float32)))
    if groups is not None:
        table = table.set_column(table.column_names.index("group"), "group", pa.array(groups))
    (out / "evaluation/test").mkdir(parents=True)
    pq.write_table(table, out / "evaluation/test/predictions.parquet")
    return out


@pytest.fixture
def variants(run: Path, tmp_path: Path) -> Path:
    """Three seeds each of `good` (1 or 2 errors of 24), `same` (likewise) and `bad` (14 to 16)."""
    for name, errors in {"good": (1, 2, 1), "same": (2, 1, 1), "bad": (14, 16, 15)}.items():
        for seed, count in enumerate(errors):
            write_run(run, tmp_path / f"{name}-s{seed}", set(range(seed, seed + count)))
    return tmp_path


def words(folder: Path, *names: str) -> list[str]:
    return [word for name in names for word in ("--variant", f"{name}={folder}/{name}-s*")]


def test_what_may_be_claimed_is_said_of_each_variant(variants: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(variants, "good", "same", "bad"), "--baseline", "good"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["variant", "seeds", "accuracy", "sd", "difference", "95", "%", "p", "(Holm)"]
    assert lines[1].split()[:3] == ["good", "3", f"{(23 + 22 + 23) / 72:.4f}"]
    assert lines[5].startswith("no evidence that same differs from good: +0.0 points [")
    assert lines[6].startswith(f"bad is worse than good: {100 * (-45 + 4) / 72:+.1f} points [")
    assert lines[-1] == "on 24 pictures; intervals are not adjusted, p is"


def test_json_has_every_number(variants: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(variants, "good", "same", "bad"), "--baseline", "good", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert (page["metric"], page["baseline"], page["pictures"], page["groups"]) == ("accuracy", "good", 24, None)
    good, same, bad = page["rows"]
    assert set(bad) == {
        "name", "seeds", "mean", "sd", "interval", "difference", "difference_interval", "p", "p_holm", "sentence"
    }  # fmt: skip
    assert good["difference"] is None
    assert bad["sd"] == pytest.approx(np.std([10 / 24, 8 / 24, 9 / 24], ddof=1))
    assert bad["p_holm"] == pytest.approx(2 * bad["p"])
    assert same["p_holm"] == pytest.approx(same["p"])
    assert bad["difference_interval"][0] < bad["difference"] < bad["difference_interval"][1] < 0


def test_single_run_claims_nothing(variants: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--variant", f"good={variants}/good-s0", *words(variants, "bad"), "--baseline", "good"]
    assert run_command(main, command) == 0
    printed = capsys.readouterr()
    assert "bad scored -58.3 points [" in printed.out
    assert (
        "against good on these pictures; good has one run, so luck in training is not counted and nothing is claimed"
        in (printed.out)
    )
    assert printed.err.startswith("note: good with a single run: intervals hold for other pictures, and do not include")


def test_lower_log_loss_is_better(variants: Path) -> None:
    found = compare(read_variants({name: [f"{variants}/{name}-s*"] for name in ("bad", "good")}), "bad", "log_loss")
    assert found.rows[1].sentence.startswith("good is better than bad: -")


def test_pictures_of_one_group_count_as_one_draw(run: Path, tmp_path: Path) -> None:
    for name, errors in {"a": (0, 0, 0), "b": (8, 9, 7)}.items():
        for seed, count in enumerate(errors):
            # Two groups of 8 pictures, of which the errors fill one, and 8 pictures without a group.
            groups = ["p"] * 8 + ["q"] * 8 + [""] * 8
            write_run(run, tmp_path / f"{name}-s{seed}", set(range(count)), groups)
    variants = read_variants({name: [f"{tmp_path}/{name}-s*"] for name in ("a", "b")})
    grouped = compare(variants, "a")
    assert grouped.groups == 2 + 8
    codes = find_groups(variants[0].runs[0])
    assert codes is not None
    assert len(set(codes[:8])) == 1
    assert len(set(codes[16:])) == 8
    alone = [Variant(each.name, each.files, [strip(run) for run in each.runs]) for each in variants]
    assert grouped.rows[1].p is not None
    assert compare(alone, "a").rows[1].p < grouped.rows[1].p / 2  # type: ignore[operator]


def strip(run):  # type: ignore[no-untyped-def]
    return run.with_columns(pa.table({"group": [""] * len(run.labels)}))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["--variant", "good"], "--variant is written NAME=GLOB, such as .*, got 'good'"),
        (
            ["--variant", "good={0}/good-s*"],
            "a comparison needs a baseline and another variant; give --variant NAME=GLOB",
        ),
        (["--variant", "a={0}/x-s*", "--variant", "b={0}/bad-s*"], "no run of a is found by .*; name run folders or"),
        (
            ["--variant", "a={0}/bad-s0", "--variant", "b={0}/bad-s*"],
            "is named twice, by a and by b; each run counts once",
        ),
        (
            ["--variant", "a={0}/good-s*", "--variant", "b={0}/bad-s*", "--baseline", "c"],
            "the baseline c is none of the",
        ),
        (
            ["--variant", "a={0}/good-s*", "--variant", "b={0}/bad-s*", "--metric", "f"],
            "no metric 'f'.*there are accuracy",
        ),
    ],
)
def test_mistake_is_refused_in_a_sentence(command: list[str], sentence: str, variants: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        main([word.format(variants) for word in command])


def test_runs_of_other_pictures_or_two_splits_are_refused(run: Path, variants: Path) -> None:
    path = write_run(run, variants / "cut-s0", set()) / "evaluation/test/predictions.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    command = [*words(variants, "good"), "--variant", f"cut={variants}/cut-s0"]
    with pytest.raises(UsageError, match=r"was evaluated on other pictures than .*; evaluate both on one split"):
        main(command)
    shutil.copytree(variants / "bad-s0/evaluation/test", variants / "bad-s0/evaluation/val")
    with pytest.raises(UsageError, match=r"bad-s0 was evaluated on 2 splits; name one, such as .*predictions\.parquet"):
        main(words(variants, "good", "bad"))


def test_a_share_is_said_in_points_and_a_loss_as_it_is() -> None:
    assert spell(Estimate(-0.004, 0.005, 1000), "accuracy", signed=True) == "-0.4 points [-1.4, +0.6]"
    assert spell(Estimate(0.91, 0.01, 1e6), "accuracy") == "91.0 % [89.0, 93.0]"
    assert spell(Estimate(0.5, 0.1, 1e6), "log_loss") == "0.500 [0.304, 0.696]"
