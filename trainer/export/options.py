"""Options of `trainer.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from pydantic import model_validator

from shards.cli.arguments import check_count
from shards.cli.options import Location, Options, Output
from shards.errors import UsageError
from trainer.contract.model.names import ExportKind

TOLERANCE: Final = 1e-3
"""Default limit for the difference of a probability, for an export in float32."""


class ExportOptions(Options):
    """The format of an export, and how it is verified.

    Raises:
        UsageError: A number is invalid.
    """

    bundle: Path
    """Folder of the bundle."""
    to: ExportKind
    """The format; torch-export is a .pt2 file."""
    data: Location | None = None
    """Also compare on pictures of this DATASET[:SPLIT] (default split: val) or folder."""
    samples: int = 256
    """Maximum number of pictures of `data`, at least 1."""
    tolerance: float = TOLERANCE
    """Largest allowed difference of a probability, in [0, 1]."""
    out: Output | None = None
    """Output file; None: BUNDLE/exports/model.onnx, .pt2 or .pt."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 <= self.tolerance <= 1:
            raise UsageError(f"--tolerance is a difference of probabilities, in [0, 1], got {self.tolerance}")
        check_count("--samples", self.samples, of="pictures")
        return self
