"""What becomes of the first prompts that people would type: `python tests/first_prompts.py` writes it down anew.

The 200 prompts were written before there was a list of words (`golden/first_prompts.txt`); how each is answered stands
in `golden/first_answers.txt`.
"""

from pathlib import Path

from dreamfusion.diffusion.priors import open_prompt_encoder, understood
from dreamfusion.errors import UserError

GOLDEN = Path(__file__).with_name("golden")
PROMPTS, ANSWERS = GOLDEN / "first_prompts.txt", GOLDEN / "first_answers.txt"


def answers() -> list[str]:
    """A line for each prompt: what was typed, and the caption with its notes, or why it is refused."""
    prior = open_prompt_encoder("embedded")
    lines = []
    for prompt in PROMPTS.read_text(encoding="utf-8").splitlines():
        try:
            said = understood(prior, prompt)
            answer = "as typed" if said.caption == prompt else f"{said.caption} ({'; '.join(said.notes)})"
        except UserError as error:
            answer = f"refused: {error}"
        lines.append(f"{prompt} => {answer}")
    return lines


if __name__ == "__main__":
    ANSWERS.write_text("\n".join(answers()) + "\n", encoding="utf-8")
