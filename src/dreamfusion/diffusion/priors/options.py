"""Device, precision and memory options of a prior."""

from dataclasses import dataclass

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PriorOptions:
    """Where and how finely the networks compute; the defaults are exact and need the most memory."""

    device: torch.device = CPU
    dtype: torch.dtype | None = torch.float32
    """of the networks; None: the half precision that the kind of model was made for, many times slower on a CPU"""
    size: int = 0
    """pixels per side of the pictures it is shown; 0 for its own"""
    attention_slicing: bool = False
    """attention in parts (U-Nets): less memory, more time"""
    vae_slicing: bool = False
    """one picture at a time through the auto-encoder, and each block again on the way back"""
    vae_tiling: bool = False
    """large pictures through the auto-encoder in overlapping tiles, and each block again on the way back"""
    offload: bool = False
    """the denoiser's weights stay in main memory; each layer's come to the device when it computes"""
    side: int = 1
    """parts of a batch that the denoiser evaluates at the same time, each in a thread of its own"""
    texts: bool = True
    """fetch the text encoders of a hub repository too"""
    keep_texts: bool = False
    """text encoders stay in memory once they have read something, for whoever reads prompt after prompt"""
