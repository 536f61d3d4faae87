"""The 2D half: priors, prompts, guidance, score distillation. It knows nothing of scenes."""
