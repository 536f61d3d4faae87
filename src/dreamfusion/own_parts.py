"""Parts of a run that its caller gives as Python objects, in place of those that the configuration describes.

The configuration names them (`Config.custom`), and a run that was made with them is resumed or loaded with them. Parts
that are an `nn.Module` have their parameters and buffers in the checkpoint; what else they remember is not saved.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from torch import nn

from dreamfusion.config import Config
from dreamfusion.diffusion.distill import Law, LearnedLaw
from dreamfusion.errors import UserError
from dreamfusion.nerf.background import Background
from dreamfusion.nerf.fields import Field
from dreamfusion.nerf.regularise import WeightedRegulariser

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        """Checkers of types at run time cannot read the one of typing_extensions."""

        def __class_getitem__(cls, item: type) -> type:
            return object


PRIOR = "prior"
"""How `Config.custom` names a prior, which no run holds: it is given beside the parts"""
RESERVED = ("distillation", "similarity", "transmittance", "laplacian")
"""Losses that no regulariser may be called"""


class OwnParts(TypedDict, total=False):
    """The keywords; each may be left out or None."""

    field: Field | None
    """an `nn.Module`; its parameters learn with the rates of `OptimiseConfig`, by the names of `parameter_groups`"""
    background: Background | None
    """an `nn.Module`; its parameters learn with `OptimiseConfig.background`"""
    law: Law | None
    """of distillation; one that learns is a `LearnedLaw`"""
    regularisers: Mapping[str, WeightedRegulariser] | None
    """by name: a schedule of the weight (any function of the run's progress in [0, 1]) and what it weighs; those of a
    name that the configuration has take its place"""


def names(own: OwnParts) -> tuple[str, ...]:
    """What `Config.custom` says of them: "field", "background", "law", "regularisers.NAME"."""
    parts = [name for name in ("field", "background", "law") if own.get(name) is not None]
    return (*parts, *sorted(f"regularisers.{name}" for name in own.get("regularisers") or {}))


def with_names(config: Config, own: OwnParts) -> tuple[str, ...]:
    """`Config.custom` of a run with these parts. Raises UserError if one lacks that the configuration names."""
    given = names(own)
    require_given(config, (*given, PRIOR))
    return given + ((PRIOR,) if PRIOR in config.custom else ())


def require_given(config: Config, given: tuple[str, ...]) -> None:
    """Raise UserError, with the names of what lacks, unless all that was custom is there."""
    missing = [name for name in config.custom if name not in given]
    if missing:
        keywords = ", ".join(f"{name}=..." for name in dict.fromkeys(name.split(".")[0] for name in missing))
        raise UserError(
            f"the run was made with Python objects in place of {', '.join(missing)}: open it from Python and give them"
            f" again, as the keywords {keywords}"
        )


def require_sound(own: OwnParts) -> None:
    """Raise UserError for parts that lack what the loop needs, or that hold parameters which nothing would train."""
    for name, kind in (("field", Field), ("background", Background)):
        part = own.get(name)
        if part is not None and not (isinstance(part, nn.Module) and isinstance(part, kind)):
            raise UserError(
                f"the own {name} must be a torch.nn.Module with all members of {kind.__name__}: see its docs"
            )
    law = own.get("law")
    if law is not None and not callable(law):
        raise UserError("the own law must be callable, as `Law` says")
    untrained: dict[str, object] = {} if law is None or isinstance(law, LearnedLaw) else {"law": law}
    for name, (weight, regulariser) in (own.get("regularisers") or {}).items():
        if name in RESERVED or not callable(weight) or not callable(regulariser):
            raise UserError(
                f"the own regulariser {name!r} must be a schedule and a function of a render and a scene, with a name"
                f" that is not {' or '.join(RESERVED)}"
            )
        untrained[f"regularisers.{name}"] = regulariser
    for name, part in untrained.items():
        if isinstance(part, nn.Module) and any(parameter.requires_grad for parameter in part.parameters()):
            raise UserError(
                f"nothing would train the parameters of the own {name}: what learns beside the scene is a `LearnedLaw`"
                " (attach, rate and auxiliary_losses)"
            )


def stateful(law: Law, regularisers: Mapping[str, WeightedRegulariser]) -> dict[str, nn.Module]:
    """The parts beside the scene that a checkpoint holds, by the beginnings of their names there."""
    parts: dict[str, object] = {"law.": law}
    parts |= {f"regularisers.{name}.": regulariser for name, (_, regulariser) in regularisers.items()}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
