"""The solar cells: another split for an ablation leaves the demo's test pictures alone."""

from __future__ import annotations

from collections import Counter

from trainer.recipes.data.elpv import choose_cells, read_cells, split_cells


def test_another_split_has_none_of_the_test_cells_of_the_demo() -> None:
    cells, splits = choose_cells(None)
    assert (cells, splits) == (read_cells(), split_cells(read_cells()))
    tested = {cell.path for cell, split in zip(cells, splits, strict=True) if split == "test"}
    assert len(tested) == 656
    others, other_splits = choose_cells(1)
    assert len(others) == len(cells) - 656
    assert not tested & {cell.path for cell in others}
    assert Counter(other_splits) == {"train": 1255, "val": 221, "test": 492}
    assert choose_cells(2)[1] != other_splits
    shares = [
        sum(cell.label == "DEFECTIVE" for cell, split in zip(others, other_splits, strict=True) if split == part)
        / count
        for part, count in Counter(other_splits).items()
    ]
    assert max(shares) - min(shares) < 0.02  # stratified
