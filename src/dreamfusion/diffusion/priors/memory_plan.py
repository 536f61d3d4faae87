"""How much memory a prior needs, before it is loaded: its networks are built without weights and run without numbers.

On torch's "meta" device a tensor has a shape and a dtype, but no content. What a step would keep alive at once is
counted there, operation by operation; only a folder's configuration files are read.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from dreamfusion.diffusion.priors.card import read_card
from dreamfusion.diffusion.priors.denoisers import Denoiser
from dreamfusion.diffusion.priors.folder import LOADING_ERRORS, PipelineFolder, class_of, reason
from dreamfusion.diffusion.priors.kinds import Kind, kind_of
from dreamfusion.diffusion.priors.opening import divided, dtype_of, image_size, shown_size, tuned, vae_dtype_of
from dreamfusion.diffusion.priors.options import PriorOptions
from dreamfusion.diffusion.priors.protocol import ViewCondition
from dreamfusion.diffusion.priors.spaces import LatentSpace
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.places import read_settings
from dreamfusion.quiet import quiet

META = torch.device("meta")
WORKSPACE = 250_000_000
"""bytes that libraries and the allocator hold on a CPU beyond the tensors of a denoiser at work: 0.15 to 0.3 GB of five
networks at full size, the large and the small ones alike (docs/reference/priors.md)"""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device that computes, without the 3D half and what the driver takes for itself."""

    text: int
    """of the largest text encoder, which is gone before the rest comes"""
    weights: int
    """of the denoiser (with offloading: of its largest layer) and the auto-encoder"""
    encode: int
    """that the auto-encoder keeps for the way back; in parts, also what it computes again there"""
    denoise: int
    """of the denoiser at work, while those are kept"""
    parameters: int
    """their number, in denoiser and auto-encoder"""
    workspace: int
    """that no tensor holds"""

    @property
    def step(self) -> int:
        """At any time of a step."""
        return self.weights + self.encode + self.denoise + self.workspace

    @property
    def peak(self) -> int:
        """At any time of the run."""
        return max(self.text, self.step)


def plan(folder: PipelineFolder, options: PriorOptions, views: int, copies: int = 2) -> MemoryPlan:
    """The plan of steps that render so many views and show the denoiser so many copies of each (text and empty: 2).

    Raises UserError if a configuration file is missing or damaged, or an option is not supported.
    """
    kind, workspace = kind_of(folder), WORKSPACE if options.device.type == "cpu" else 0
    dtype = dtype_of(kind, options)
    options = replace(
        options, device=META, dtype=dtype, size=shown_size(folder, kind, options, image_size(folder, kind))
    )
    network = tuned(empty(folder, kind.network, dtype), folder, options)
    vae = divided(empty(folder, "vae", vae_dtype_of(folder, dtype)), options) if kind.latent else None
    layers = [_bytes(_numbers(layer, recurse=False)) for layer in network.modules()]
    networks = [network] if vae is None else [network, vae]
    conditions = read_card(folder.path, options.size or 0).conditions
    denoiser = kind.denoiser(network, options.size or 0, conditions)
    try:
        encode, x = _encoding(vae, options, views)
        denoise = _denoising(denoiser, kind, options, x.repeat(copies, 1, 1, 1))
    except LOADING_ERRORS as error:
        raise UserError(
            f"the networks of {folder.path} do not take pictures of {options.size} pixels ({reason(error)}): choose"
            " another --memory.size, or restore the folder"
        ) from error
    words = [name for name in kind.components(options.texts) if "encoder" in name and name in folder.classes]
    return MemoryPlan(
        text=max((_bytes(_numbers(empty(folder, name, dtype))) for name in words), default=0),
        weights=(max(layers) if options.offload else _bytes(_numbers(network)))
        + sum(_bytes(_numbers(part)) for part in networks[1:]),
        encode=encode,
        denoise=denoise,
        parameters=sum(weight.numel() for part in networks for weight in part.parameters()),
        workspace=workspace,
    )


def empty(folder: PipelineFolder, component: str, dtype: torch.dtype) -> Any:
    """A component on the meta device, made from its configuration alone. Raises UserError if that is damaged."""
    made, path = class_of(folder, component), folder.path / component / "config.json"
    config = read_settings(path)
    try:
        with META, quiet():
            network = (
                made.from_config(config) if hasattr(made, "from_config") else made(made.config_class.from_dict(config))
            )
    except LOADING_ERRORS as error:
        raise UserError(f"{path} describes no {made.__name__} ({reason(error)}): restore the file") from error
    if hasattr(network, "tie_weights"):
        network.tie_weights()  # transformers 5.0 leaves that away on the meta device: a shared table would count twice
    # Not the networks' own `to`, which warns about layers that only matter where there are weights.
    return nn.Module.to(network, dtype=dtype).requires_grad_(False).eval()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made under it, for as long as they live. Views of older ones cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._living = weakref.WeakSet[torch.UntypedStorage]()

    @property
    def now(self) -> int:
        return sum(storage.nbytes() for storage in self._living)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._living.update(_storages(made) - _storages((args, kwargs)))
        self.peak = max(self.peak, self.now)
        return made


def _storages(tree: Any) -> set[torch.UntypedStorage]:
    return {leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


class _FlashAttention(TorchFunctionMode):
    """Attention as fused kernels do it: without the table of all pairs, which the meta device would make."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3] if len(args) >= 3 else (kwargs[name] for name in ("query", "key", "value"))
            return query + (key + value).mean(-2, keepdim=True)  # of the right shape, and on the way back too
        return func(*args, **(kwargs or {}))


def live(work: Callable[[], Any]) -> tuple[LiveBytes, Any]:
    """Run `work` and count; what it returns, and the graph behind that, is still alive in `now`."""
    with LiveBytes() as count, _FlashAttention(), META:
        made = work()
    return count, made


def _encoding(vae: Any, options: PriorOptions, views: int) -> tuple[int, Tensor]:
    """Bytes for encoding `views` pictures with a gradient, and latents or pixels of the right shape.

    They are those that are kept; where parts are computed again on the way back, the most until its end.
    """
    if vae is None:
        return 0, torch.empty(views, 3, options.size, options.size, device=META)
    space = LatentSpace(vae, options.size, META)
    image = torch.empty(views, options.size, options.size, 3, device=META, requires_grad=True)
    again = options.vae_slicing or options.vae_tiling
    if again:
        vae.enable_gradient_checkpointing(_computed_again)

    def encoded() -> Tensor:
        x = space.encode(image)
        if again:
            x.sum().backward()
        return x

    count, x = live(encoded)
    return count.peak if again else count.now, x.detach()


def _computed_again(block: nn.Module, *inputs: Any) -> Any:
    """As diffusers does it, but for attention, which `live` cannot make a fused one during the way back."""
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _FlashAttention()))


@torch.no_grad()
def _denoising(denoiser: Denoiser, kind: Kind, options: PriorOptions, x: Tensor) -> int:
    count = len(x)
    time = torch.empty(count, device=META, dtype=torch.float32 if kind.flow else torch.int64)
    text = torch.empty(count, *denoiser.text_shape, device=META, dtype=options.dtype)
    pose, background = torch.empty(count, 4, 4, device=META), torch.empty(count, 3, device=META)
    known = ViewCondition(pose, background, albedo_only(count, META), torch.zeros_like(background[:, 0]).long())
    counted, _ = live(lambda: denoiser(x.to(options.dtype), time, text, known))
    return counted.peak


def _numbers(module: nn.Module, recurse: bool = True) -> Iterator[Tensor]:
    """Parameters and buffers."""
    yield from module.parameters(recurse)
    yield from module.buffers(recurse)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
