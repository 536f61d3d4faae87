"""Networks in a folder of diffusers' layout, read without diffusers, whose import takes seconds."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dreamfusion.diffusion.priors.weights import find_weights

Stored = TypeVar("Stored", bound="StoredModule")


class StoredModule(nn.Module):
    """A network with `config.json` beside its safetensors; methods are called as diffusers calls its own."""

    weights_name: ClassVar[str] = "diffusion_pytorch_model.safetensors"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config = dict(config)
        """arguments with which it is made again"""

    @classmethod
    def from_config(cls: type[Stored], config: Mapping[str, Any]) -> Stored:
        """A network with untrained weights; entries of `config` that it has no use for are ignored."""
        names = inspect.signature(cls).parameters
        return cls(**{name: value for name, value in config.items() if name in names})

    @classmethod
    def from_pretrained(
        cls: type[Stored], path: str, subfolder: str = "", dtype: torch.dtype = torch.float32, **_: Any
    ) -> tuple[Stored, dict[str, list[str]]]:
        """The network of a folder, and which of its tensors are missing there.

        Of weights in parts that hold a tensor twice, the later part counts. Raises UserError for weights that are
        missing or damaged; OSError, ValueError, TypeError, RuntimeError or SafetensorError for files that do not fit.
        """
        folder = Path(path) / subfolder
        with torch.device("meta"):  # without drawing weights that are replaced at once
            network = cls.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        parts = find_weights(folder, cls.weights_name.removesuffix(".safetensors"), "").files
        tensors = {name: tensor for part in parts for name, tensor in load_file(part).items()}
        missing = network.load_state_dict(tensors, strict=False, assign=True).missing_keys
        return network.to(dtype), {"missing_keys": missing}

    def save_pretrained(self, folder: Path) -> None:
        """Write both files, tensors in the network's own dtype."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / self.weights_name, metadata={"format": "pt"})
