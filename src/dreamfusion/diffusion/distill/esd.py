"""Entropic score distillation (Taming Mode Collapse): VSD with guidance on the adapter's estimate."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from dreamfusion.config.distill import EsdLaw
from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.distill.vsd import Vsd


class Esd(Vsd):
    """eps_hat(x_t; y, t) - [eps_phi(x_t; t) + scale (eps_phi(x_t; c, t) - eps_phi(x_t; t))]
    (Wang et al. 2024, arXiv 2401.00909).

    eps_phi(x_t; t) is the adapter's estimate where the camera c is hidden: neither view words nor pose. It knows the
    renderings from all sides as one distribution, whose entropy a smaller scale makes larger.
    """

    def __init__(self, config: EsdLaw = EsdLaw()) -> None:
        """Parameters come with the first network (`attach`)."""
        super().__init__(config)
        self.scale, self.hidden = config.scale, config.hidden

    def forward(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        anywhere = self.estimate(without_camera(at))
        return at.guided() - (anywhere + self.scale * (self.estimate(at) - anywhere))

    def auxiliary_losses(self, at: NoisedBatch) -> dict[str, Float[Tensor, " b"]]:
        """|eps_phi - eps|^2 of each picture: the mean over hiding the camera from it or not, by `hidden`."""
        told, hidden = (super(Esd, self).auxiliary_losses(one)["adapter"] for one in (at, without_camera(at)))
        return {"adapter": (1 - self.hidden) * told + self.hidden * hidden}


def without_camera(at: NoisedBatch) -> NoisedBatch:
    """The same pictures, of which nobody says from where they are seen."""
    given = at.given
    text = given.text if given.viewless is None else given.viewless
    return replace(at, given=replace(given, text=text, known=replace(given.known, pose=None)))
