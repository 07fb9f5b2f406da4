"""Leftovers: tensors of a checkpoint that the model lacks and that show it to be another network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from torch import Tensor

from shards.cli.sentences import join_some
from shards.errors import ShardError

TABLE: Final = re.compile(r"pos_embed|relative_position|rel_pos|attention_biases")
"""Names of position tables in both libraries; one that cannot be resized is trained anew."""
COUNTER: Final = "num_batches_tracked"
STATISTICS: Final = ("running_mean", "running_var")
ABSENT: Final = "not in the model"
"""Reason for leaving out a tensor whose name the model lacks."""
_BUFFERS: Final = {
    COUNTER, "relative_position_index", "relative_coords_table", "attn_mask", "attention_bias_idxs", "position_ids",
    "total_ops", "total_params",
}  # fmt: skip
"""Name suffixes of tensors that are not learned; the last two are from thop, which counts operations."""
_FOR_TRAINING: Final = re.compile(r"aux\w*|\w+_dist|dist(illation)?_\w+", re.IGNORECASE)
"""A part of the name of auxiliary and distillation heads, in both libraries and in DeiT's own files."""
_POOLING: Final = re.compile(r"attn_pool|pre_logits")
"""Top modules between a trunk and its head, which a file may have and the model may lack."""
_TRUNK: Final = re.compile(
    r"(cls|class|reg)_token\d*|pos_embed\w*|rope|attn_pool|pre_logits|(fc_)?norm(_pre|_head)?\d*|(conv|bn|stem|stages?|"
    r"blocks?|layers?|features|levels?|transition|patch_embed)\d*|conv_(stem|head|proj)|final_(conv|layer)|maxpool"
)
"""Top modules of the trunk in library models; without any of them, a tensor is not part of a trunk."""


def find_leftovers(
    left: Mapping[str, Tensor], own: Iterable[str], taken: Iterable[str], heads: list[str]
) -> tuple[str, ...]:
    """Return the names of the tensors that show the checkpoint to be another network.

    Tensors that do not affect the model's answers are not leftovers: auxiliary and distillation heads, counters and
    index buffers, a head for other classes, and whatever a project stores beside its model.

    Args:
        left: Tensors that were not loaded, by the model's names where they could be mapped.
        own: Names of the model's tensors.
        taken: Names of the model's tensors that were loaded.
        heads: Modules that map features to classes, the main one first.

    >>> import torch
    >>> own = ["layer1.0.weight", "fc.weight"]
    >>> left = {name: torch.zeros(1) for name in ("layer1.1.weight", "aux.fc.weight", "loss.weight")}
    >>> find_leftovers(left, own, own, ["fc"])
    ('layer1.1.weight',)
    """
    own, taken = set(own), set(taken)
    tops = {_top(name) for name in own}
    has_head = f"{heads[0]}.weight" in taken
    missing = list_untrained(own - taken, heads)
    regions = tuple(f"{head.rpartition('.')[0] or head}." for head in heads)

    def is_leftover(name: str) -> bool:
        if name in own and TABLE.search(name):
            return False
        if not has_head and (name.startswith(regions) or _POOLING.fullmatch(_top(name))):
            return False
        # If tensors of the trunk are missing, it was usually changed on purpose (another norm before the head), and the
        # report lists what was loaded.
        return _top(name) in tops or (not missing and bool(_TRUNK.fullmatch(_top(name))))

    return tuple(name for name, tensor in left.items() if is_learnt(name, tensor) and is_leftover(name))


def list_untrained(missing: Iterable[str], heads: list[str]) -> tuple[str, ...]:
    """Return the model's missing tensors that are learned and in the trunk, which every complete file has.

    >>> list_untrained(["fc.weight", "bn1.num_batches_tracked", "aux1.fc1.weight", "conv1.weight"], ["fc"])
    ('conv1.weight',)
    """
    below = tuple(f"{head}." for head in heads)
    return tuple(name for name in missing if is_learnt(name) and not name.startswith(below))


def is_learnt(name: str, tensor: Tensor | None = None) -> bool:
    """Return whether a tensor, by its name and type, is learned and affects the answer."""
    *modules, last = name.split(".")
    if last in _BUFFERS or any(_FOR_TRAINING.fullmatch(part) for part in (*modules, last)):
        return False
    return tensor is None or tensor.is_floating_point()


def refuse_leftovers(
    leftovers: tuple[str, ...], left_out: Mapping[str, str], model: str, title: str, remedy: str
) -> None:
    """Raise if a file has leftovers.

    Args:
        leftovers: Their names.
        left_out: All tensors that the model did not take, with the reason.
        model: The library's name of the model.
        title: Name of the file in the message.
        remedy: What to do, including how to override the check.

    Raises:
        ShardError: There are leftovers.
    """
    if not leftovers:
        return
    # Statistics of norms whose weights were loaded: the model has a norm there, but of another kind.
    lost = [
        name for name in leftovers if name.endswith(STATISTICS) and f"{name.rpartition('.')[0]}.weight" not in left_out
    ]
    what = "running statistics of BatchNorm" if lost else f"{len(leftovers):,} tensor{'s' * (len(leftovers) > 1)}"
    shown = [name if left_out[name] == ABSENT else f"{name} ({left_out[name]})" for name in lost or leftovers]
    raise ShardError(
        f"{title} has {what} that {model} lacks: {shorten(shown)}. It is a checkpoint of another "
        f"network, and {model} would compute wrong results with the rest; {remedy}"
    )


def shorten(names: Iterable[str], shown: int = 6) -> str:
    """Return names as a list that fits in a sentence.

    >>> shorten(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return join_some(list(names), shown)


def _top(name: str) -> str:
    return name.partition(".")[0]
