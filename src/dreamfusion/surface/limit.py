"""Loop's limit surface at the vertices of a control mesh: a constant matrix, no new faces."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def limit_matrix(edges: Int[Tensor, "e 2"], count: int) -> Float[Tensor, "{count} {count}"]:
    """Sparse: from the vertices of a closed mesh to where they end when Loop subdivision goes on for ever.

    A vertex of valence n goes to (1 - n w) v + w (sum of its neighbours), w = 1 / (n + 3 / (8 b)), with Loop's
    b = (5/8 - (3/8 + cos(2 pi / n) / 4)^2) / n (Loop 1987). Rows sum to 1.
    """
    here, there = edges.flatten(), edges.flip(1).flatten()
    valence = torch.zeros(count, dtype=torch.float64, device=edges.device)
    valence = valence.index_add(0, here, torch.ones_like(here, dtype=valence.dtype))
    beta = (5 / 8 - (3 / 8 + torch.cos(2 * math.pi / valence) / 4).square()) / valence
    share = 1 / (valence + 3 / (8 * beta))
    own = torch.arange(count, device=edges.device)
    places = torch.stack([torch.cat([here, own]), torch.cat([there, own])])
    values = torch.cat([share[here], 1 - valence * share])
    return torch.sparse_coo_tensor(places, values.float(), (count, count), check_invariants=True).coalesce()
