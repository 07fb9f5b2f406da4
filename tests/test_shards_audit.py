"""The audit: facts of a picture, what equal pictures mean, and what people are told of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.fft
import xxhash
from data.make_hostile import HOSTILE, Hostile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.audit.audit import Audit, audit_pictures
from shards.audit.duplicates import Pairs
from shards.audit.examine import examine_sources
from shards.audit.facts import THUMBNAIL_BYTES, Facts, Rejected, compute_phash, examine, make_thumbnail
from shards.audit.findings import Findings, choose_dropped, collect_findings, refuse_findings
from shards.audit.page import render_page
from shards.audit.summary import MAX_LISTED, MAX_SHOWN, Summary, format_summary, summarise
from shards.audit.table import AUDIT_SCHEMA, has_wrong_ending, write_table
from shards.errors import ShardError
from shards.pictures.decode import DecodeOptions, decode, hash_pixels
from shards.sources.find import find_sources
from shards.sources.model import SourceList
from shards.splits.splits import SplitOptions
from shards.storage.storage import FolderStorage
from shards.workers.pools import InlinePool

OPTIONS = DecodeOptions()


def draw(seed: int, side: int = 64) -> Image.Image:
    """Return a picture unlike that of any other seed."""
    layer = Image.fromarray(np.random.default_rng((seed, 2)).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return layer.resize((side, side), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind)


def link(*ends: tuple[int, int]) -> Pairs:
    """Return pairs of positions."""
    left, right = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    return Pairs(left, right, np.ones(len(ends), np.float32), np.ones(len(ends), bool))


def find(splits: Sequence[str], pairs: Pairs, labels: str = "", groups: Sequence[str] = ()) -> Findings:
    """Judge pictures named 0, 1, ...; `labels` has a letter for each, one label for all unless told."""
    count = len(splits)
    names = [str(number) for number in range(count)]
    tuples = [(label,) for label in labels or "a" * count]
    return collect_findings(names, splits, tuples, groups or [""] * count, pairs)


# facts of a picture


@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_hostile_picture_that_decodes_has_the_facts_of_the_decoder(item: Hostile) -> None:
    data = item.make()
    found = examine(data, OPTIONS)
    pixels = decode(data, OPTIONS)
    assert isinstance(found, Facts)
    assert (found.width, found.height) == item.size
    assert found.pixels_xxh3 == hash_pixels(pixels)
    assert found.bytes_xxh3 == xxhash.xxh3_128_hexdigest(data)
    assert len(found.thumbnail) == THUMBNAIL_BYTES
    assert 0 <= found.phash < 2**64


@pytest.mark.parametrize("item", [item for item in HOSTILE if not item.size], ids=lambda item: item.name)
def test_hostile_picture_that_does_not_decode_is_rejected_with_its_kind_and_reason(item: Hostile) -> None:
    found = examine(item.make(), OPTIONS)
    assert isinstance(found, Rejected)
    assert found.kind == item.kind
    assert item.says in found.reason


def test_perceptual_hash_is_the_sign_of_the_lowest_frequencies() -> None:
    pixels = np.asarray(draw(1, 32).convert("L"))
    waves = scipy.fft.dctn(pixels.astype(np.float64))[1:9, 1:9]
    bits = "".join("1" if wave > np.median(waves) else "0" for wave in waves.ravel())
    assert f"{compute_phash(pixels):064b}" == bits


def test_thumbnail_of_a_resized_picture_is_nearly_the_same() -> None:
    thumbnails = []
    for side in (640, 333, 97):
        file = io.BytesIO()
        draw(2, 640).resize((side, side), Image.Resampling.LANCZOS).save(file, "PNG")
        found = examine(file.getvalue(), OPTIONS)
        assert isinstance(found, Facts)
        thumbnails.append(np.frombuffer(found.thumbnail, np.uint8).astype(int))
    assert max(np.abs(thumbnails[0] - other).max() for other in thumbnails[1:]) <= 6


def test_thumbnail_averages_what_lies_below_each_of_its_pixels() -> None:
    board = np.indices((640, 640)).sum(axis=0) % 2 * 255
    thumbnail = make_thumbnail(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8))
    assert np.abs(thumbnail.astype(int) - 127).max() <= 2


# what equal pictures mean


def test_equal_pictures_in_two_splits_are_a_leak() -> None:
    found = find(["train", "val", "test", "train"], link((0, 2)))
    assert [(leak.rows, leak.left, leak.right) for leak in found.leaks] == [([0, 2], 0, 2)]
    assert (found.conflicts, found.duplicates) == ([], [])


def test_chain_of_equal_pictures_is_one_leak_that_names_two_splits() -> None:
    found = find(["train", "train", "test"], link((0, 1), (1, 2)))
    assert [leak.rows for leak in found.leaks] == [[0, 1, 2]]
    assert {found.splits[found.leaks[0].left], found.splits[found.leaks[0].right]} == {"train", "test"}


def test_equal_pictures_of_one_split_and_label_are_copies() -> None:
    found = find(["train"] * 4, link((0, 1), (0, 3)))
    assert [cluster.rows for cluster in found.duplicates] == [[0, 1, 3]]
    assert found.num_copies == 2
    assert (found.leaks, found.conflicts) == ([], [])


def test_equal_pictures_of_different_labels_are_a_conflict() -> None:
    found = find(["train"] * 3, link((0, 1), (1, 2)), "aab")
    assert [(item.left, item.right) for item in found.conflicts] == [(0, 2)]
    assert (found.leaks, found.duplicates) == ([], [])


def test_order_of_several_labels_is_no_conflict() -> None:
    labels = [("a", "b"), ("b", "a")]
    assert collect_findings(["0", "1"], ["train", "train"], labels, ["", ""], link((0, 1))).conflicts == []


def test_leak_of_different_labels_is_a_conflict_too() -> None:
    found = find(["train", "test"], link((0, 1)), "ab")
    assert (len(found.leaks), len(found.conflicts), len(found.duplicates)) == (1, 1, 0)


def test_picture_in_no_split_leaks_nothing_but_links_others() -> None:
    assert find(["train", ""], link((0, 1))).leaks == []
    assert [leak.rows for leak in find(["train", "", "test"], link((0, 1), (1, 2))).leaks] == [[0, 2]]


def test_group_in_two_splits_is_found_with_its_pictures() -> None:
    found = find(["train", "test", "test", "val", ""], link(), groups=["p1", "p1", "p1", "p2", "p2"])
    assert [(item.group, item.counts) for item in found.torn] == [("p1", {"train": 1, "test": 2})]


def test_refusal_names_number_pairs_and_remedies() -> None:
    with pytest.raises(ShardError) as caught:
        refuse_findings(find(["train", "test", "train"], link((0, 1), (1, 2)), "aab"), allow_leaks=False)
    said = str(caught.value)
    assert "equal pictures lie in different splits (1 cases: 0 [train] = 1 [test])" in said
    assert "equal pictures have different labels (1 cases: 0 [a] = 2 [b])" in said
    assert "--drop-duplicates" in said
    assert "--allow-leaks" in said


def test_refusal_names_five_pairs_and_the_number_of_the_rest() -> None:
    splits = ["train", "test"] * 7
    with pytest.raises(ShardError, match=r"7 cases: .*8 \[train\] = 9 \[test\]; and 2 more\)") as caught:
        refuse_findings(find(splits, link(*((row, row + 1) for row in range(0, 14, 2)))), allow_leaks=False)
    assert "10 [train]" not in str(caught.value)


def test_torn_group_is_refused_by_name() -> None:
    with pytest.raises(ShardError, match=r"groups lie in several splits \(1 cases: p7 in train, val\)"):
        refuse_findings(find(["train", "val"], link(), groups=["p7", "p7"]), allow_leaks=False)


def test_leaks_and_conflicts_pass_when_they_are_allowed() -> None:
    refuse_findings(find(["train", "test"], link((0, 1)), "ab", ["p", "p"]), allow_leaks=True)


def test_copies_inside_a_split_are_not_refused() -> None:
    refuse_findings(find(["train", "train"], link((0, 1))), allow_leaks=False)


def drop(splits: Sequence[str], pairs: Pairs, labels: str = "", published: int = 0) -> dict[int, str]:
    names = [f"{row}.png" for row in range(len(splits))]
    return choose_dropped(names, splits, [(label,) for label in labels or "a" * len(splits)], pairs, published)


@pytest.mark.parametrize(
    ("splits", "kept"),
    [(["train", "val", "test"], 2), (["train", "val", "train"], 1), (["train"] * 3, 0), (["test", "test", "val"], 0)],
)
def test_one_of_equal_pictures_stays_in_test_before_val_before_train(splits: list[str], kept: int) -> None:
    dropped = drop(splits, link((0, 1), (1, 2)))
    assert set(dropped) == {0, 1, 2} - {kept}
    assert set(dropped.values()) == {f"equal to {kept}.png in {splits[kept]}"}


def test_none_of_equal_pictures_with_different_labels_stays() -> None:
    dropped = drop(["train", "train", "test"], link((0, 1)), "aba")
    assert set(dropped) == {0, 1}
    assert set(dropped.values()) == {"equal pictures are labelled a, b: it is unknown which is right"}


def test_published_pictures_stay_whatever_they_equal() -> None:
    assert set(drop(["train", "test", "test"], link((0, 1), (0, 2)), published=1)) == {1, 2}
    assert set(drop(["train", "test"], link((0, 1)), "ab", published=1)) == {1}


@given(
    pictures=st.lists(
        st.tuples(st.sampled_from(["train", "val", "test", ""]), st.sampled_from("ab")), min_size=2, max_size=12
    ),
    ends=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=10),
)
def test_after_dropping_there_is_no_equal_picture_left(
    pictures: list[tuple[str, str]], ends: list[tuple[int, int]]
) -> None:
    splits = [split for split, _ in pictures]
    labels = "".join(label for _, label in pictures)
    pairs = link(*((a, b) for a, b in ends if a < b < len(pictures)))
    before = find(splits, pairs, labels)
    dropped = drop(splits, pairs, labels)
    after = find(["" if row in dropped else split for row, split in enumerate(splits)], pairs, labels)
    assert (after.leaks, after.conflicts, after.duplicates) == ([], [], [])
    conflicting = {row for cluster in before.conflicts for row in cluster.rows}
    assert conflicting <= set(dropped)
    for cluster in [*before.leaks, *before.duplicates]:
        assert conflicting.issuperset(cluster.rows) or len(set(cluster.rows) - set(dropped)) == 1


# what people are told

HOSTILE_CLASS = "<b>bad & 'ugly'<_b>"
CHINESE = "正常 肺部"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train 4 + 2, test 2 + 1 pictures; a leak, a conflict that leaks, a copy, a wrong ending, two bad files."""
    root = tmp_path_factory.mktemp("audited") / "a & b"
    for number in range(3):
        save(root / f"train/{CHINESE}/p{number}.png", draw(number, 320 if number == 1 else 64))
    save(root / f"train/{HOSTILE_CLASS}/p10.png", draw(10, 320))
    save(root / f"train/{HOSTILE_CLASS}/p11.png", draw(11))
    save(root / f"train/{CHINESE}/copy.png", draw(2), "BMP")
    save(root / f"test/{CHINESE}/leak.png", draw(0))
    save(root / f"test/{CHINESE}/p20.png", draw(20).convert("L"))
    (root / f"test/{HOSTILE_CLASS}").mkdir()
    shutil.copy(root / f"train/{CHINESE}/p1.png", root / f"test/{HOSTILE_CLASS}/conflict.png")
    (root / f"train/{CHINESE}/empty.png").write_bytes(b"")
    (root / f"train/{CHINESE}/cut.png").write_bytes((root / f"train/{CHINESE}/p0.png").read_bytes()[:600])
    (root / f"train/{CHINESE}/notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def listed(folder: Path) -> SourceList:
    return find_sources(folder)


@pytest.fixture(scope="module")
def audit(listed: SourceList) -> Audit:
    examined = examine_sources(listed, OPTIONS, InlinePool(), None, lambda *_: None)
    return audit_pictures(listed.sources, examined, SplitOptions())


@pytest.fixture(scope="module")
def summary(audit: Audit, listed: SourceList) -> Summary:
    return summarise(audit, listed)


def load_from(listed: SourceList) -> Callable[[int], bytes]:
    return lambda row: listed.store.read(listed.sources[row])


@pytest.fixture(scope="module")
def page(audit: Audit, summary: Summary, listed: SourceList) -> str:
    return render_page(audit, summary, "a & b", load_from(listed), OPTIONS)


def test_summary_counts_what_is_in_the_folder(summary: Summary) -> None:
    assert (summary.pictures, summary.splits) == (11, {"train": 6, "test": 3})
    assert summary.classes == [HOSTILE_CLASS, CHINESE]
    assert summary.class_counts == {"train": [2, 4], "test": [1, 2]}
    assert summary.imbalance == {"train": 2, "test": 2}
    assert summary.formats == {"png": 8, "bmp": 1}
    assert summary.modes == {"RGB": 8, "L": 1}
    assert (summary.rejects, summary.num_rejected) == ({"empty": 1, "truncated": 1}, 2)
    assert (summary.leaks, summary.conflicts, summary.duplicates, summary.copies) == (2, 1, 1, 1)
    assert summary.misnamed == [(f"train/{CHINESE}/copy.png", "bmp")]
    assert summary.left_out == {".txt": 1}


def test_summary_shows_leaks_before_copies_and_each_pair_once(summary: Summary) -> None:
    assert sorted(pair.what for pair in summary.shown[:2]) == [["leak"], ["leak", "conflict"]]
    assert [pair.what for pair in summary.shown[2:]] == [["duplicate"]]
    assert all(pair.exact and pair.similarity == 1 for pair in summary.shown)


def test_histograms_count_every_readable_picture(summary: Summary) -> None:
    assert [sum(bars.counts) for bars in summary.bars] == [9, 9, 9]
    assert (summary.bars[0].edges[0], summary.bars[0].edges[-1], summary.bars[0].logarithmic) == (64, 320, True)
    assert summary.bars[2].edges == [1, 1]


def test_verdict_tells_every_reason_of_the_refusal(summary: Summary) -> None:
    assert summary.refused
    assert summary.verdict == (
        "Refused: among 11 pictures there are 2 sets of equal pictures in several splits, "
        "1 set of equal pictures with several labels; 2 cannot be read (18.2%)."
    )


def test_verdict_of_a_clean_folder_is_clean(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{'ab'[number % 2]}/{number}.png", draw(number))
    listed = find_sources(tmp_path)
    examined = examine_sources(listed, OPTIONS, InlinePool(), None, lambda *_: None)
    clean = summarise(audit_pictures(listed.sources, examined, SplitOptions(shares={})), listed)
    assert not clean.refused
    assert clean.verdict.startswith("Clean: 4 pictures, ")


def test_printed_summary_is_a_dozen_lines_and_begins_with_the_verdict(summary: Summary) -> None:
    lines = format_summary(summary).splitlines()
    assert lines[0] == summary.verdict
    assert len(lines) <= 14
    assert any("2 leaks, 1 conflicts, 1 copies" in line for line in lines)


def test_summary_is_json_that_other_programs_read(summary: Summary) -> None:
    assert json.loads(summary.model_dump_json())["class_counts"]["train"] == [2, 4]


class Outline(HTMLParser):
    """Collects tags, texts and addresses; fails on a tag that is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_needs_no_script_and_no_network(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "link", "iframe", "object"} & set(outline.tags)
    assert all(address.startswith("data:image/jpeg;base64,") for address in outline.addresses)
    assert "url(" not in page
    assert "http" not in page


def test_page_shows_both_sides_of_every_pair_as_small_pictures(page: str, summary: Summary) -> None:
    pictures = re.findall(r"base64,([^\"]+)", page)
    assert len(pictures) == 2 * len(summary.shown) == 6
    for text in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        assert max(image.size) <= 160


def test_page_tells_names_labels_and_reasons_as_they_are_spelt(page: str, summary: Summary) -> None:
    outline = Outline(page)
    for text in (HOSTILE_CLASS, CHINESE, summary.verdict, "the picture is empty (0 bytes)", "copy.png", ".txt"):
        assert text in outline.text
    assert HOSTILE_CLASS not in page


def test_page_shows_the_thumbnail_of_a_picture_that_is_gone(audit: Audit, summary: Summary) -> None:
    def load(row: int) -> bytes:
        raise FileNotFoundError(row)

    assert len(re.findall("base64,", render_page(audit, summary, "x", load, OPTIONS))) == 6


def test_page_and_json_stay_small_when_everything_is_wrong(tmp_path: Path) -> None:
    for number in range(MAX_SHOWN + 10):
        save(tmp_path / f"train/a/{number}.png", draw(number))
        save(tmp_path / f"test/a/{number}.png", draw(number))
    for number in range(5):
        save(tmp_path / f"train/b/{number}.png", draw(1000 + number))
        save(tmp_path / f"train/b/again{number}.png", draw(1000 + number))
    for number in range(MAX_LISTED + 10):
        (tmp_path / f"train/a/bad{number:03d}.png").write_bytes(b"")
    listed = find_sources(tmp_path)
    examined = examine_sources(listed, OPTIONS, InlinePool(), None, lambda *_: None)
    audit = audit_pictures(listed.sources, examined, SplitOptions())
    summary = summarise(audit, listed)
    assert (summary.leaks, summary.duplicates, summary.num_rejected) == (MAX_SHOWN + 10, 5, MAX_LISTED + 10)
    assert (len(summary.shown), len(summary.rejected)) == (MAX_SHOWN, MAX_LISTED)
    text = Outline(render_page(audit, summary, "x", load_from(listed), OPTIONS)).text
    assert "leaks: 60" in text
    assert "110 in all; the first 100" in text


def test_table_has_a_row_for_every_picture_with_its_finding(audit: Audit, tmp_path: Path) -> None:
    write_table(FolderStorage(tmp_path), audit)
    table = pq.read_table(tmp_path / "audit.parquet")
    assert table.schema.equals(AUDIT_SCHEMA, check_metadata=False)
    rows = {row["source"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows == 11
    leak, other = rows[f"test/{CHINESE}/leak.png"], rows[f"train/{CHINESE}/p0.png"]
    assert (leak["finding"], leak["split"], leak["labels"]) == ("leak", "test", [CHINESE])
    assert leak["cluster"] == other["cluster"] >= 0
    copy = rows[f"train/{CHINESE}/copy.png"]
    assert (copy["finding"], copy["wrong_ending"], copy["format"]) == ("duplicate", True, "bmp")
    alone = rows[f"test/{CHINESE}/p20.png"]
    assert (alone["finding"], alone["cluster"], alone["mode"], alone["wrong_ending"]) == ("", -1, "L", False)
    bad = rows[f"train/{CHINESE}/empty.png"]
    assert (bad["kind"], bad["reason"], bad["split"], bad["width"]) == (
        "empty",
        "the picture is empty (0 bytes)",
        "",
        None,
    )


def test_table_keeps_the_thumbnail_and_the_hash_of_every_readable_picture(
    audit: Audit, folder: Path, tmp_path: Path
) -> None:
    write_table(FolderStorage(tmp_path), audit)
    for row in pq.read_table(tmp_path / "audit.parquet").to_pylist():
        found = examine((folder / row["source"]).read_bytes(), OPTIONS)
        if isinstance(found, Facts):
            assert (row["phash"], row["thumbnail"]) == (found.phash, found.thumbnail)


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        ("x.jpg", "jpeg", False),
        ("x.JPEG", "jpeg", False),
        ("x.tif", "tiff", False),
        ("x.jpg", "png", True),
        ("x.png", "jpeg", True),
        ("x.png", None, False),
        ("no ending", "png", False),
    ],
)
def test_ending_of_another_format_is_wrong(name: str, kind: str | None, wrong: bool) -> None:
    assert has_wrong_ending(name, kind) is wrong
