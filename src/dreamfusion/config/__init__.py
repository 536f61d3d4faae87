"""The configuration of a run: a tree of frozen records. Importing this imports nothing slow."""

from dreamfusion.config.bounds import Colour, Span
from dreamfusion.config.distill import DistillConfig
from dreamfusion.config.objective import (
    ClipMeshObjective,
    DistillationObjective,
    DreamFieldsObjective,
    ObjectiveConfig,
)
from dreamfusion.config.refine import RefineConfig
from dreamfusion.config.run import (
    ConditionSet,
    Config,
    MemoryConfig,
    OptimiseConfig,
    OutputConfig,
    RegulariseConfig,
    RenderConfig,
    ShampooConfig,
)
from dreamfusion.config.scene import (
    BackgroundConfig,
    BlobConfig,
    FieldConfig,
    FourierFieldConfig,
    GridFieldConfig,
    JointFieldConfig,
    LearnedBackground,
    MeshConfig,
    MlpFieldConfig,
    OccupancyConfig,
    PlaceConfig,
    ProposalConfig,
    RandomBackground,
    SceneConfig,
    SolidBackground,
    SphereFieldConfig,
)
from dreamfusion.config.views import CameraConfig, LightConfig

__all__ = [
    "BackgroundConfig",
    "BlobConfig",
    "CameraConfig",
    "ClipMeshObjective",
    "Colour",
    "ConditionSet",
    "Config",
    "DistillConfig",
    "DistillationObjective",
    "DreamFieldsObjective",
    "FieldConfig",
    "FourierFieldConfig",
    "GridFieldConfig",
    "JointFieldConfig",
    "LearnedBackground",
    "LightConfig",
    "MemoryConfig",
    "MeshConfig",
    "MlpFieldConfig",
    "ObjectiveConfig",
    "OccupancyConfig",
    "OptimiseConfig",
    "OutputConfig",
    "PlaceConfig",
    "ProposalConfig",
    "RandomBackground",
    "RefineConfig",
    "RegulariseConfig",
    "RenderConfig",
    "SceneConfig",
    "ShampooConfig",
    "SolidBackground",
    "Span",
    "SphereFieldConfig",
]
