"""Options of `trainer.predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BeforeValidator, PositiveInt, model_validator

from shards.cli.options import Location, Options, Output
from shards.errors import UsageError
from trainer.contract.model.names import AUTO, check_backend

Form = Literal["csv", "parquet", "jsonl"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)


class PredictOptions(Options):
    """The pictures to predict, the output, and how to compute it.

    Raises:
        UsageError: There are no pictures, or `out` contradicts other options.
    """

    bundle: Path
    """Folder of the bundle."""
    paths: tuple[Location, ...] = ()
    """Pictures or sources of pictures, see `find_asked`."""
    lists: tuple[Path, ...] = ()
    """Files with one path per line, or .csv and .parquet lists."""
    list_columns: str | None = None
    """Column of a list's paths: path=NAME; None: one of the usual names."""
    base: Path | None = None
    """Folder of a list's relative paths; None: that of the list."""
    ending: str | None = None
    """Extension appended to paths of a list that lack it: .jpg."""
    names: str | None = None
    """Encoding of names for which an archive declares none: cp850, gbk; None: guess."""
    out: Output | None = None
    """Output file: .csv, .parquet or .jsonl."""
    columns: tuple[str, ...] | None = None
    """Columns in order, such as image_id and label; None: all except image_id."""
    json_lines: bool = False
    """One JSON object per line instead of CSV."""
    grid: Path | None = None
    """Folder for pages of 4 x 4 pictures with their predictions; None: no pages."""
    grid_pages: PositiveInt = 10
    """Maximum number of pages."""
    workers: PositiveInt | None = None
    """Threads for reading and decoding, or processes on Ray; None: one per CPU."""
    batch_size: PositiveInt = 32
    """Pictures per forward pass."""
    backend: Annotated[str, BeforeValidator(check_backend)] = AUTO
    """Back end; auto: the one recorded by `trainer.bench --choose` for this CPU, or eager."""
    on: Literal["here", "ray"] = "here"
    """ray: on the cluster of RAY_ADDRESS, or one started here; its nodes must be able to read bundle and pictures."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.paths and not self.lists:
            raise UsageError("no PATH given; name pictures or sources of pictures, or use --list FILE")
        choose_form(self.out, self.json_lines)
        return self

    @property
    def form(self) -> Form:
        """The output format."""
        return choose_form(self.out, self.json_lines)


def choose_form(out: Path | None, as_json: bool) -> Form:
    """Return the format of an output by its extension; standard output is CSV, or JSON lines with --json.

    Raises:
        UsageError: The extension is unknown, or contradicts --json.
    """
    if out is None:
        return "jsonl" if as_json else "csv"
    form = next((form for form in FORMS if out.name.lower().endswith(f".{form}")), None)
    if form is None:
        endings = ", ".join(f".{form}" for form in FORMS)
        raise UsageError(f"--out {out} must end in one of {endings}, which sets the format")
    if as_json and form != "jsonl":
        raise UsageError(f"--json and --out {out} contradict each other; name a file that ends in .jsonl")
    return form
