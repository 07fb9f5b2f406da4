"""Make torch draw from a given generator, inside a block and for one thread.

torchvision's v2 transforms can only draw from torch's process-wide generator. In a pool of threads, a sample's draws
would then depend on the other threads. A torch function mode is thread-local and intercepts every call, so it can pass
the sample's generator to functions that draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# tests/test_trainer_feed_augment_seeding.py compares both sets with torch's own list of operations that draw.
DRAWS = frozenset({
    "_fused_dropout", "_sample_dirichlet", "_standard_gamma", "bernoulli", "bernoulli_", "binomial", "cauchy",
    "cauchy_", "exponential", "exponential_", "geometric", "geometric_", "kaiming_uniform_", "log_normal",
    "log_normal_", "multinomial", "normal", "normal_", "normal_functional", "poisson", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "random", "random_", "randperm", "rrelu_with_noise", "rrelu_with_noise_",
    "rrelu_with_noise_functional", "uniform", "uniform_",
})  # fmt: skip
"""Names of the functions and methods that draw and take `generator=`."""

REFUSED = frozenset({
    "alpha_dropout", "alpha_dropout_", "dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_",
    "feature_alpha_dropout", "feature_alpha_dropout_", "feature_dropout", "feature_dropout_",
    "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices", "gru", "gumbel_softmax", "lstm", "multi_head_attention_forward",
    "native_dropout", "rnn_relu", "rnn_tanh", "rrelu", "rrelu_", "scaled_dot_product_attention",
})  # fmt: skip
"""Names of functions that draw internally and take no generator."""


class DrawFrom(TorchFunctionMode):
    """Inside `with DrawFrom(generator):` this thread's torch functions draw from `generator`.

    A generator passed explicitly is kept. The process-wide generator is neither read nor advanced.

    Raises:
        RuntimeError: A function draws from the process-wide generator and takes no other.

    >>> def draw():
    ...     with DrawFrom(torch.Generator().manual_seed(3)):
    ...         return torch.rand(2).tolist()
    >>> draw() == draw()
    True
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in REFUSED:
            raise RuntimeError(
                f"torch's {name} draws from the process-wide generator and takes no other, so a sample's pixels would "
                "depend on the other threads. Leave it out of the policy, or draw its parameters from the sample's key"
            )
        if name in DRAWS and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator}
        return func(*args, **kwargs)
