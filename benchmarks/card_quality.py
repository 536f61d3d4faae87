"""Writes into the card of the shipped prior what was measured of it.

    python benchmarks/card_quality.py [SAMPLES_JSON]

Its error on views that nothing learned from is kept beside its weights, as the spreads of its things; how near its
objects come to a perfect prior's is in docs/results/report.json. SAMPLES_JSON is `samples.json` of the folder given to
`dreamfusion evaluate --samples --out`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
WEIGHTS, REPORT = ROOT / "src/dreamfusion/embedded/weights", ROOT / "docs/results/report.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, nargs="?")
    path = WEIGHTS / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["quality"] = _error() | _objects()
    if samples := parser.parse_args().samples:
        card["quality"] |= _samples(json.loads(samples.read_text(encoding="utf-8")))
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _error() -> dict[str, str]:
    """Of the things; the last row of the spreads is that of nothing named."""
    error = load_file(WEIGHTS / "unet" / "diffusion_pytorch_model.safetensors")["spread"][:-1, 0].float().square()
    found = f"{error.mean():.4f} (mean square of pixels in [-1, 1]; half of the things below {error.median():.4f})"
    return {"error on views that nothing learned from, everything told": found}


def _objects() -> dict[str, str]:
    found = json.loads(REPORT.read_text(encoding="utf-8"))["beside the perfect prior"]["all"]
    own, perfect = (found["likeness"][whose] for whose in ("own", "perfect"))
    less = perfect["object_psnr_db"] - own["object_psnr_db"]
    outlines = f"silhouettes {own['silhouette_iou']:.3f} against {perfect['silhouette_iou']:.3f}"
    return {
        f"{found['count']} objects beside a perfect prior's": f"{less:.1f} dB below, {outlines} (docs/evaluation.md)"
    }


def _samples(samples: dict[str, Any]) -> dict[str, str]:
    what = f"samples of {len(samples['captions'])} captions with five view words, judged by {samples['facts']['judge']}"
    drawn, half_way = (_shares(samples[which]) for which in ("found", "half way"))
    return {what: f"{drawn} right; of its estimates half way {half_way} (docs/reference/embedded-prior.md)"}


def _shares(found: dict[str, Any]) -> str:
    parts = {"nouns": found["noun"]["all"], "colours": found["colour"]["all"], "sides": found["side"]["all"]}
    return ", ".join(f"{share['value']:.0%} of the {name}".replace("%", " %") for name, share in parts.items())


if __name__ == "__main__":
    main()
