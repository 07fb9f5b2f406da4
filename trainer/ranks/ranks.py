"""One rank's place among all ranks, and the collectives that the loop needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from shards.workers.openmp import count_cpus

_WORKERS_AT_MOST = 16


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `num_ranks`, computing on `device`. One rank needs no process group.

    on_node: Number of ranks on this machine.
    control: Group for messages between hosts; None is the default group. With NCCL it is a gloo group, so that messages
        do not wait for pending work on the device.
    """

    rank: int
    num_ranks: int
    device: torch.device
    on_node: int = 1
    control: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def cpus(self) -> int:
        """This rank's share of the CPUs that the process may use."""
        return max(1, count_cpus() // self.on_node)

    def count_workers(self, wanted: int | Literal["auto"]) -> int:
        """Return the number of loader threads; auto is one for each CPU of the rank, at most 16.

        With a GPU, one CPU is left to the thread that feeds it.
        """
        if wanted != "auto":
            return wanted
        return min(max(1, self.cpus - (self.device.type == "cuda")), _WORKERS_AT_MOST)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all ranks, on every rank."""
        if self.num_ranks > 1:
            dist.all_reduce(values)
        return values

    def agree(self, *values: float) -> list[float]:
        """Return the sum of each value over all ranks, on every rank, without waiting for the device."""
        if self.num_ranks == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(shared, group=self.control)
        return shared.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks in the order of ranks, on every rank."""
        if self.num_ranks == 1:
            return [value]
        values: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(values, value, group=self.control)
        return values

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` of every rank with those of rank 0."""
        if self.num_ranks > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Return when every rank has reached this call."""
        if self.num_ranks > 1:
            dist.barrier(group=self.control)


def choose_device(local_rank: int = 0) -> torch.device:
    """Return the CUDA device of a local rank if there is one, else the CPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def single_rank() -> Ranks:
    """Return the only rank of a plain process; torch uses at most as many threads as the process has CPUs."""
    limit_threads(1)
    return Ranks(0, 1, choose_device())


def limit_threads(on_node: int) -> None:
    """Limit torch's threads to a rank's share of this process's CPUs, or fewer if the user has set so."""
    torch.set_num_threads(min(torch.get_num_threads(), max(1, count_cpus() // on_node)))


def join_ranks(rank: int, num_ranks: int, rendezvous: str) -> Ranks:
    """Join a process group through a file that all ranks of this machine share; NCCL with CUDA, gloo without."""
    device = choose_device(rank % max(1, torch.cuda.device_count()))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        limit_threads(num_ranks)
        # gloo looks up its own host name, which many laptops and containers cannot resolve.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=num_ranks)
    return enter_group(rank, num_ranks, device, num_ranks)


def enter_group(rank: int, num_ranks: int, device: torch.device, on_node: int) -> Ranks:
    """Return a rank of the process group that this process has joined; every rank calls it."""
    if num_ranks == 1 or device.type == "cpu":
        return Ranks(rank, num_ranks, device, on_node)
    control = dist.new_group(backend="gloo")
    assert isinstance(control, dist.ProcessGroup)  # not so only for processes outside the group
    return Ranks(rank, num_ranks, device, on_node, control)
