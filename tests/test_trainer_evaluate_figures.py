"""Figures of an evaluation: class names in any script, any number of classes, numbers that are those of the rows."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from trainer.contract.task import ONE_LABEL
from trainer.evaluate.figures import figures, fonts, score_figures
from trainer.evaluate.figures.figures import draw_confusion
from trainer.evaluate.figures.fonts import choose_font, letter_classes, letter_texts
from trainer.evaluate.figures.score_figures import draw_reliability, draw_scores, draw_thresholds, sweep_grid
from trainer.evaluate.metrics.rule import Rule, find_rule

CHINESE = ["正常肺部", "新冠肺炎"]
NOWHERE = "\ue123"
"""A character for private use, which no font that people read has."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures that were saved, as they came to the renderer."""
    kept: list[Any] = []
    save = figures.save_figure

    def keep(figure: Any, path: Path) -> None:
        kept.append(figure)
        save(figure, path)

    for module in (figures, score_figures):
        monkeypatch.setattr(module, "save_figure", keep)
    return kept


def make_rows(samples: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, samples)
    logits = rng.normal(size=(samples, num_classes)).astype(np.float32)
    logits[np.arange(samples), labels] += 1.5
    return labels, ONE_LABEL.compute_probabilities(logits)


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits that give these probabilities."""
    return np.log(probabilities).astype(np.float32)


def needs_chinese() -> None:
    if choose_font(CHINESE) is None:
        pytest.skip("no font on this machine has Chinese characters; the extra `fonts` brings one")


def test_continuous_integration_has_a_font_for_chinese() -> None:
    """The extra `dev` installs it, so that the tests below are not skipped unseen."""
    assert importlib.import_module("pylopdf_fonts_zh_cn").sans_path().is_file()


def test_chinese_class_names_are_drawn_without_a_missing_glyph(tmp_path: Path, drawn: list[Any]) -> None:
    """matplotlib warns of a glyph that it has not, and a warning is an error here."""
    needs_chinese()
    lettering = letter_classes(CHINESE, ["0", "1"])
    assert (lettering.names, lettering.note) == (CHINESE, None)
    labels, probabilities = make_rows(60, 2)
    draw_confusion(tmp_path / "confusion.png", np.array([[20, 3], [4, 33]]), lettering)
    draw_scores(tmp_path / "curves.png", labels, to_logits(probabilities), lettering, Rule(ONE_LABEL, 1))
    draw_thresholds(tmp_path / "thresholds.png", labels, probabilities, lettering, Rule(ONE_LABEL, 1))
    assert [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()] == CHINESE
    assert drawn[2].axes[0].get_title() == "positive: 新冠肺炎"


def test_in_the_usual_font_that_would_be_an_error(tmp_path: Path) -> None:
    usual = letter_classes(["a", "b"], ["a", "b"])
    wrong = fonts.Lettering(CHINESE, usual.families)
    with pytest.raises(UserWarning, match="missing from font"):
        draw_confusion(tmp_path / "confusion.png", np.eye(2, dtype=np.int64), wrong)
    assert list(tmp_path.iterdir()) == []


def test_where_no_font_has_a_name_the_classes_keep_their_keys_and_a_note_says_so() -> None:
    lettering = letter_classes(["fine", NOWHERE], ["0", "1"])
    assert lettering.names == ["0", "1"]
    assert lettering.note is not None
    assert f"such as '{NOWHERE}'" in lettering.note
    assert letter_classes([NOWHERE], [NOWHERE]).names == ["class 0"]


def test_without_any_font_for_them_chinese_names_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with matplotlib's own fonts alone."""
    monkeypatch.setattr(fonts, "_PACKAGE", "no_such_package")
    own = [entry for entry in matplotlib.font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", own)
    assert choose_font(CHINESE) is None
    assert letter_classes(CHINESE, ["NORMAL", "COVID"]).names == ["NORMAL", "COVID"]


def test_text_that_no_font_has_is_spelt_out() -> None:
    _, spell = letter_texts([f"run {NOWHERE}"])
    assert spell(f"run {NOWHERE} é") == "run \\ue123 é"


def test_a_name_is_no_formula(tmp_path: Path, drawn: list[Any]) -> None:
    names = ["$x_1$", "$\\frac{1$"]
    draw_confusion(tmp_path / "confusion.png", np.eye(2, dtype=np.int64), letter_classes(names, names))
    assert not any(tick.get_parse_math() for tick in drawn[0].axes[0].get_xticklabels())


@pytest.mark.parametrize(("number", "written", "named"), [(2, 4, 2), (12, 144, 12), (13, 0, 13), (100, 0, 34)])
def test_confusion_of_many_classes_is_not_written_in_and_names_some(
    number: int, written: int, named: int, tmp_path: Path, drawn: list[Any]
) -> None:
    counts = np.arange(number**2).reshape(number, number)
    names = [f"class {n}" for n in range(number)]
    draw_confusion(tmp_path / "confusion.png", counts, letter_classes(names, names))
    axes = drawn[0].axes[0]
    assert (len(axes.texts), len(axes.get_xticks())) == (written, named)
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) <= 1250


def test_normalised_confusion_shows_shares_of_the_true_class(tmp_path: Path, drawn: list[Any]) -> None:
    counts, lettering = np.array([[3, 1], [0, 0]]), letter_classes(["a", "b"], ["a", "b"])
    draw_confusion(tmp_path / "counts.png", counts, lettering)
    draw_confusion(tmp_path / "shares.png", counts, lettering, normalised=True)
    texts = [[text.get_text() for text in figure.axes[0].texts] for figure in drawn]
    assert texts == [["3", "1", "0", "0"], ["0.75", "0.25", "0.00", "0.00"]]


@pytest.mark.parametrize(("number", "labelled"), [(2, 1), (10, 10), (11, 4)])
def test_curves_of_many_classes_are_their_mean_and_the_worst(
    number: int, labelled: int, tmp_path: Path, drawn: list[Any]
) -> None:
    labels, probabilities = make_rows(400, number)
    names = [f"c{n}" for n in range(number)]
    lettering = letter_classes(names, names)
    draw_scores(tmp_path / "curves.png", labels, to_logits(probabilities), lettering, find_rule(ONE_LABEL, names))
    roc = drawn[0].axes[0]
    shown = roc.get_legend_handles_labels()[1]
    assert len(shown) == labelled
    scores = probabilities[:, 1] if number == 2 else probabilities
    area = sk.roc_auc_score(labels, scores, multi_class="ovr")
    if number == 2:
        assert shown == [f"c1  AUROC {area:.3f}"]
    if number == 11:
        assert shown[-1] == f"mean of 11 classes  AUROC {area:.3f}"


def test_reliability_bars_are_the_accuracy_of_their_bin(tmp_path: Path, drawn: list[Any]) -> None:
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    draw_reliability(tmp_path / "reliability.png", np.array([0, 0, 0, 1, 1, 0]), probabilities)
    top, below = drawn[0].axes
    assert [bar.get_height() for bar in top.patches] == pytest.approx([0.5, 0.75])
    assert sum(bar.get_height() for bar in below.patches) == 6
    assert top.get_title() == f"reliability: ECE {(2 * 0.1 + 4 * 0.15) / 6:.3f}"


def test_threshold_curves_are_those_of_scikit_learn() -> None:
    labels, probabilities = make_rows(200, 2)
    truth, scores = labels == 1, probabilities[:, 1]
    swept = sweep_grid(truth, scores)
    for place in (0, 60, 100, 140):
        said = scores >= place / 200
        assert [swept[name][place] for name in ("precision", "recall", "F1", "specificity")] == pytest.approx(
            [
                sk.precision_score(truth, said),
                sk.recall_score(truth, said),
                sk.f1_score(truth, said),
                sk.recall_score(~truth, ~said),
            ]
        )
    assert np.isnan(swept["precision"][-1])  # nothing is that sure


def test_threshold_figure_of_many_classes_is_their_mean_and_marks_the_chosen_one(
    tmp_path: Path, drawn: list[Any]
) -> None:
    labels, probabilities = make_rows(200, 3)
    lettering = letter_classes(list("abc"), list("abc"))
    draw_thresholds(tmp_path / "mean.png", labels, probabilities, lettering, Rule(ONE_LABEL))
    draw_thresholds(tmp_path / "one.png", labels, probabilities, lettering, Rule(ONE_LABEL, 2, {2: 0.3}))
    swept = [sweep_grid(labels == number, probabilities[:, number])["recall"] for number in range(3)]
    mean, one = (figure.axes[0].get_lines() for figure in drawn)
    assert mean[1].get_ydata() == pytest.approx(np.mean(swept, axis=0))
    assert one[1].get_ydata() == pytest.approx(swept[2])
    assert one[4].get_xdata() == [0.3, 0.3]
    assert drawn[0].axes[0].get_title() == "mean of 3 classes, each against the rest"
