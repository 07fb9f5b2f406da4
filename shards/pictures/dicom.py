"""DICOM files to 8-bit pixels: the one door to pydicom, which is the extra `dicom`."""

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
from shards.pictures.jpeg2000 import is_jpeg2000, read_header

_INSTALL = "pip install 'shardline[dicom]'"
_DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"


@dataclass(frozen=True, slots=True)
class DicomPicture:
    """One frame. pixels: uint8[H, W, 3]. mode: its photometric interpretation, as MONOCHROME2. frames: of the file.
    peak: largest stored value where 16 bits are stored and no window says which of them count, else 0."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    frames: int
    peak: float


def is_dicom(data: bytes) -> bool:
    """Say whether the bytes begin as a DICOM file does: DICM behind 128 bytes of anything.

    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"DICM")
    (True, False)
    """
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, gray_range: Range | None, max_pixels: int, single: bool) -> DicomPicture:
    """Return the first frame, in gray mapped to black..white by a range, a window or the stored bits.

    Gray goes through the modality table or rescale first. Then `gray_range`, in those units (Hounsfield for CT), wins;
    else the file's own window, the first of several; else its VOI table; else the whole range of the bits stored.
    MONOCHROME1 is inverted, YBR and palette become RGB.

    Args:
        data: The file's bytes.
        gray_range: Values that become 0 and 255.
        max_pixels: Rows times columns above which the file is refused before its pixels are touched.
        single: Refuse more than one frame.

    Raises:
        DecodeError: No pydicom, no picture in the file, or one that cannot be decoded; `kind` says which.
    """
    pydicom = _import_pydicom()
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        frames = _check_header(dataset, max_pixels, single)
        stored = _read_first_frame(dataset, frames, max_pixels)
        photometric = str(dataset.PhotometricInterpretation)
        if photometric.startswith("MONOCHROME"):
            gray, peak = _map_gray(stored, dataset, gray_range)
            gray = 255 - gray if photometric == "MONOCHROME1" else gray
            return DicomPicture(np.repeat(gray[:, :, None], 3, axis=2), photometric, frames, peak)
        colours = np.array(_map_colour(stored, dataset, gray_range), order="C")  # a copy is writable, a view may not be
        return DicomPicture(colours, photometric, frames, 0.0)
    except DecodeError:
        raise
    except Exception as err:  # pydicom raises nearly every kind on hostile bytes
        cut = isinstance(err, EOFError) or "less than expected" in str(err)
        raise DecodeError(
            f"the DICOM file cannot be decoded ({len(data):,} bytes{': truncated' if cut else ''}: {err})",
            kind="truncated" if cut else "unreadable",
        ) from err


def read_patient(path: Path) -> str:
    """Return the PatientID of a DICOM file, '' where it has none; pixels are not read.

    Raises:
        DecodeError: Not a DICOM file, or no pydicom.
        OSError: The file cannot be read.
    """
    pydicom = _import_pydicom()
    with open(path, "rb") as file:
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(dataset.get("PatientID") or "")
        except OSError:
            raise
        except Exception as err:
            raise DecodeError(f"{path.name} is no DICOM file whose PatientID can be read: {err}") from err


def _import_pydicom() -> Any:
    try:
        import pydicom
    except ImportError as err:
        raise DecodeError(f"the picture is a DICOM file, and pydicom is not installed: {_INSTALL}") from err
    # Values that break the rules of their type are everyday, and a warning for each would bury all else.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def _check_header(dataset: Any, max_pixels: int, single: bool) -> int:
    """Return the number of frames."""
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DecodeError(f"the DICOM file holds no picture ({dataset.get('Modality') or 'no modality'})")
    _refuse_bomb(int(dataset.Columns), int(dataset.Rows), max_pixels)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 and single:
        raise DecodeError(
            f"the DICOM file has {frames} frames, and one is asked for; keep the one that counts, or take the first of "
            "each with --frames first",
            kind="frames",
        )
    return frames


def _refuse_bomb(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError(
            f"the picture has {width:,} x {height:,} pixels, over the limit of {max_pixels:,}", kind="bomb"
        )


def _read_first_frame(dataset: Any, frames: int, max_pixels: int) -> npt.NDArray[Any]:
    """Return stored values [H, W], or RGB [H, W, 3]."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _refuse_undecodable(syntax)
        # A picture inside may be larger than Rows and Columns tell.
        frame = io.BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=frames))
        with contextlib.suppress(UnidentifiedImageError), Image.open(frame) as image:
            _refuse_bomb(image.width, image.height, max_pixels)
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
            f"the DICOM file tells {dataset.Columns} x {dataset.Rows} pixels and holds an array of {values.shape}"
        )
    return values


def _refuse_more_bits(frame: bytes, bits: int) -> None:
    """Refuse a frame whose values do not fit into the bits that the file says are stored: they would wrap."""
    most = max(channel.bits for channel in read_header(frame).channels) if is_jpeg2000(frame) else bits
    if most > bits:
        raise DecodeError(
            f"the DICOM file says that {bits} bits are stored and its JPEG 2000 frame has {most}, so white would come "
            "out as any gray; set BitsAllocated, BitsStored and HighBit to what the frame has"
        )


def _refuse_undecodable(syntax: Any) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    with contextlib.suppress(NotImplementedError):  # a syntax that pydicom has never heard of
        if get_decoder(syntax).is_available:
            return
    raise DecodeError(
        f"the DICOM file is compressed as {syntax.name}, and no decoder for that is installed: {_DECODERS}"
    )


def _map_gray(stored: npt.NDArray[Any], dataset: Any, gray_range: Range | None) -> tuple[npt.NDArray[np.uint8], float]:
    """Return uint8[H, W] and the peak, see DicomPicture."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    table = dataset.get("ModalityLUTSequence")
    slope, intercept = _read_rescale(dataset)
    values = apply_modality_lut(stored, dataset) if table else _rescale(stored, slope, intercept)
    if gray_range:
        return scale(values, gray_range), 0.0
    window = _read_window(dataset)
    if window:
        return _apply_window(values, *window), 0.0
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return scale(apply_voi(values.astype(np.int64), dataset).astype(np.float64), (0, 2.0**bits - 1)), 0.0
    if table:
        return scale(values.astype(np.float64), (0, 2.0 ** int(table[0].LUTDescriptor[2]) - 1)), 0.0
    if stored.dtype.kind == "f":
        return scale(values, None), 0.0  # refused: nothing tells the range
    return _map_stored_range(stored, dataset, slope, intercept)


def _map_stored_range(
    stored: npt.NDArray[Any], dataset: Any, slope: float, intercept: float
) -> tuple[npt.NDArray[np.uint8], float]:
    """Return uint8[H, W] and the peak, where only the bits stored tell which values may occur."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    plain = not signed and bits == 16 and (slope, intercept) == (1.0, 0.0)
    top_unused = bits >= 16 and low / 2 <= stored.min() and stored.max() <= high / 2
    if top_unused and not plain:  # plain ones are judged by the peak of the whole set
        ends = sorted(float(value) * slope + intercept for value in (stored.min(), stored.max()))
        raise DecodeError(
            f"the DICOM file stores {bits} bits, uses values {ends[0]:g}..{ends[1]:g} only, and has no window, so it "
            "would come out flat; give --range LO,HI",
            kind="range",
        )
    low, high = sorted(end * slope + intercept for end in (low, high))
    return scale(_rescale(stored, slope, intercept).astype(np.float64), (low, high)), (
        float(stored.max()) if plain else 0.0
    )


def _find_macro(dataset: Any, name: str) -> Any:
    """Return where the file keeps the attributes of `name`: in it, or in the first frame's functional groups."""
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
        raise DecodeError(f"the DICOM file rescales by {slope:g} and {intercept:g}, which maps nothing", kind="range")
    return slope, intercept


def _rescale(stored: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    return stored if (slope, intercept) == (1.0, 0.0) else stored.astype(np.float64) * slope + intercept


def _read_window(dataset: Any) -> tuple[float, float, str] | None:
    """Return (centre, width, function) of the first window."""
    macro = _find_macro(dataset, "FrameVOILUTSequence")
    centre, width = (_first(macro.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(macro.get("VOILUTFunction") or "LINEAR")
    if not np.isfinite((centre, width)).all() or width < (1 if function == "LINEAR" else 1e-9):
        raise DecodeError(
            f"the DICOM file's window, centre {centre:g} and width {width:g}, shows nothing; give --range LO,HI",
            kind="range",
        )
    return centre, width, function


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    several = isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue"
    return (float(value[0]) if len(value) else None) if several else float(value)


def _apply_window(values: npt.NDArray[Any], centre: float, width: float, function: str) -> npt.NDArray[np.uint8]:
    """Return uint8 of the same shape. Source: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        power = np.clip(-4.0 * (values.astype(np.float64) - centre) / width, -700, 700)  # exp overflows beyond
        return scale(255.0 / (1.0 + np.exp(power)), (0, 255))
    if function == "LINEAR_EXACT":
        return scale(values, (centre - width / 2, centre + width / 2))
    if function != "LINEAR":
        raise DecodeError(
            f"the DICOM file's window function {function!r} is not known; give --range LO,HI", kind="range"
        )
    if width == 1:
        return np.where(values > centre - 0.5, np.uint8(255), np.uint8(0))
    return scale(values, (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2))


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
