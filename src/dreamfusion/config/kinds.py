"""Members of the configuration's unions by the names that users choose them with. Imports nothing slow, as `config`."""

from dataclasses import replace

from dreamfusion.config.distill import CsdLaw, IsmLaw, LawConfig, NfsdLaw, SdsLaw, VsdLaw
from dreamfusion.config.objective import (
    ClipMeshObjective,
    DistillationObjective,
    DreamFieldsObjective,
    ObjectiveConfig,
)
from dreamfusion.config.run import Config
from dreamfusion.config.scene import (
    BackgroundConfig,
    FieldConfig,
    FourierFieldConfig,
    GridFieldConfig,
    LearnedBackground,
    MlpFieldConfig,
    RandomBackground,
    SolidBackground,
    SphereFieldConfig,
)

FIELDS: dict[str, type[FieldConfig]] = {
    "grid": GridFieldConfig,
    "mlp": MlpFieldConfig,
    "fourier": FourierFieldConfig,
    "sphere": SphereFieldConfig,
}
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
}
OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    "distillation": DistillationObjective,
    "dream-fields": DreamFieldsObjective,
    "clip-mesh": ClipMeshObjective,
}


def with_kinds(
    config: Config,
    field: str | None = None,
    background: str | None = None,
    distill: str | None = None,
    objective: str | None = None,
) -> Config:
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
    judged = config.objective
    if objective in OBJECTIVES and not isinstance(judged, OBJECTIVES[objective]):
        judged = OBJECTIVES[objective]()
    return replace(config, scene=scene, distill=laws, objective=judged)
