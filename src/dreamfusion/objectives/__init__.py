"""What a step's pictures are judged by: score distillation, or the similarity to the caption of two earlier methods."""

from dreamfusion.objectives.protocol import Guide, Judged, Objective, Seen, Words

__all__ = ["Guide", "Judged", "Objective", "Seen", "Words"]
