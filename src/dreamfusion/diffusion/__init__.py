"""The 2D half: priors, prompts, guidance, score distillation. It does not depend on scenes."""
