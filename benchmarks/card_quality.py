"""Writes what `dreamfusion evaluate --samples` found into the card of the shipped prior.

    python benchmarks/card_quality.py SAMPLES_JSON

The file is `samples.json` of the folder given as `--out`.
"""

import argparse
import json
from pathlib import Path

CARD = Path(__file__).parent.parent / "src/dreamfusion/embedded/weights/card.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    samples = json.loads(parser.parse_args().samples.read_text(encoding="utf-8"))
    found, facts = samples["found"], samples["facts"]
    parts = {"nouns": found["noun"]["all"], "colours": found["colour"]["all"], "sides": found["side"]["all"]}
    shares = ", ".join(f"{share['value']:.0%} of the {name}".replace("%", " %") for name, share in parts.items())
    what = f"samples of {len(samples['captions'])} captions with five view words, judged by {facts['judge']}"
    card = json.loads(CARD.read_text(encoding="utf-8"))
    card["quality"] = {what: f"{shares} right (docs/reference/embedded-prior.md)"}
    CARD.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
