"""What `trainer.predict` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BeforeValidator, PositiveInt, model_validator

from shards.cli.options import Location, Options
from shards.errors import UsageError
from trainer.contract.model.names import AUTO, check_backend

Form = Literal["csv", "parquet", "jsonl"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)


class PredictOptions(Options):
    """Which pictures a bundle labels, where the answers go, and how they are computed.

    Raises:
        UsageError: No pictures, or an `out` that contradicts the other options.
    """

    bundle: Path
    """Folder of the bundle."""
    paths: tuple[Location, ...] = ()
    """Pictures, or what holds pictures, as `find_asked` reads them."""
    lists: tuple[Path, ...] = ()
    """Files with a path a line, or .csv and .parquet lists."""
    list_columns: str | None = None
    """Column of a list's paths: path=NAME; None: one of the usual names."""
    base: Path | None = None
    """Folder of a list's relative paths; None: that of the list."""
    ending: str | None = None
    """What is added to paths of a list that do not end so: .jpg."""
    out: Path | None = None
    """File to write: .csv, .parquet or .jsonl."""
    columns: tuple[str, ...] | None = None
    """Columns in this order, such as image_id and label; None: all but image_id."""
    json_lines: bool = False
    """One JSON object a line in place of CSV."""
    grid: Path | None = None
    """Folder for pages of 4 x 4 pictures with their predictions; None: no pages."""
    grid_pages: PositiveInt = 10
    """Pages at most."""
    workers: PositiveInt | None = None
    """Threads that read and decode, on Ray processes that compute; None: one a CPU."""
    batch_size: PositiveInt = 32
    """Pictures in a forward pass."""
    backend: Annotated[str, BeforeValidator(check_backend)] = AUTO
    """What computes; auto is the one that `trainer.bench --choose` recorded for this CPU, or eager."""
    on: Literal["here", "ray"] = "here"
    """ray: the cluster of RAY_ADDRESS, or one started here; its nodes must see bundle and pictures."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.paths and not self.lists:
            raise UsageError("no PATH; name pictures, or what holds pictures, or give --list FILE")
        choose_form(self.out, self.json_lines)
        return self

    @property
    def form(self) -> Form:
        """The form of the answers."""
        return choose_form(self.out, self.json_lines)


def choose_form(out: Path | None, as_json: bool) -> Form:
    """Return the form of an output by its ending; standard output is CSV, or JSON lines where asked for.

    Raises:
        UsageError: An ending that is none of the forms, or not that which was asked for.
    """
    if out is None:
        return "jsonl" if as_json else "csv"
    form = next((form for form in FORMS if out.name.lower().endswith(f".{form}")), None)
    if form is None:
        endings = ", ".join(f".{form}" for form in FORMS)
        raise UsageError(f"--out {out} must end in one of {endings}, which says what is written")
    if as_json and form != "jsonl":
        raise UsageError(f"--json and --out {out} contradict each other; name a file that ends in .jsonl")
    return form
