from __future__ import annotations

import io
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data import jpeg2000
from data.make_hostile import HOSTILE, Hostile, encode, rgb, rgb_pixels
from PIL import Image

from shards.errors import DecodeError
from shards.pictures.decode import DecodeOptions, decode, examine, inspect
from shards.pictures.dicom import read_patient
from shards.pictures.signature import is_dicom

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.pixels.utils import pixel_array
    from pydicom.sequence import Sequence
    from pydicom.uid import (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        JPEGLSLossless,
        RLELossless,
    )

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
"""pydicom's own test files, as far as its wheel holds them."""


def dicom(values: np.ndarray, **attributes: Any) -> bytes:
    """Return a DICOM file of [H, W] gray, [H, W, 3] colour or, with NumberOfFrames, [N, H, W] gray."""
    frames = "NumberOfFrames" in attributes
    shape = values.shape[1:] if frames else values.shape
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 3 if len(shape) == 3 else 1
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    bits = values.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    body = attributes.pop("body", values.tobytes())
    if values.dtype.kind == "f":
        dataset.FloatPixelData = body
    else:
        dataset.add_new(0x7FE00010, "OB" if bits == 8 else "OW", body)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def row(*values: int, dtype: Any = np.uint16) -> np.ndarray:
    return np.array([values], dtype=dtype)


def grays(data: bytes, gray_range: tuple[float, float] | None = None) -> list[int]:
    """Return the decoded values of the first row; all channels must agree."""
    pixels = decode(data, DecodeOptions(gray_range=gray_range))
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[0, :, 0].tolist()


def packaged(name: str) -> bytes:
    return (PACKAGED / name).read_bytes()


def test_12_bits_stored_are_scaled_from_black_to_white() -> None:
    assert grays(dicom(row(0, 2048, 4095), BitsStored=12)) == [0, 128, 255]


def test_signed_values_start_at_the_lowest() -> None:
    assert grays(dicom(row(-2048, 0, 2047, dtype=np.int16), BitsStored=12)) == [0, 128, 255]


def test_range_is_in_rescaled_units_and_wins_over_the_files_window() -> None:
    data = dicom(
        row(0, 24, 1024, 1424, 4000),
        BitsStored=12,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=0,
        WindowWidth=9,
    )
    # Hounsfield -1024, -1000, 0, 400 and 2976 under -1000..400
    assert grays(data, (-1000, 400)) == [0, 0, 182, 255, 255]


def test_slope_counts() -> None:
    data = dicom(row(0, 50, 100), BitsStored=12, RescaleSlope=2, RescaleIntercept=10)
    assert grays(data, (10, 210)) == [0, 128, 255]


@pytest.mark.parametrize(
    ("function", "centre", "width", "expected"),
    [
        # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w-1)/2, white from c - 0.5 + (w-1)/2: here 0 and 100.
        (None, 50.5, 101, {0: 0, 25: 64, 50: 128, 100: 255, 200: 255}),
        ("LINEAR", 50.5, 101, {0: 0, 25: 64, 50: 128, 100: 255, 200: 255}),
        # C.11.2.1.3.2: c - w/2 to c + w/2
        ("LINEAR_EXACT", 50, 100, {0: 0, 25: 64, 50: 128, 100: 255, 200: 255}),
        # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)); at c +- w/2 it is 0.8808 and 0.1192
        ("SIGMOID", 50, 100, {0: 30, 50: 128, 100: 225, 4000: 255}),
        (None, 50, 1, {0: 0, 49: 0, 50: 255, 100: 255}),
    ],
)
def test_window_follows_the_formula_of_the_standard(
    function: str | None, centre: float, width: float, expected: dict[int, int]
) -> None:
    more = {"VOILUTFunction": function} if function else {}
    data = dicom(row(*expected), BitsStored=12, WindowCenter=centre, WindowWidth=width, **more)
    assert grays(data) == list(expected.values())


def test_of_several_windows_the_first_counts() -> None:
    data = dicom(row(0, 50, 100), BitsStored=12, WindowCenter=[50.5, 2000], WindowWidth=[101, 4000])
    assert grays(data) == [0, 128, 255]


def test_window_is_in_rescaled_units() -> None:
    data = dicom(row(1000, 1050, 1100), RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=50.5, WindowWidth=101)
    assert grays(data) == [0, 128, 255]


def test_window_in_the_functional_groups_of_an_enhanced_file_counts() -> None:
    window, rescale, shared, frame = Dataset(), Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 50.5, 101
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1000
    frame.FrameVOILUTSequence = Sequence([window])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    data = dicom(
        np.array([row(1000, 1050, 1100), row(0, 0, 0)]),
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=Sequence([frame, Dataset()]),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )
    assert grays(data) == [0, 128, 255]


@pytest.mark.parametrize(("centre", "width"), [(50, 0), (50, -5), (50, 0.5)])
def test_window_that_shows_nothing_is_refused_and_a_range_heals_it(centre: float, width: float) -> None:
    data = dicom(row(0, 100), BitsStored=12, WindowCenter=centre, WindowWidth=width)
    with pytest.raises(
        DecodeError, match=r"window, centre 50 and width .* shows nothing; give --range LO,HI"
    ) as caught:
        decode(data)
    assert caught.value.kind == "range"
    assert grays(data, (0, 100)) == [0, 255]


def lookup(first: int, entries: list[int], bits: int, kind: str) -> Sequence:
    table = Dataset()
    table.add_new(0x00283002, "US", [len(entries), first, bits])
    table.add_new(0x00283006, "US", entries)
    if kind == "modality":
        table.ModalityLUTType = "US"
    return Sequence([table])


def test_table_of_the_values_of_interest_is_looked_up() -> None:
    data = dicom(row(9, 10, 11, 12), BitsStored=12, VOILUTSequence=lookup(10, [0, 128, 255], 8, "voi"))
    assert grays(data) == [0, 0, 128, 255]


def test_modality_table_is_looked_up_before_the_range() -> None:
    data = dicom(row(0, 1, 2), BitsStored=12, ModalityLUTSequence=lookup(0, [1000, 3000, 2000], 16, "modality"))
    assert grays(data, (1000, 3000)) == [0, 255, 128]
    assert grays(data) == [4, 12, 8]  # of 65535: 3.9, 11.7, 7.8


@pytest.mark.parametrize("more", [{}, {"WindowCenter": 50.5, "WindowWidth": 101}])
def test_monochrome1_is_inverted(more: dict[str, float]) -> None:
    values = row(0, 20, 100)
    light, dark = (
        grays(dicom(values, BitsStored=12, PhotometricInterpretation=name, **more))
        for name in ("MONOCHROME1", "MONOCHROME2")
    )
    assert light == [255 - value for value in dark]
    assert light[0] == 255


def test_16_bits_that_leave_the_top_unused_are_told_by_their_peak() -> None:
    picture = inspect(dicom(row(0, 4095)))
    assert (picture.format, picture.mode, picture.peak) == ("dicom", "MONOCHROME2", 4095)


@pytest.mark.parametrize("bits", range(9, 17))
def test_bits_stored_alone_tell_no_range_so_the_peak_is_kept(bits: int) -> None:
    picture = inspect(dicom(row(0, 300), BitsStored=bits))
    assert (picture.peak, picture.white) == (300, 2**bits - 1)


@pytest.mark.parametrize("more", [{}, {"BitsStored": 12}])
def test_picture_whose_window_tells_its_range_has_no_peak(more: dict[str, float]) -> None:
    picture = inspect(dicom(row(0, 4095), WindowCenter=50, WindowWidth=100, **more))
    assert (picture.peak, picture.white) == (0, 0)


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_few_signed_or_rescaled_bits_that_would_come_out_flat_are_refused_and_a_range_heals_it(bits: int) -> None:
    quarter = 2 ** (bits - 2)
    signed = dicom(row(-quarter, quarter - 1, dtype=np.int16), BitsStored=bits)
    rescaled = dicom(row(0, quarter), BitsStored=bits, RescaleSlope=2, RescaleIntercept=-10)
    for data, ends in ((signed, (-quarter, quarter - 1)), (rescaled, (-10, 2 * quarter - 10))):
        with pytest.raises(DecodeError, match=rf"stores {bits} bits, uses only values .*, .* --range LO,HI") as caught:
            decode(data)
        assert caught.value.kind == "range"
        assert grays(data, ends) == [0, 255]


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "CT_small.dcm"])
def test_file_without_a_preamble_gives_the_same_pixels(name: str) -> None:
    whole, options = packaged(name), DecodeOptions(gray_range=(0, 2000))
    np.testing.assert_array_equal(decode(whole[132:], options), decode(whole, options))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_file_without_a_preamble_and_without_what_belongs_to_it_is_read(syntax: Any, tmp_path: Path) -> None:
    """Their elements begin with group 8, and nothing but these tell how they are written."""
    data = dicom(
        row(0, 2048, 4095),
        syntax=syntax,
        BitsStored=12,
        SpecificCharacterSet="ISO_IR 100",
        Modality="DX",
        PatientID="P",
    )
    bare = data[data.index(b"\x08\x00\x05\x00") :]
    assert grays(bare) == [0, 128, 255]
    (tmp_path / "1.2.840.7").write_bytes(bare)
    assert read_patient(tmp_path / "1.2.840.7") == "P"


def test_runs_of_a_compressed_frame_are_taken_for_no_other_format() -> None:
    """The frame begins as a BMP of 65,535 x 65,535 pixels does; what it holds is for the decoder to refuse."""
    bitmap = b"BM" + bytes(12) + (40).to_bytes(4, "little") + b"\xff\xff\x00\x00" * 2 + b"\x01\x00\x18\x00"
    data = dicom(row(1, 2, dtype=np.uint8), syntax=RLELossless, body=encapsulate([bitmap.ljust(80, b"\x00")]))
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert caught.value.kind != "bomb"


def test_signed_16_bits_without_a_window_are_refused_when_they_would_come_out_flat() -> None:
    data = dicom(row(-1000, 400, dtype=np.int16))
    with pytest.raises(DecodeError, match=r"stores 16 bits, uses only values -1000\.\.400, .* --range LO,HI") as caught:
        decode(data)
    assert caught.value.kind == "range"
    assert grays(data, (-1000, 400)) == [0, 255]


def test_real_ct_slice_without_a_window_decodes_by_a_range_alone() -> None:
    with pytest.raises(DecodeError, match="has no window"):
        decode(packaged("CT_small.dcm"))
    stored = pixel_array(PACKAGED / "CT_small.dcm").astype(np.int64) - 1024  # its RescaleIntercept
    expected = np.clip((stored + 1000) * 255 / 1400, 0, 255)
    pixels = decode(packaged("CT_small.dcm"), DecodeOptions(gray_range=(-1000, 400)))
    np.testing.assert_allclose(pixels[:, :, 0], expected, atol=0.5001)


def test_float_pixels_need_a_range() -> None:
    data = dicom(np.array([[0.0, 0.5, 1.0]], dtype=np.float32), BitsStored=32)
    assert grays(data, (0, 1)) == [0, 128, 255]
    with pytest.raises(DecodeError, match=r"float32 gray with values 0\.\.1"):
        decode(data)


def test_float_pixels_that_are_no_numbers_are_refused() -> None:
    data = dicom(np.array([[0.0, np.nan]], dtype=np.float32), BitsStored=32)
    with pytest.raises(DecodeError, match="not numbers") as caught:
        decode(data, DecodeOptions(gray_range=(0, 1)))
    assert caught.value.kind == "range"


def test_rgb_comes_out_as_it_is() -> None:
    np.testing.assert_array_equal(decode(dicom(rgb_pixels())), rgb_pixels())


def test_16_bit_rgb_is_scaled_by_the_bits_stored() -> None:
    values = np.array([[[0, 2048, 4095]]], dtype=np.uint16)
    assert decode(dicom(values, BitsStored=12)).tolist() == [[[0, 128, 255]]]


def test_jpeg_inside_decodes_to_the_pixels_of_the_jpeg() -> None:
    jpeg = encode(rgb(), "JPEG", subsampling="4:4:4")
    data = dicom(
        rgb_pixels(), syntax=JPEGBaseline8Bit, body=encapsulate([jpeg]), PhotometricInterpretation="YBR_FULL_422"
    )
    np.testing.assert_allclose(decode(data).astype(int), decode(jpeg), atol=2)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm"]
)
def test_one_slice_in_every_lossless_syntax_gives_the_same_pixels(name: str) -> None:
    np.testing.assert_array_equal(decode(packaged(name)), decode(packaged("MR_small.dcm")))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("SC_ybr_full_422_uncompressed.dcm", "YBR_FULL_422"),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "RGB"),
        ("SC_rgb_jpeg_dcmtk.dcm", "YBR_FULL"),
        ("SC_rgb_rle_16bit.dcm", "RGB"),
    ],
)
def test_colour_bars_have_their_colours_in_every_colour_space(name: str, mode: str) -> None:
    """The files show the same stripes; the first is red, and black and white are in it."""
    picture, pixels = examine(packaged(name))
    assert picture.mode == mode
    np.testing.assert_allclose(pixels[5, 50], (255, 0, 0), atol=3)
    np.testing.assert_allclose(pixels[45, 50], (0, 0, 255), atol=3)
    np.testing.assert_allclose(pixels[95, 50], (255, 255, 255), atol=3)


def test_palette_is_looked_up() -> None:
    assert inspect(packaged("examples_palette.dcm")).mode == "PALETTE COLOR"
    pixels = decode(packaged("examples_palette.dcm"))
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, 3)[::97].tolist()}) > 20
    assert (pixels != pixels[:, :, :1]).any()


def test_first_frame_is_taken_and_all_are_counted() -> None:
    frames = np.array([row(0, 4095), row(4095, 0), row(0, 0)])
    data = dicom(frames, NumberOfFrames=3, BitsStored=12)
    assert grays(data) == [0, 255]
    assert inspect(data).frames == 3


def test_several_frames_are_refused_where_one_is_asked_for() -> None:
    data = dicom(np.array([row(0, 1), row(1, 0)]), NumberOfFrames=2, BitsStored=12)
    with pytest.raises(DecodeError, match="has 2 frames, but only one is allowed") as caught:
        decode(data, DecodeOptions(frames="refuse"))
    assert caught.value.kind == "frames"


def test_pixel_limit_is_checked_before_pixels_are_touched() -> None:
    data = dicom(row(1, 2), Rows=60_000, Columns=60_000)  # its pixels cannot be unpacked
    with pytest.raises(DecodeError, match=r"60,000 x 60,000 pixels, over the limit of 100,000,000$") as caught:
        decode(data)
    assert caught.value.kind == "bomb"


def test_pixel_limit_counts_for_the_jpeg_inside_as_well() -> None:
    jpeg = encode(Image.new("L", (2000, 1000)), "JPEG")
    data = dicom(row(1, 2, dtype=np.uint8), syntax=JPEGBaseline8Bit, body=encapsulate([jpeg]))
    with pytest.raises(DecodeError, match="2,000 x 1,000 pixels, over the limit of 10,000"):
        decode(data, DecodeOptions(max_pixels=10_000))


def test_file_cut_in_its_pixels_is_called_truncated() -> None:
    data = dicom(row(*range(1000)), BitsStored=12)
    with pytest.raises(DecodeError, match="truncated") as caught:
        decode(data[:-500])
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm"])
def test_compression_without_a_decoder_is_named_with_the_remedy(name: str) -> None:
    with pytest.raises(DecodeError, match=r"compressed as JPEG-LS .*, and no decoder .* pip install pylibjpeg"):
        decode(packaged(name))
    assert "JPEG-LS" in JPEGLSLossless.name


def test_12_bit_jpeg_inside_is_refused_in_one_line_that_names_the_syntax() -> None:
    with pytest.raises(DecodeError, match=r"compressed as JPEG Extended .*12-bit precision") as caught:
        decode(packaged("JPGExtended.dcm"))
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm"])
def test_file_without_a_picture_is_refused(name: str) -> None:
    with pytest.raises(DecodeError, match="holds no picture"):
        decode(packaged(name))


@pytest.mark.filterwarnings("ignore")  # pydicom tells of each broken rule
@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.dcm")), ids=lambda path: path.name)
def test_every_packaged_file_decodes_or_is_refused_in_one_line(path: Path) -> None:
    try:
        pixels, refusal = decode(path.read_bytes(), DecodeOptions(gray_range=(0, 4000))), ""
    except DecodeError as err:
        pixels, refusal = None, str(err)
    assert "\n" not in refusal
    assert " at 0x" not in refusal
    if pixels is not None:
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_decode_or_are_refused_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    clean = packaged("MR_small.dcm")
    refused = 0
    for _ in range(200):
        data = bytearray(clean)
        for place in rng.integers(132, 1800, 5):
            data[place] = rng.integers(0, 256)
        try:
            decode(bytes(data), DecodeOptions(max_pixels=1_000_000))
        except DecodeError:
            refused += 1
    assert 0 < refused < 200


def test_dicom_files_are_known_by_their_mark_or_by_their_first_elements() -> None:
    assert is_dicom(packaged("MR_small.dcm"))
    assert is_dicom(packaged("ExplVR_LitEndNoMeta.dcm"))
    assert not is_dicom(packaged("no_meta.dcm"))  # it begins with a blank


@pytest.mark.parametrize("item", HOSTILE, ids=lambda item: item.name)
def test_no_picture_of_another_format_is_taken_for_dicom(item: Hostile) -> None:
    assert is_dicom(item.make()) == item.name.endswith(".dcm")


def test_patient_is_read_without_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom(row(1, 2), PatientID="P-007")[:-2])  # the pixels are cut: they are not wanted
    assert read_patient(path) == "P-007"


@pytest.mark.parametrize("more", [{}, {"PatientID": ""}])
def test_patient_that_is_not_told_is_empty(tmp_path: Path, more: dict[str, str]) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom(row(1, 2), **more))
    assert read_patient(path) == ""


def test_patient_of_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(encode(rgb(), "PNG"))
    with pytest.raises(DecodeError, match=r"^a\.dcm is not a DICOM file"):
        read_patient(path)


def test_patient_of_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_patient(tmp_path / "none.dcm")


def test_without_pydicom_the_refusal_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)  # as Python marks what cannot be imported
    with pytest.raises(DecodeError, match=r"pydicom is not installed: pip install 'shardline\[dicom\]'"):
        decode(packaged("MR_small.dcm"))


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_frame_of_more_bits_than_the_file_says_is_refused_and_does_not_wrap(bits: int) -> None:
    frame = encapsulate([jpeg2000.codestream([jpeg2000.ramp(bits)], [bits])])
    values = np.zeros((32, 48), np.uint8 if bits <= 8 else np.uint16)
    honest = dicom(values, syntax=JPEG2000Lossless, body=frame, BitsStored=bits)
    assert decode(honest)[-1, -1].tolist() == [255] * 3
    with pytest.raises(DecodeError, match=f"declares 8 stored bits but its JPEG 2000 frame has {bits}"):
        decode(dicom(values.astype(np.uint8), syntax=JPEG2000Lossless, body=frame))


@pytest.mark.skipif(find_spec("openjpeg") is not None, reason="pylibjpeg-openjpeg is installed and reads it")
@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_2000_colour_above_8_bits_in_a_dicom_file_is_refused_and_names_decoders(bits: int) -> None:
    frame = encapsulate([jpeg2000.codestream([jpeg2000.ramp(bits)] * 3, [bits] * 3)])
    data = dicom(np.zeros((32, 48, 3), np.uint16), syntax=JPEG2000Lossless, body=frame, BitsStored=bits)
    with pytest.raises(DecodeError, match=r"its pixels cannot be decoded .* pip install pylibjpeg"):
        decode(data)
