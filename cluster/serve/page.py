"""A page of the endpoint, and what pages need from their replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fastapi import Request
from pydantic import BaseModel
from torch import Tensor

from cluster.serve.answer import Prediction, Wishes
from cluster.serve.body import Held
from cluster.serve.options import Limits
from cluster.serve.problem import Kind, ProblemError


class Endpoint(Protocol):
    """What the pages need from their replica."""

    limits: Limits
    held: Held
    model_name: str

    @property
    def is_ready(self) -> bool: ...

    async def predict_all(
        self, pictures: Sequence[bytes | Tensor], wishes: Wishes, client: str | None = None
    ) -> list[Prediction | ProblemError]: ...

    def describe_model(self) -> dict[str, Any]: ...

    def describe_stats(self) -> dict[str, Any]: ...

    def start_requests(self, page: str, outcomes: list[str]) -> None: ...

    def count_request(self, page: str, outcome: str, ms: float) -> None: ...


@dataclass(frozen=True)
class Page:
    """A page of the endpoint."""

    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Endpoint, Request], Awaitable[Any]]
    """Returns the response, as JSON: a dict, or a response object."""
    summary: str = ""
    """What it is for, in a few words."""
    gives: Any = dict[str, Any]
    """Type of the response, for /openapi.json; a class of responses for what is no JSON."""
    takes: dict[str, Any] | None = None
    """Body of the request, for /openapi.json."""
    query: type[BaseModel] | None = None
    """Options in the address."""
    problems: tuple[Kind, ...] = field(default=())
    """The kinds of problems that it can answer with, for /openapi.json."""
    is_open: bool = False
    """Whether it needs no token."""
    is_part: bool = False
    """A file that another page loads: named in no list of pages."""
