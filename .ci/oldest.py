"""Prints constraints that hold every dependency at its lower bound in pyproject.toml (needs Python >= 3.11).

python .ci/oldest.py >oldest.txt && pip install --constraint oldest.txt --editable '.[dev]'
"""

import re
from pathlib import Path

import tomllib

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
for name, bound in sorted({re.fullmatch(r"([\w-]+)(?:\[.*\])?>=(.+)", line).groups() for line in wanted}):
    print(f"{name}=={bound}")
