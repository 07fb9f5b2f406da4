"""A set made before a change of decoding: it opens as before, and whoever looks at it is told what differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data import jpeg2000
from data.make_hostile import (
    HOSTILE,
    animated,
    bmp_32,
    chunk,
    deep_rgb,
    encode,
    netpbm,
    png_grays,
    preview_tiff,
    rgb,
    rgb_pixels,
    tiff,
)
from data.tars import write_tar
from PIL import Image

from shards.audit.examine import JOURNAL
from shards.audit.table import NAME as AUDIT_TABLE
from shards.commands.verify import run as run_verify
from shards.dataset.affected import Affected, describe_affected, find_affected, find_decoding
from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME, Manifest, read_manifest
from shards.dataset.verify import verify_dataset
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_json
from shards.packing.claim import MARKER
from shards.packing.encode import StoreOptions
from shards.packing.foreign import index_foreign
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.pictures.decode import DecodeOptions, decode, hash_pixels, inspect
from shards.pictures.decoding import CHANGES, VERSION, describe_versions, is_changed, list_changes, may_be_changed
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions

OPTIONS = PackOptions(split=SplitOptions(shares={}), allow_leaks=True)
TWELVE = jpeg2000.ramp(12)
GRAY = jpeg2000.jp2(jpeg2000.codestream([TWELVE], [12]), 1, 12, jpeg2000.GRAY)
COLOUR = jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(16)] * 3, [16] * 3), 3, 16, jpeg2000.RGB)
PLAIN_JP2 = encode(rgb(), "JPEG2000")


CLEAR = png_grays([0, 1, 2, 3], 2, chunk(b"tRNS", b"\x00\x01"))


def noise(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pictures(root: Path, **more: bytes) -> Path:
    """Write four plain pictures of two classes, and more into the first class."""
    files = {f"{'ab'[number % 2]}/{number}.png": noise(number) for number in range(4)}
    return write(root, files | {f"a/{name}.jp2": data for name, data in more.items()})


def make_old(out: Path) -> Path:
    """Take the version of decoding out of a dataset's page, as if it was made before there was one."""
    page = json.loads((out / MANIFEST_NAME).read_text())
    del page["decoding"]
    (out / MANIFEST_NAME).write_text(json.dumps(page, indent=2) + "\n")
    return out


def hash_as_version_1(values: np.ndarray) -> str:
    """Return the hash of what version 1 made of 12-bit gray in a JPEG 2000: it took it for the top of 16 bits."""
    gray = np.rint(values * 16 * 255 / 65535).astype(np.uint8)
    return hash_pixels(np.dstack([gray] * 3))


def record_hash(out: Path, name: str, pixels: str) -> None:
    """Change what the audit's table says about a picture's pixels."""
    table = pq.read_table(out / AUDIT_TABLE)
    rows = [row | ({"pixels_xxh3": pixels} if row["source"] == name else {}) for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), out / AUDIT_TABLE)


def update(root: Path, out: Path) -> tuple[Manifest, list[str]]:
    notes: list[str] = []
    return pack(find_sources(root), out, OPTIONS, Run(report=notes.append), update=True), notes


def index(folder: Path, data: bytes) -> Path:
    """Index a tar of two plain pictures and another one."""
    files = {"0.cls": b"0", "0.png": noise(0), "1.cls": b"1", "1.jp2": data, "2.cls": b"1", "2.png": noise(2)}
    write_tar(folder / "set-train-0.tar", files)
    index_foreign(folder)
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """An old set of pictures that come out as they did."""
    pack(find_sources(pictures(tmp_path / "in")), tmp_path / "out", OPTIONS)
    return make_old(tmp_path / "out")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """An old set in which one picture decodes differently now."""
    pack(find_sources(pictures(tmp_path / "in", deep=GRAY, usual=PLAIN_JP2)), tmp_path / "out", OPTIONS)
    assert hash_as_version_1(TWELVE) != hash_pixels(decode(GRAY))
    record_hash(tmp_path / "out", "a/deep.jp2", hash_as_version_1(TWELVE))
    return make_old(tmp_path / "out")


def test_every_version_after_the_first_says_what_changed() -> None:
    assert [change.version for change in CHANGES] == list(range(2, VERSION + 1))
    assert list_changes(VERSION) == []
    assert all(change.what in describe_versions("it", 1) for change in CHANGES)


def test_old_page_opens_as_version_1_and_keeps_its_fingerprint(plain: Path) -> None:
    manifest = read_manifest(plain)
    assert manifest.decoding == 1
    # The fingerprint of then: sha256 of all that the page says.
    assert manifest.fingerprint() == fingerprint_json(json.loads((plain / MANIFEST_NAME).read_text()))


def test_same_pictures_packed_before_and_after_are_one_dataset(plain: Path, tmp_path: Path) -> None:
    new = pack(find_sources(tmp_path / "in"), tmp_path / "again", OPTIONS)
    assert (new.decoding, new.fingerprint()) == (VERSION, read_manifest(plain).fingerprint())


@pytest.mark.parametrize(
    ("data", "changed"),
    [
        (GRAY, True),
        (COLOUR, True),
        (jpeg2000.codestream([jpeg2000.ramp(1)], [1]), True),
        (PLAIN_JP2, False),
        (netpbm(deep_rgb(), 65535), True),
        (netpbm(deep_rgb(1, 1000), 1000, text=True), True),
        (netpbm(deep_rgb(1, 255), 255), False),
        (tiff(deep_rgb(1), {258: 8, 339: 2}), True),
        (tiff(deep_rgb(2), {258: 32, 277: 1}), True),
        (tiff(deep_rgb(2), {258: 32, 277: 1, 339: 2}), False),
        (tiff(deep_rgb(), {}), False),
        (tiff(deep_rgb(), {}, planes=True), True),
        (tiff(deep_rgb(4), {262: 5}), True),
        (encode(rgb(), "TIFF"), False),
        (png_grays([0, 1], 2, chunk(b"tRNS", b"\x00\x01")), True),
        (png_grays([0, 1], 2), False),
        (png_grays([0, 1], 4, chunk(b"tRNS", b"\x00\x01")), True),
        (png_grays([0, 1], 8, chunk(b"tRNS", b"\x00\x01")), False),
        (tiff(deep_rgb(2), {258: 32, 277: 1, 339: 3}), False),  # floats are read as ever
        (tiff(deep_rgb(1), {}, planes=True), False),  # one plane is all there is
        (preview_tiff(), True),
        (preview_tiff(below=True), True),
        (animated("TIFF"), False),
        (bmp_32(rgb_pixels(), 0), True),
        (bmp_32(rgb_pixels(), 255), False),
        (encode(rgb(), "BMP"), False),
        (encode(rgb(), "PNG"), False),
        (encode(rgb(), "JPEG"), False),
        (GRAY[:60], False),
        (b"II*\x00\xff\xff\xff\xff", False),
        (b"", False),
    ],
)
def test_changed_pictures_are_known_by_their_bytes(data: bytes, changed: bool) -> None:
    assert is_changed(data, 1) == changed
    assert not is_changed(data, VERSION)


@pytest.mark.parametrize("name", ["a/x.JP2", "a/x.pgm", "a/x.tif"])
def test_names_tell_where_nothing_else_does(name: str) -> None:
    assert may_be_changed(name, None, None, 1)
    assert not may_be_changed(name, "jpeg", "L", 1)  # a wrong ending


def gray(number: int) -> bytes:
    """Return an ordinary 8-bit gray PNG."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def dicom_of_more_bits() -> bytes:
    """Return a DICOM file whose JPEG 2000 has more bits than it says, and which is refused for it."""
    pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless
    from test_shards_pictures_dicom import dicom

    frame = encapsulate([jpeg2000.codestream([TWELVE], [12])])
    return dicom(np.zeros(TWELVE.shape, np.uint8), syntax=JPEG2000Lossless, body=frame)


# What version 1 recorded of pictures that version 2 refuses; read with the program before 905a410.
MODES_OF_1 = {
    "deep_rgb.jp2": "RGB",
    "deep_rgb.ppm": "RGB",
    "signed_8.tif": "L",
    "deep_cmyk.tif": "CMYK",
    "deep_cmyk_planes.tif": "CMYK",
    "deep_planes_deflated.tif": "RGB;16",
}
FORMATS = {"jp2": "jpeg2000", "ppm": "ppm", "pgm": "ppm", "tif": "tiff", "png": "png", "bmp": "bmp", "dcm": "dicom"}
ODD = {each.name: each.make() for each in HOSTILE if is_changed(each.make(), 1)}


def test_every_kind_that_the_change_names_is_among_the_hostile_pictures() -> None:
    assert {name.rpartition(".")[2] for name in ODD} == set(FORMATS)
    assert {*FORMATS.values()} == {kind for change in CHANGES for kind in change.modes}
    assert set(MODES_OF_1) <= set(ODD)


@pytest.mark.parametrize("name", ODD)
def test_picture_that_is_changed_by_its_bytes_may_be_by_its_name_and_by_what_an_audit_recorded(name: str) -> None:
    kind = FORMATS[name.rpartition(".")[2]]
    assert may_be_changed(name, None, None, 1)
    modes = {MODES_OF_1[name]} if name in MODES_OF_1 else set()
    for gray_range in (None, (0, 4000)):
        try:
            modes.add(inspect(ODD[name], DecodeOptions(gray_range=gray_range)).mode)
        except ShardError:
            continue  # it is in quarantine, and in no dataset
    assert all(may_be_changed(name, kind, mode, 1) for mode in modes)


def test_dicom_of_more_bits_may_be_changed_by_its_name_and_by_what_an_audit_recorded() -> None:
    assert is_changed(dicom_of_more_bits(), 1)
    assert may_be_changed("a/x.dcm", None, None, 1)
    assert may_be_changed("a/x.dcm", "dicom", "MONOCHROME2", 1)


def pack_grays(root: Path, options: PackOptions = OPTIONS, **more: bytes) -> Path:
    """Make an old set of four ordinary gray PNG and more pictures of the first class."""
    files = {f"{'ab'[number % 2]}/{number}.png": gray(number) for number in range(4)}
    write(root / "in", files | {f"a/{name}.png": data for name, data in more.items()})
    pack(find_sources(root / "in"), root / "out", options)
    return make_old(root / "out")


def test_transparent_gray_of_few_bits_is_found_among_ordinary_gray(tmp_path: Path) -> None:
    out = pack_grays(tmp_path, clear=CLEAR)
    assert find_affected(open_dataset(out)) == Affected(1, "a/clear.png", stored=True)
    assert find_decoding(open_dataset(out)) == 1
    assert (
        "1 of its pictures comes from files of such formats (the first is a/clear.png)" in verify_dataset(out).notes[0]
    )


def test_update_of_a_set_with_such_a_png_is_refused(tmp_path: Path) -> None:
    out = pack_grays(tmp_path, clear=CLEAR)
    opaque = np.array([[0, 85, 170, 255]], np.uint8)  # as version 1 read it: no gray of 2 bits is 1 of 255
    record_hash(out, "a/clear.png", hash_pixels(np.dstack([opaque] * 3)))
    write(tmp_path / "in", {"b/new.png": gray(9)})
    with pytest.raises(UsageError, match=r"1 picture \(a/clear.png\) decodes differently now"):
        update(tmp_path / "in", out)


def test_update_of_a_set_with_such_a_png_without_its_file_keeps_the_version(tmp_path: Path) -> None:
    out = pack_grays(tmp_path, clear=CLEAR)
    write(tmp_path / "more", {"a/new.png": gray(8), "b/new.png": gray(9)})
    manifest, notes = update(tmp_path / "more", out)
    assert manifest.decoding == 1
    assert "whether 1 of its pictures (the first is a/clear.png) are such is unknown without their files" in notes[0]


def test_ordinary_gray_png_are_settled_by_what_the_shards_hold(tmp_path: Path) -> None:
    out = pack_grays(tmp_path)
    assert find_affected(open_dataset(out)) == Affected(0, "", stored=True)
    assert find_decoding(open_dataset(out)) == VERSION
    assert verify_dataset(out).notes[0].endswith("It holds no such picture, so nothing in it differs")
    write(tmp_path / "more", {"a/new.png": gray(8), "b/new.png": gray(9)})
    manifest, notes = update(tmp_path / "more", out)  # of which the old files are no part
    assert manifest.decoding == VERSION
    assert notes[0].endswith("It holds no such picture, so old and new ones are decoded alike")


@pytest.mark.parametrize(("audit", "max_side"), [("full", 16), ("none", None)])
def test_gray_png_that_only_their_files_would_tell_are_no_alarm(
    audit: str, max_side: int | None, tmp_path: Path
) -> None:
    options = OPTIONS.model_copy(update={"audit": audit, "store": StoreOptions(max_side=max_side)})
    out = pack_grays(tmp_path, options)
    assert find_affected(open_dataset(out)) == Affected(0, "", stored=True, uncertain=4)
    assert find_decoding(open_dataset(out)) == VERSION
    unless = "It holds no such picture, unless some of its 4 gray PNGs are, which only the files show"
    assert verify_dataset(out).notes[0].endswith(unless)
    more = write(tmp_path / "more", {"a/new.png": gray(8), "b/new.png": gray(9)})
    notes: list[str] = []
    manifest = pack(find_sources(more), out, options, Run(report=notes.append), update=True)
    assert (manifest.decoding, notes[0].endswith(unless)) == (1, True)
    write(tmp_path / "in", {"a/last.png": gray(10)})
    for folder, name in (("a", "a/new.png"), ("b", "b/new.png")):
        write(tmp_path / "in", {name: (more / folder / "new.png").read_bytes()})
    assert pack(find_sources(tmp_path / "in"), out, options, Run(), update=True).decoding == VERSION


@pytest.mark.parametrize(("data", "count"), [(CLEAR, 1), (gray(7), 0)], ids=["clear", "ordinary"])
def test_gray_png_in_an_indexed_tar_are_told_by_their_bytes(data: bytes, count: int, tmp_path: Path) -> None:
    files = {"0.cls": b"0", "0.png": gray(0), "1.cls": b"1", "1.png": data, "2.cls": b"1", "2.png": noise(2)}
    write_tar(tmp_path / "set-train-0.tar", files)
    index_foreign(tmp_path)
    make_old(tmp_path)
    assert find_affected(open_dataset(tmp_path), 1) == Affected(count, "set-train-0.tar/1.png" * count, stored=False)
    assert find_decoding(open_dataset(tmp_path), trained_with=1) == (1 if count else VERSION)
    note = verify_dataset(tmp_path).notes[0]
    assert ("It holds no such picture" in note) == (not count)
    assert ("1 of its pictures comes in files of such formats (the first is set-train-0.tar/1.png)" in note) == bool(
        count
    )


def test_notes_of_an_indexed_set_agree_whatever_a_picture_is_called(tmp_path: Path) -> None:
    files = {"0.cls": b"0", "0.png": noise(0), "1.cls": b"1", "1.jpg": GRAY, "2.cls": b"1", "2.jp2": PLAIN_JP2}
    write_tar(tmp_path / "set-train-0.tar", files)
    index_foreign(tmp_path)
    done = verify_dataset(make_old(tmp_path))
    assert "1 of its pictures comes in files of such formats (the first is set-train-0.tar/1.jpg)" in done.notes[0]


def test_verify_of_an_old_set_without_such_pictures_says_that_none_differs(plain: Path) -> None:
    (note,) = verify_dataset(plain).notes
    assert note.startswith(f"the dataset has decoding version 1; this program has version {VERSION}, which reads")
    assert note.endswith("It holds no such picture, so nothing in it differs")


def test_verify_of_a_new_set_says_nothing(tmp_path: Path) -> None:
    pack(find_sources(pictures(tmp_path / "in", deep=GRAY)), tmp_path / "out", OPTIONS)
    assert verify_dataset(tmp_path / "out").notes == ()


def test_verify_counts_the_pictures_that_may_differ_and_calls_nothing_damaged(odd: Path) -> None:
    (note,) = verify_dataset(odd).notes
    assert "2 of its pictures come from files of such formats (the first is a/deep.jp2), and the shards contain" in note
    assert note.endswith(
        "nothing is damaged. To store them as they are decoded now, pack the files into a new folder and train on that"
    )


def test_remedy_of_verify_gives_a_set_that_it_says_nothing_of(odd: Path, tmp_path: Path) -> None:
    pack(find_sources(tmp_path / "in"), tmp_path / "new", OPTIONS)
    assert verify_dataset(tmp_path / "new").notes == ()


@pytest.mark.parametrize("audited", [True, False])
def test_pictures_that_may_differ_are_found_with_and_without_an_audit(odd: Path, audited: bool) -> None:
    if not audited:
        (odd / AUDIT_TABLE).unlink()
    assert find_affected(open_dataset(odd)) == Affected(2, "a/deep.jp2", stored=True)


def test_set_of_a_later_version_asks_for_a_later_program(plain: Path) -> None:
    page = json.loads((plain / MANIFEST_NAME).read_text()) | {"decoding": VERSION + 1}
    (plain / MANIFEST_NAME).write_text(json.dumps(page))
    (note,) = verify_dataset(plain).notes
    assert note.startswith(
        f"the dataset has decoding version {VERSION + 1}, and this program knows no version later than"
    )
    assert note.endswith("install the program that made it, or a later one")


@pytest.mark.parametrize(("data", "refused"), [(GRAY, False), (COLOUR, True)])
def test_indexed_tar_with_such_a_picture_is_no_damage_either(data: bytes, refused: bool, tmp_path: Path) -> None:
    folder = make_old(index(tmp_path, data))
    done = verify_dataset(folder)
    assert (done.pictures, len(done.notes)) == (3, 2 + refused)
    assert "1 of its pictures comes in files of such formats (the first is set-train-0.tar/1.jp2)" in done.notes[0]
    assert done.notes[1].startswith("1 picture of the shards decodes differently now, although the bytes are intact")
    if refused:
        assert done.notes[2].startswith("1 of them is refused, and training stops there: ")
        assert done.notes[2].endswith("convert it to a 16-bit PNG or TIFF")


def test_indexing_again_makes_the_dataset_say_that_it_is_of_this_version(tmp_path: Path) -> None:
    folder = make_old(index(tmp_path, GRAY))
    index_foreign(folder)
    assert read_manifest(folder).decoding == VERSION
    assert verify_dataset(folder).notes == ()


def test_new_indexed_tar_with_a_picture_that_is_refused_fails_as_ever(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="JPEG 2000 of 3 channels with 16 bits"):
        verify_dataset(index(tmp_path, COLOUR))


def test_update_of_an_old_set_without_such_pictures_makes_it_one_of_this_version(plain: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", {"a/new.jp2": GRAY})
    manifest, notes = update(tmp_path / "in", plain)
    assert (manifest.decoding, read_manifest(plain).decoding) == (VERSION, VERSION)
    assert notes[0].endswith("It holds no such picture, so old and new ones are decoded alike")


def test_update_reads_old_pictures_again_and_takes_those_that_come_out_as_packed(tmp_path: Path) -> None:
    pack(find_sources(pictures(tmp_path / "in", usual=PLAIN_JP2)), tmp_path / "out", OPTIONS)
    make_old(tmp_path / "out")
    write(tmp_path / "in", {"b/new.png": noise(9)})
    manifest, notes = update(tmp_path / "in", tmp_path / "out")
    assert manifest.decoding == VERSION
    assert notes[0].endswith("All 1 pictures that might be such decode as when they were packed")


def test_update_that_would_mix_pictures_read_in_two_ways_is_refused_and_writes_nothing(
    odd: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in", {"b/new.png": noise(9)})
    before = {path: path.read_bytes() for path in odd.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        update(tmp_path / "in", odd)
    assert str(caught.value).endswith(
        "1 picture (a/deep.jp2) decodes differently now, so that old and new pictures would differ; nothing is "
        "damaged: pack all of them into a new folder"
    )
    assert {path: path.read_bytes() for path in odd.rglob("*") if path.is_file()} == before
    assert pack(find_sources(tmp_path / "in"), tmp_path / "new", OPTIONS).decoding == VERSION


def test_update_with_nothing_to_add_says_the_same_and_refuses_nothing(odd: Path, tmp_path: Path) -> None:
    manifest, notes = update(tmp_path / "in", odd)
    assert manifest.decoding == 1
    assert "1 picture (a/deep.jp2) decodes differently now; nothing is damaged" in notes[0]


def test_update_without_the_old_files_says_that_nobody_can_tell_and_keeps_the_version(
    odd: Path, tmp_path: Path
) -> None:
    write(tmp_path / "more", {"a/new.png": noise(8), "b/new.png": noise(9)})
    manifest, notes = update(tmp_path / "more", odd)
    assert manifest.decoding == read_manifest(odd).decoding == 1
    assert "whether 2 of its pictures (the first is a/deep.jp2) are such is unknown without their files" in notes[0]


def test_packing_an_old_set_once_more_says_which_pictures_come_out_otherwise(odd: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    manifest = pack(find_sources(tmp_path / "in"), odd, OPTIONS, Run(report=notes.append))
    assert manifest == read_manifest(odd)
    assert "1 picture (a/deep.jp2) decodes differently now, and the dataset stays as it is" in notes[-1]


def test_old_set_with_a_picture_that_is_refused_by_now_is_not_called_another_without_a_reason(
    plain: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in", {"a/deep.jp2": COLOUR, "a/more.png": noise(5)})
    lax = OPTIONS.model_copy(update={"max_reject_rate": 1.0})
    with pytest.raises(UsageError, match=r"of other pictures or options; .* \(the dataset has decoding version 1; "):
        pack(find_sources(tmp_path / "in"), plain, lax)


def test_what_a_killed_pack_left_is_believed_by_the_version_that_wrote_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = find_sources(pictures(tmp_path / "in"))

    def stop(stage: str, *_: int) -> None:
        if stage == "write":
            raise InterruptedError

    def leave(version: int, out: Path) -> tuple[str, list[str]]:
        """Return the identity of the unfinished shards, and the names of the audit's journal."""
        for module in ("shards.packing.pack", "shards.audit.examine"):
            monkeypatch.setattr(f"{module}.DECODING", version)
        with pytest.raises(InterruptedError):
            pack(listed, out, OPTIONS, Run(progress=stop))
        return json.loads((out / MARKER).read_text())["plan"], sorted(file.name for file in (out / JOURNAL).iterdir())

    mine, same, other = (leave(VERSION - (name == "c"), tmp_path / name) for name in "abc")
    assert mine == same
    assert mine[0] != other[0]
    assert not set(mine[1]) & set(other[1])


def test_version_that_a_model_has_seen_is_that_of_what_is_stored(odd: Path, tmp_path: Path) -> None:
    assert find_decoding(open_dataset(odd)) == 1
    tars = make_old(index(tmp_path / "tars", GRAY))
    assert (find_decoding(open_dataset(tars)), find_decoding(open_dataset(tars), trained_with=1)) == (VERSION, 1)


def test_version_that_a_model_has_seen_is_the_last_where_no_picture_differs(plain: Path) -> None:
    assert find_decoding(open_dataset(plain), trained_with=1) == VERSION


def test_nothing_is_said_of_a_set_of_this_version(tmp_path: Path) -> None:
    dataset = open_dataset(index(tmp_path, GRAY))
    assert describe_affected(dataset, find_affected(dataset)) == ""


def test_verify_prints_notes_beside_its_result(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from argparse import Namespace

    assert run_verify(Namespace(dataset=str(odd), sample=None, seed=0, json=False)) == 0
    out, err = capsys.readouterr()
    assert out.endswith("6 pictures decoded, all as packed\n")
    assert err.startswith("note: the dataset has decoding version 1; ")


def set_version(out: Path, version: int) -> Path:
    page = json.loads((out / MANIFEST_NAME).read_text()) | {"decoding": version}
    (out / MANIFEST_NAME).write_text(json.dumps(page, indent=2) + "\n")
    return out


def test_set_of_version_2_names_what_version_3_reads_otherwise(tmp_path: Path) -> None:
    """Its shards hold the preview, and what was made of the BMP: white throughout."""
    plain = {f"{'ab'[number % 2]}/{number}.png": noise(number) for number in range(4)}
    odd = {"a/preview.tif": preview_tiff(), "b/no_alpha.bmp": bmp_32(rgb_pixels()[::-1], 0)}
    pack(find_sources(write(tmp_path / "in", plain | odd)), tmp_path / "out", OPTIONS)
    record_hash(tmp_path / "out", "a/preview.tif", hash_pixels(np.zeros((8, 8, 3), np.uint8)))
    record_hash(tmp_path / "out", "b/no_alpha.bmp", hash_pixels(np.full((32, 48, 3), 255, np.uint8)))
    set_version(tmp_path / "out", 2)
    assert find_affected(open_dataset(tmp_path / "out")) == Affected(2, "a/preview.tif", stored=True)
    (note,) = verify_dataset(tmp_path / "out").notes
    assert "JPEG 2000" not in note  # that was said of version 1
    write(tmp_path / "in", {"b/new.png": noise(9)})
    with pytest.raises(UsageError, match=r"2 pictures \(the first is a/preview\.tif\) decode differently now"):
        update(tmp_path / "in", tmp_path / "out")


def test_set_of_version_2_with_ordinary_tiff_alone_is_updated_to_this_version(tmp_path: Path) -> None:
    """Its audit kept no column of what version 3 keeps."""
    write(tmp_path / "in", {"a/x.tif": encode(rgb(), "TIFF"), "b/deep.tif": tiff(deep_rgb(1), {})})
    pack(find_sources(pictures(tmp_path / "in")), tmp_path / "out", OPTIONS)
    set_version(tmp_path / "out", 2)
    table = pq.read_table(tmp_path / "out" / AUDIT_TABLE)
    pq.write_table(table.drop_columns(["white", "hidden"]), tmp_path / "out" / AUDIT_TABLE)
    write(tmp_path / "in", {"b/new.png": noise(9)})
    manifest, notes = update(tmp_path / "in", tmp_path / "out")
    assert manifest.decoding == VERSION
    assert notes[0].endswith("All 2 pictures that might be such decode as when they were packed")
    assert {"white", "hidden"} <= set(pq.read_table(tmp_path / "out" / AUDIT_TABLE).column_names)
