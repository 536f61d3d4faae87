"""One run in several processes, as `torchrun` starts them: each renders its share of a step's views.

All draw the same random numbers for all views, so the step is that of one process, up to the rounding of sums: pictures
are exchanged before the prior is asked, its answers after, and gradients and numbers are averaged.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.config import Config, DistillationObjective
from dreamfusion.diffusion.distill import Law, LearnedLaw
from dreamfusion.diffusion.priors import NoiseSchedule, Prior, ViewCondition
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.errors import UserError

_LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Launch:
    """What torchrun says of a process that it starts: which of how many it is, in all and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launched() -> Launch | None:
    """What torchrun says of this process; None unless everything that torchrun sets is in the environment.

    Raises UserError where all of it is there and makes no sense.
    """
    if not all(os.environ.get(name) for name in (*_LAUNCH, "MASTER_ADDR", "MASTER_PORT")):
        return None  # what is there is left over from something, or meant for somebody else
    said = {name: os.environ[name] for name in (*_LAUNCH, "MASTER_PORT")}
    if all(text.isdecimal() for text in said.values()):
        rank, size, local_rank, local_size, port = map(int, said.values())
        if rank < size and local_rank < local_size <= size and 0 < port < 2**16:
            return Launch(rank, size, local_rank, local_size)
    told = " ".join(f"{name}={text}" for name, text in said.items())
    raise UserError(f"the environment makes no sense as torchrun's: {told}; unset these variables, or use torchrun")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of its run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks and writes files."""
        return self.rank == 0

    def shard(self, count: int) -> slice | None:
        """This process' part of `count` things in a row; None if all are its own. `count` is a multiple of `size`."""
        each = count // self.size
        return None if self.size == 1 else slice(self.rank * each, (self.rank + 1) * each)

    def own_rows(self, batch: Tensor) -> Tensor:
        """This process' part of a batch that all have."""
        return batch if self.size == 1 else batch[self.shard(len(batch))]

    def all_gather(self, part: Tensor) -> Tensor:
        """The parts of all processes, in their order, along the first axis; without gradients if there are several."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, part.detach().contiguous())
        return torch.cat(parts)

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes into tensors of one type."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, mean in zip(tensors, (flat / self.size).split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def sharded(self, prior: Prior) -> Prior:
        """A prior sharded over processes: all call it with the same pictures, each evaluates its part."""
        return prior if self.size == 1 else ShardedPrior(prior, self)

    def barrier(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """No more is exchanged."""
        if self.size > 1:
            dist.destroy_process_group()


SINGLE_PROCESS = ProcessGroup()


def init_process_group(device: torch.device) -> ProcessGroup:
    """The processes that torchrun's variables name, over nccl on GPUs, else gloo; `SINGLE_PROCESS` without them.

    Raises UserError as `launched` does.
    """
    launch = launched()
    if launch is None or launch.size == 1:
        return SINGLE_PROCESS
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def require_divisible(config: Config, law: Law, group: ProcessGroup) -> None:
    """Raise UserError unless the processes can share the steps of such a run."""
    if config.views % group.size:
        raise UserError(
            f"--views {config.views} cannot be shared equally by {group.size} processes: give a multiple of them"
        )
    if not isinstance(config.objective, DistillationObjective) and group.size > 1:
        raise UserError("--objective takes one process, except for distillation: run it without torchrun")
    if isinstance(law, LearnedLaw) and group.size > 1:
        name = type(law).__name__.lower()
        raise UserError(f"{name} learns from all views at once: run it in one process, without torchrun")


@dataclass(frozen=True, eq=False)
class ShardedPrior:
    """Implements `Prior`: each process of a group evaluates its rows of a batch, and all get all answers."""

    prior: Prior
    group: ProcessGroup

    @property
    def name(self) -> str:
        return self.prior.name

    @property
    def schedule(self) -> NoiseSchedule:
        return self.prior.schedule

    @property
    def image_size(self) -> int:
        return self.prior.image_size

    @property
    def view_words(self) -> ViewWords:
        return self.prior.view_words

    @property
    def conditions(self) -> frozenset[str]:
        return self.prior.conditions

    @property
    def vocabulary(self) -> frozenset[str] | None:
        return self.prior.vocabulary

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """See `Prior`."""
        return self.prior.embed(prompts)

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """See `Prior`."""
        return self.prior.encode(image)

    def predict_noise(
        self, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b c u v"]:
        """See `Prior`; `b` must be a multiple of the number of processes."""
        own = self.group.shard(len(noisy)) or slice(None)
        return self.group.all_gather(self.prior.predict_noise(noisy[own], t[own], text[own], known.rows(own)))
