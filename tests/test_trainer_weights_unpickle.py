"""What a checkpoint holds beside tensors is read without its classes, and without running anything."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shards.errors import ShardError
from trainer.weights.read import Choice, parse_tensors
from trainer.weights.unpickle import Unbuilt, load_unbuilt

torch.set_num_threads(1)


PROJECT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("table", torch.randn(2))
        self.register_buffer("fleeting", torch.randn(2), persistent=False)
        self.register_parameter("absent", None)

class Config:
    def __init__(self, **values):
        self.__dict__.update(values)

class Bag(dict):
    pass
"""
"""A module with parameters, buffers of both kinds and children; a class of values; a dict of a class of its own."""


@pytest.fixture
def gone() -> Iterator[Any]:
    """A project's module, which is there while a file is written."""
    module = types.ModuleType("project_that_is_gone")
    sys.modules[module.__name__] = module
    exec(PROJECT, module.__dict__)
    yield module
    sys.modules.pop(module.__name__, None)


def save(content: Any, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # the old form keeps the source of classes, where it is there
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def learner(net: nn.Module, gone: Any) -> Any:
    """As fastai exports one: an object with the model inside, and callbacks that know the object."""
    made = gone.Config(model=net, lr=0.1)
    made.cbs = [gone.Config(learn=made)]
    return made


CONTENTS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "the module itself": lambda net, _: net,
    "a learner": learner,
    "Ultralytics": lambda net, gone: {"model": net, "ema": None, "train_args": gone.Config(lr=0.1)},
    "options beside": lambda net, gone: {"state_dict": net.state_dict(), "cfg": gone.Config(lr=0.1), "at": Path("a")},
    "a dict's class": lambda net, gone: gone.Bag(model=net.state_dict(), epoch=3),
    "sets and slices": lambda net, gone: (
        {"cfg": gone.Config(lr=0.1), "state_dict": net.state_dict(), "seen": {1, 2}, "cut": slice(1), "z": 1j}
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("content", CONTENTS)
def test_tensors_are_read_beside_classes_that_are_not_there(content: str, legacy: bool, gone: Any) -> None:
    net = gone.Net()
    expected, data = net.state_dict(), save(CONTENTS[content](net, gone), legacy)
    del sys.modules[gone.__name__]
    found = parse_tensors(data, "w.pth")
    torch.testing.assert_close(found.tensors, dict(expected), rtol=0, atol=0)
    assert found.unbuilt


class Call:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


CALLS = {
    "a shell": lambda trace: Call(os.system, f"touch {trace}"),
    "eval": lambda trace: Call(builtins.eval, f"open({str(trace)!r}, 'w')"),
    "getattr": lambda trace: Call(getattr, Path(trace), "touch"),
    "a file": lambda trace: Call(io.open, str(trace), "w"),
    "inside of another": lambda trace: Call(list, [Call(os.system, f"touch {trace}")]),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_of_a_pickle_is_made(call: str, tmp_path: Path) -> None:
    trace = tmp_path / "was-here"
    data = save({"state_dict": {"fc.weight": torch.ones(2)}, "beside": CALLS[call](trace)})
    found = parse_tensors(data, "w.pth")
    assert torch.equal(found.tensors["fc.weight"], torch.ones(2))
    assert not trace.exists()


def replace_pickle(data: bytes, content: bytes) -> bytes:
    """Return a file of torch.save with other bytes for its pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


def test_pickle_does_not_reach_into_torch() -> None:
    """A pickle can set attributes of what it finds: of a function, its default arguments."""
    state = pickle.dumps((None, {"__defaults__": (1, 2, 3)}), 2)[2:-1]
    evil = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b."
    before = torch._utils._rebuild_tensor_v2.__defaults__
    load_unbuilt(replace_pickle(save({}), evil))
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    pickle.loads(evil)
    try:
        assert torch._utils._rebuild_tensor_v2.__defaults__ == (1, 2, 3)  # the file does what the test fears
    finally:
        torch._utils._rebuild_tensor_v2.__defaults__ = before


def test_what_stays_unbuilt_is_named(gone: Any) -> None:
    data = save({"state_dict": {"fc.weight": torch.ones(2)}, "cfg": gone.Config(lr=0.1)})
    content, kinds = load_unbuilt(data)
    assert kinds == ("project_that_is_gone.Config",)
    assert isinstance(content["state_dict"], dict)


def test_content_without_a_model_is_named_by_its_class(gone: Any) -> None:
    data = save([gone.Config(lr=0.1)])
    with pytest.raises(ShardError, match=r"w\.pth holds no state dict .* it has list; save only the model"):
        parse_tensors(data, "w.pth")


def test_key_reaches_into_a_module_that_was_saved_whole(gone: Any) -> None:
    net, other = gone.Net(), gone.Net()
    found = parse_tensors(save({"model": net, "ema": other}), "w.pth", Choice("ema"))
    torch.testing.assert_close(found.tensors, dict(other.state_dict()), rtol=0, atol=0)


def test_half_precision_and_shared_tensors_are_read_as_they_are(gone: Any) -> None:
    table: Tensor = torch.arange(6).half().reshape(2, 3)
    data = save({"state_dict": {"a": table, "b": table[1:], "c": table.t()}, "cfg": gone.Config()})
    found = parse_tensors(data, "w.pth").tensors
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]], "b": [[3, 4, 5]], "c": [[0, 3], [1, 4], [2, 5]],
    }  # fmt: skip
    assert found["a"].dtype == torch.float16


def test_an_unbuilt_object_takes_whatever_a_pickle_does_to_it() -> None:
    made: Any = Unbuilt(1, a=2)
    made.__setstate__(({"a": 1}, {"b": 2}))
    made["c"] = 3
    made.append(4)
    assert (made.attributes, made.entries) == ({"a": 1, "b": 2}, {"c": 3})
