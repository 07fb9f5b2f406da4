"""The moving average of weights."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from trainer.step.ema import Ema, decay_at


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


def move(model: nn.Module, step: int) -> None:
    """Weights and statistics of the step, whatever they were before."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.fill_(step)


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def are_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_average_follows_its_definition() -> None:
    model = make_model()
    ema, expected = Ema(model, 0.5), {name: tensor.double() for name, tensor in copy_state(model).items()}
    for step in range(20):
        move(model, step)
        ema.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in ema.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name].float())


def test_counters_are_copied_and_not_averaged() -> None:
    model = make_model()
    ema = Ema(model, 0.9)
    move(model, 7)
    ema.update(model, 7)
    assert int(ema.state_dict()["1.num_batches_tracked"]) == 7


def test_average_of_weights_that_do_not_move_is_the_weights_to_the_bit() -> None:
    model = make_model()
    ema = Ema(model, 0.999)
    for step in range(50):
        ema.update(model, step)
    assert are_equal(ema.state_dict(), copy_state(model))


def test_first_steps_forget_the_start() -> None:
    assert [decay_at(step, 0.999) for step in (0, 1, 90)] == pytest.approx([0.1, 2 / 11, 0.91])
    assert decay_at(100_000, 0.999) == 0.999
    assert decay_at(0, 0.0) == 0.0


def test_model_has_its_own_weights_again_to_the_bit() -> None:
    model = make_model()
    ema = Ema(model, 0.9)
    move(model, 1)
    ema.update(model, 1)
    own, average = copy_state(model), {name: tensor.clone() for name, tensor in ema.state_dict().items()}
    places = [parameter.data_ptr() for parameter in model.parameters()]
    with ema.swapped_in(model):
        assert are_equal(copy_state(model), average)
        assert not are_equal(average, own)
    assert are_equal(copy_state(model), own)
    assert are_equal(ema.state_dict(), average)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places  # DDP and optimizer hold on to them


def test_model_has_its_own_weights_again_after_an_error() -> None:
    model = make_model()
    ema = Ema(model, 0.9)
    move(model, 1)
    own = copy_state(model)
    with pytest.raises(KeyError), ema.swapped_in(model):
        raise KeyError
    assert are_equal(copy_state(model), own)


@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_average_is_that_of_the_run_that_was_not_stopped(stop: int) -> None:
    model = make_model()
    ema = Ema(model, 0.7)
    for step in range(10):
        move(model, step)
        ema.update(model, step)
        if step == stop - 1:
            file = io.BytesIO()
            torch.save(ema.state_dict(), file)
    file.seek(0)
    other = make_model(seed=1)
    again = Ema(other, 0.7)
    again.load_state_dict(torch.load(file, weights_only=True))
    for step in range(stop, 10):
        move(other, step)
        again.update(other, step)
    assert are_equal(again.state_dict(), ema.state_dict())
