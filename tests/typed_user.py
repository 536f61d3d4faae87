"""What a user writes, for a checker of types: see test_typed.py."""

import torch

import dreamfusion as df


def losses(config: df.Config, field: df.Field) -> list[float]:
    run: df.Run = df.start(config, torch.device("cpu"), field=field, law=df.Sds())
    prior: df.Prior = df.open_prior(config.prior)
    return [m.losses["distillation"] for m in df.optimise(run, prior, df.prompt_table(config, prior), config.steps)]


df.start(df.Config(), torch.device("cpu"), fields=3)  # wrong: no such part
df.start(df.Config(), torch.device("cpu"), law=3)  # wrong: no law
df.optimise(3)  # wrong
print(df.nonsense)  # noqa: T201  # wrong: no such name
