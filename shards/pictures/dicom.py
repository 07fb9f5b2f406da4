"""DICOM files to 8-bit pixels; the only module that uses pydicom (the extra `dicom`)."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from shards.errors import DecodeError
from shards.pictures.deep import Range, scale
from shards.pictures.dicom_window import apply_window, read_window
from shards.pictures.jpeg2000 import read_header
from shards.pictures.signature import DICOM_BYTES, is_dicom, is_jpeg2000, refuse_bomb

_INSTALL = "pip install 'shardline[dicom]'"
_DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"

_Mapped = tuple[npt.NDArray[np.uint8], float, float]


@dataclass(frozen=True, slots=True)
class DicomPicture:
    """One frame. pixels: uint8[H, W, 3]. mode: its photometric interpretation, for example MONOCHROME2. frames:
    frames in the file. peak, white: the largest stored value, and the largest that the stored bits can hold, if the
    range of values follows only from these bits; else 0."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    frames: int
    peak: float
    white: float


def read_dicom(data: bytes, gray_range: Range | None, max_pixels: int, single: bool) -> DicomPicture:
    """Return the first frame; gray is mapped to black..white by a range, a window or the stored bits.

    Gray first passes the modality table or rescale. Then the first of these applies: `gray_range`, in rescaled units
    (Hounsfield for CT); the file's first window; its VOI table; the whole range of the stored bits.
    MONOCHROME1 is inverted; YBR and palette become RGB.

    Args:
        data: The file's bytes.
        gray_range: Values that become 0 and 255.
        max_pixels: Rows times columns above which the file is refused before its pixels are read.
        single: Refuse files of more than one frame.

    Raises:
        DecodeError: No pydicom, no picture in the file, or one that cannot be decoded; `kind` says which.
    """
    _import_pydicom()
    try:
        dataset = _parse(data)
        frames = _check_header(dataset, max_pixels, single)
        stored = _read_first_frame(dataset, frames, max_pixels)
        photometric = str(dataset.PhotometricInterpretation)
        if photometric.startswith("MONOCHROME"):
            gray, peak, white = _map_gray(stored, dataset, gray_range)
            gray = 255 - gray if photometric == "MONOCHROME1" else gray
            return DicomPicture(np.repeat(gray[:, :, None], 3, axis=2), photometric, frames, peak, white)
        colours = np.array(_map_colour(stored, dataset, gray_range), order="C")  # a copy is writable, a view may not be
        return DicomPicture(colours, photometric, frames, 0.0, 0.0)
    except DecodeError:
        raise
    except Exception as err:  # pydicom raises nearly every error type on hostile bytes
        cut = isinstance(err, EOFError) or "less than expected" in str(err)
        raise DecodeError(
            f"the DICOM file cannot be decoded ({len(data):,} bytes{': truncated' if cut else ''}: {err})",
            kind="truncated" if cut else "unreadable",
        ) from err


def read_patient(path: Path) -> str:
    """Return the PatientID of a DICOM file, '' if it has none; pixels are not read.

    Raises:
        DecodeError: Not a DICOM file, or no pydicom.
        OSError: The file cannot be read.
    """
    pydicom = _import_pydicom()
    with open(path, "rb") as file:
        try:
            bare = is_dicom(file.read(DICOM_BYTES))  # pydicom reads a file without a preamble only with force
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=bare, specific_tags=["PatientID"])
            return str(dataset.get("PatientID") or "")
        except OSError:
            raise
        except Exception as err:
            raise DecodeError(f"{path.name} is not a DICOM file whose PatientID can be read: {err}") from err


def _parse(data: bytes) -> Any:
    """Return the data set; a missing transfer syntax (no preamble) is inferred from its encoding."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = pydicom.dcmread(io.BytesIO(data), force=is_dicom(data))
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _import_pydicom() -> Any:
    try:
        import pydicom
    except ImportError as err:
        raise DecodeError(f"the picture is a DICOM file, but pydicom is not installed: {_INSTALL}") from err
    # Values that break the rules of their type are common; a warning for each would bury all others.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def _check_header(dataset: Any, max_pixels: int, single: bool) -> int:
    """Check the header against the limits; return the number of frames."""
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DecodeError(f"the DICOM file holds no picture ({dataset.get('Modality') or 'no modality'})")
    refuse_bomb(int(dataset.Columns), int(dataset.Rows), max_pixels)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 and single:
        raise DecodeError(
            f"the DICOM file has {frames} frames, but only one is allowed; keep the one that counts, or use the "
            "first of each with --frames first",
            kind="frames",
        )
    return frames


def _read_first_frame(dataset: Any, frames: int, max_pixels: int) -> npt.NDArray[Any]:
    """Return stored values [H, W], or RGB [H, W, 3]."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _refuse_undecodable(syntax)
        # The encapsulated picture may be larger than Rows and Columns.
        frame = io.BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=frames))
        # Only these formats: an RLE frame may begin like a bitmap or an icon.
        with contextlib.suppress(UnidentifiedImageError), Image.open(frame, formats=("JPEG", "JPEG2000")) as image:
            refuse_bomb(image.width, image.height, max_pixels)
        _refuse_more_bits(frame.getvalue(), int(dataset.BitsStored))
    try:
        values = np.asarray(pixel_array(dataset, index=0))
    except RuntimeError as err:  # every decoder failed; the message has a line for each
        raise DecodeError(
            f"the DICOM file is compressed as {syntax.name}, and its pixels cannot be decoded "
            f"({' '.join(str(err).split())}); more decoders: {_DECODERS}"
        ) from err
    if values.shape[:2] != (dataset.Rows, dataset.Columns):
        raise DecodeError(
            f"the DICOM file declares {dataset.Columns} x {dataset.Rows} pixels but holds an array of {values.shape}"
        )
    return values


def _refuse_more_bits(frame: bytes, bits: int) -> None:
    """Refuse a frame whose values need more bits than BitsStored: they would wrap."""
    most = max(channel.bits for channel in read_header(frame).channels) if is_jpeg2000(frame) else bits
    if most > bits:
        raise DecodeError(
            f"the DICOM file declares {bits} stored bits but its JPEG 2000 frame has {most}, so white would become "
            "an arbitrary gray; set BitsAllocated, BitsStored and HighBit to those of the frame"
        )


def _refuse_undecodable(syntax: Any) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    with contextlib.suppress(NotImplementedError):  # a syntax unknown to pydicom
        if get_decoder(syntax).is_available:
            return
    raise DecodeError(
        f"the DICOM file is compressed as {syntax.name}, and no decoder for that is installed: {_DECODERS}"
    )


def _map_gray(stored: npt.NDArray[Any], dataset: Any, gray_range: Range | None) -> _Mapped:
    """Return uint8[H, W], and peak and white as in DicomPicture."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    table = dataset.get("ModalityLUTSequence")
    slope, intercept = _read_rescale(dataset)
    values = apply_modality_lut(stored, dataset) if table else _rescale(stored, slope, intercept)
    if gray_range:
        return scale(values, gray_range), 0.0, 0.0
    window = read_window(_find_macro(dataset, "FrameVOILUTSequence"))
    if window:
        return apply_window(values, *window), 0.0, 0.0
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return scale(apply_voi(values.astype(np.int64), dataset).astype(np.float64), (0, 2.0**bits - 1)), 0.0, 0.0
    if table:
        return scale(values.astype(np.float64), (0, 2.0 ** int(table[0].LUTDescriptor[2]) - 1)), 0.0, 0.0
    if stored.dtype.kind == "f":
        return scale(values, None), 0.0, 0.0  # always refused: the range is unknown
    return _map_stored_range(stored, dataset, slope, intercept)


def _map_stored_range(stored: npt.NDArray[Any], dataset: Any, slope: float, intercept: float) -> _Mapped:
    """Return the same as `_map_gray` if the range of values follows only from the stored bits."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    plain = not signed and 8 < bits <= 16 and (slope, intercept) == (1.0, 0.0)
    top_unused = bits > 8 and low / 2 <= stored.min() and stored.max() <= high / 2
    if top_unused and not plain:  # plain ones are checked by the peak of the whole dataset
        ends = sorted(float(value) * slope + intercept for value in (stored.min(), stored.max()))
        raise DecodeError(
            f"the DICOM file stores {bits} bits, uses only values {ends[0]:g}..{ends[1]:g}, and has no window, so "
            "it would come out flat; give --range LO,HI",
            kind="range",
        )
    low, high = sorted(end * slope + intercept for end in (low, high))
    gray = scale(_rescale(stored, slope, intercept).astype(np.float64), (low, high))
    return (gray, float(stored.max()), high) if plain else (gray, 0.0, 0.0)


def _find_macro(dataset: Any, name: str) -> Any:
    """Return the group that holds the attributes of `name`: the first frame's functional group, or the file itself."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        found = dataset[groups][0].get(name) if dataset.get(groups) else None
        if found:
            return found[0]
    return dataset


def _read_rescale(dataset: Any) -> tuple[float, float]:
    """Return (slope, intercept)."""
    macro = _find_macro(dataset, "PixelValueTransformationSequence")
    slope, intercept = macro.get("RescaleSlope"), macro.get("RescaleIntercept")
    slope, intercept = (1.0 if slope is None else float(slope)), float(intercept or 0.0)
    if slope == 0 or not np.isfinite((slope, intercept)).all():
        raise DecodeError(f"the DICOM file rescales by {slope:g} and {intercept:g}, which maps no values", kind="range")
    return slope, intercept


def _rescale(stored: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    return stored if (slope, intercept) == (1.0, 0.0) else stored.astype(np.float64) * slope + intercept


def _map_colour(stored: npt.NDArray[Any], dataset: Any, gray_range: Range | None) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3]."""
    from pydicom.pixels.processing import apply_color_lut

    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = np.asarray(apply_color_lut(stored, dataset))[:, :, :3]
        return colours if colours.dtype == np.uint8 else scale(colours, None)
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise DecodeError(f"the DICOM file is {dataset.PhotometricInterpretation} with an array of {stored.shape}")
    bits = int(dataset.BitsStored)
    if stored.dtype == np.uint8 and bits == 8:
        return stored
    return scale(stored.astype(np.float64), gray_range or (0, 2.0**bits - 1))
