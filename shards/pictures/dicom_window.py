"""The window of a DICOM file: which of its values are shown between black and white."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shards.errors import DecodeError
from shards.pictures.deep import scale


def read_window(macro: Any) -> tuple[float, float, str] | None:
    """Return (centre, width, function) of the first window among DICOM attributes, None if there is none.

    Raises:
        DecodeError: The window shows nothing; `kind` is range.
    """
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


def apply_window(values: npt.NDArray[Any], centre: float, width: float, function: str) -> npt.NDArray[np.uint8]:
    """Return uint8 of the same shape.

    Raises:
        DecodeError: The function is not in the standard; `kind` is range.

    Source: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.
    """
    if function == "SIGMOID":
        power = np.clip(-4.0 * (values.astype(np.float64) - centre) / width, -700, 700)  # exp overflows beyond
        return scale(255.0 / (1.0 + np.exp(power)), (0, 255))
    if function == "LINEAR_EXACT":
        return scale(values, (centre - width / 2, centre + width / 2))
    if function != "LINEAR":
        raise DecodeError(f"the DICOM file's window function {function!r} is unknown; give --range LO,HI", kind="range")
    if width == 1:
        return np.where(values > centre - 0.5, np.uint8(255), np.uint8(0))
    return scale(values, (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2))
