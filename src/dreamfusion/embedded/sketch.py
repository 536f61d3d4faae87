"""The embedded prior's sketch: an estimate of the picture from caption, camera and light alone, without x_t.

A perceptron draws what the words and the camera decide: coverage, normals, and colours in two parts, of which the
paint can have any. A second, small one says the paint's colour, and the background and the light wherever nobody told
them. Shading (Lambert, as in the paper's section 3.1) and compositing are closed forms, so that neither a colour nor
a lamp has to be learnt again for every noun. Beside the picture the sketch says how far off it may be, pixel by pixel:
hardly on a background that it was told, much along an outline or on a chair of any colour.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SKETCH = 32
"""pixels per side of the sketch"""
MAPS = (1, 3, 3, 1, 1)
"""of the drawn maps: brightness of the paint, colour of the rest, normal in the camera's axes, coverage, log sigma"""
LOOK = (3, 3, 1, 3, 1, 2)
"""appearance: paint colour, background, ambient, point light, textureless, log sigmas of object and background"""
LOOK_WIDTH = 256
SUREST = 0.02
"""the least spread: what pixels smaller than the sketch's own may differ"""


class Sketch(nn.Module):
    """The mean picture, in [-1, 1], of all that fit what is known, and its typical distance from them."""

    def __init__(self, text_width: int, known: tuple[int, int, int, int], hidden: int):
        super().__init__()
        self.sizes = known
        self.merge = merge((text_width, known[0], known[3]), hidden)
        self.draw = nn.Linear(hidden, sum(MAPS) * SKETCH**2)
        self.look = nn.Sequential(
            *merge((text_width, *known), LOOK_WIDTH, layers=2, norm=False), nn.Linear(LOOK_WIDTH, sum(LOOK))
        )

    def forward(
        self, text: Float[Tensor, "b t"], known: Float[Tensor, "b f"]
    ) -> tuple[Float[Tensor, "b 3 32 32"], Float[Tensor, "b 1 32 32"]]:
        """From the pooled text and the numbers of `network.known_features`."""
        pose, background, light, variety = known.split(self.sizes, dim=1)
        drawn = self.draw(self.merge(torch.cat([text, pose, variety], dim=1))).unflatten(1, (-1, SKETCH, SKETCH))
        brightness, rest, normal, coverage, log_sigma = drawn.split(MAPS, dim=1)
        paint, behind, ambient, lamp, white, unsure = self.look(torch.cat([text, known], dim=1)).split(LOOK, dim=1)

        behind = _told_or(behind.sigmoid(), (background[:, 1:] + 1) / 2, background[:, :1])
        ambient = _told_or(ambient.sigmoid(), light[:, 1:2], light[:, :1])
        white = _told_or(white.sigmoid(), light[:, 3:4], light[:, :1])
        lamp = _told_or(lamp, light[:, 4:], light[:, :1])

        albedo = F.softplus(brightness) * _everywhere(paint.sigmoid()) + rest.sigmoid()
        albedo = torch.lerp(albedo, torch.ones_like(albedo), _everywhere(white))
        lambert = (normal * _everywhere(lamp)).sum(1, keepdim=True).relu()
        shaded = albedo * (_everywhere(ambient) + lambert)
        covered = coverage.sigmoid()
        picture = torch.lerp(_everywhere(behind), shaded, covered) * 2 - 1
        inside, outside = _everywhere(unsure).exp().chunk(2, dim=1)
        doubts = [log_sigma.exp(), covered * inside, (1 - covered) * outside]
        return picture, torch.cat(doubts, dim=1).square().sum(1, keepdim=True).add(SUREST**2).sqrt()


def gaussian_nll(squared_error: Float[Tensor, "b 1 h w"], spread: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """How unlikely the errors are under a Gaussian of that spread, up to a constant: least at the root mean square."""
    return (squared_error / (2 * spread.square()) + spread.log()).mean()


def merge(groups: tuple[int, ...], width: int, layers: int = 3, norm: bool = True) -> nn.Sequential:
    """A perceptron of groups of numbers, each of which weighs the same at first, however many numbers it has.

    Without that, the few that tell the camera drown among those of text and time, and are ignored for long.
    """
    first = nn.Linear(sum(groups), width)
    for columns in first.weight.data.split(groups, dim=1):
        nn.init.normal_(columns, std=columns.shape[1] ** -0.5)
    rest = [nn.Linear(width, width) for _ in range(layers - 1)]
    for layer in rest:
        nn.init.kaiming_normal_(layer.weight)
    body = [module for layer in rest for module in (nn.SiLU(), layer)]
    return nn.Sequential(first, *body, *([nn.LayerNorm(width)] if norm else []), nn.SiLU())


def _told_or(
    guess: Float[Tensor, "b n"], told: Float[Tensor, "b n"], flag: Float[Tensor, "b 1"]
) -> Float[Tensor, "b n"]:
    """The given value where the flag is 1, the guess where it is 0."""
    return flag * told + (1 - flag) * guess


def _everywhere(numbers: Float[Tensor, "b n"]) -> Float[Tensor, "b n 1 1"]:
    return numbers[:, :, None, None]
