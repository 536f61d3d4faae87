"""Members of the configuration's unions by the names that users choose them with. Imports nothing slow, as `config`."""

from dataclasses import replace

from dreamfusion.config.distill import CsdLaw, DsdLaw, EsdLaw, IsmLaw, LawConfig, NfsdLaw, SdsLaw, VsdLaw
from dreamfusion.config.run import Config
from dreamfusion.config.scene import (
    BackgroundConfig,
    FieldConfig,
    GridFieldConfig,
    LearnedBackground,
    MlpFieldConfig,
    RandomBackground,
    SolidBackground,
)

FIELDS: dict[str, type[FieldConfig]] = {"grid": GridFieldConfig, "mlp": MlpFieldConfig}
BACKGROUNDS: dict[str, type[BackgroundConfig]] = {
    "solid": SolidBackground,
    "random": RandomBackground,
    "learned": LearnedBackground,
}
LAWS: dict[str, type[LawConfig]] = {
    "sds": SdsLaw,
    "csd": CsdLaw,
    "nfsd": NfsdLaw,
    "ism": IsmLaw,
    "vsd": VsdLaw,
    "esd": EsdLaw,
    "dsd": DsdLaw,
}


def with_kinds(config: Config, field: str | None, background: str | None, distill: str | None) -> Config:
    """The configuration with members of these names, each with its defaults unless it is there already.

    None, and names that are none, change nothing.
    """
    scene = config.scene
    if field in FIELDS and not isinstance(scene.field, FIELDS[field]):
        scene = replace(scene, field=FIELDS[field]())
    if background in BACKGROUNDS and not isinstance(scene.background, BACKGROUNDS[background]):
        scene = replace(scene, background=BACKGROUNDS[background]())
    laws = config.distill
    if distill in LAWS and not isinstance(laws.law, LAWS[distill]):
        laws = replace(laws, law=LAWS[distill]())
    return replace(config, scene=scene, distill=laws)
