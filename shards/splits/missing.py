"""`--split` for sources that already have splits: missing ones are taken from train."""

from __future__ import annotations

from collections.abc import Collection

from shards.errors import UsageError
from shards.splits.splits import SplitOptions

_ORDER = ("train", "val", "test")


def make_missing(options: SplitOptions, given: Collection[str | None]) -> tuple[SplitOptions, list[str]]:
    """Return options that make the requested but missing splits, and notes.

    A missing split is made as if it had been merged with train; given splits stay as they are.

    Args:
        options: With the shares that the user requested.
        given: Splits that the source gives, None for pictures without one.

    Raises:
        UsageError: All pictures are to be test, but the source gives pictures to train on.

    >>> options, notes = make_missing(SplitOptions(shares={"val": 0.2}), ["train", "test"])
    >>> options.merge, options.shares, notes
    (('train', 'val'), {'val': 0.2}, ["the source gives train and test, so val is made out of train's pictures"])
    """
    there = [name for name in _ORDER if name in given]
    if options.merge or options.every or not there:
        return options, []
    if options.is_only_test:
        _refuse_training(there)
        return options, []
    missing = {name: share for name, share in options.shares.items() if name not in there}
    idle = {name: share for name, share in options.shares.items() if name in there}
    if "train" not in there:
        missing, idle = {}, options.shares
    notes = []
    if missing:
        are = "is" if len(missing) == 1 else "are"
        notes.append(f"the source gives {_join(there)}, so {_join(missing)} {are} made out of train's pictures")
    if idle:
        words = ",".join(f"{name}={share:g}" for name, share in idle.items())
        notes.append(f"--split {words} changes nothing: the source gives {_join(there)}{_advise(there, idle, missing)}")
    if not missing:
        return options, notes
    return options.model_copy(update={"merge": ("train", *missing), "shares": missing}), notes


def _refuse_training(there: list[str]) -> None:
    if "train" in there:
        raise UsageError(
            f"--split test=1 is only for pictures to evaluate on, but the source gives {_join(there)}; leave it out "
            "to keep those, or add --merge-and-resplit train,val,test to put all pictures into test"
        )


def _advise(there: list[str], idle: Collection[str], missing: Collection[str]) -> str:
    if "train" not in there or missing:
        return ""
    merged = ",".join(name for name in there if name == "train" or name in idle)
    return f" (--merge-and-resplit {merged} splits them again)"


def _join(names: Collection[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
