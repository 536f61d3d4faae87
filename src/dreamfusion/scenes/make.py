"""From a sentence to a folder with its scene: the runs of its things, `scene.json`, the joint .glb and its page."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamfusion import compose, generate
from dreamfusion.batch.folder import Item
from dreamfusion.batch.here import make_here
from dreamfusion.batch.resolve import Resolver, name_of
from dreamfusion.batch.worker import MakeRuns
from dreamfusion.diffusion.priors.protocol import WordListedEncoder
from dreamfusion.diffusion.priors.vocabulary import require_sentences, understood
from dreamfusion.errors import UserError
from dreamfusion.files import write_json
from dreamfusion.progress import ProgressCallback
from dreamfusion.runs import RunFolder, folder_name
from dreamfusion.scenes.bodies import Placed, solid_of
from dreamfusion.scenes.check import Verdict, check
from dreamfusion.scenes.grammar import Sentence, parse
from dreamfusion.scenes.joint import SCENE
from dreamfusion.scenes.layout import layout
from dreamfusion.scenes.sizes import UNKNOWN, size_of


@dataclass(frozen=True)
class Plan:
    """What is to be made of a sentence."""

    sentence: Sentence
    sizes: tuple[float, ...]
    """of its things, metres along the longest side"""
    items: tuple[Item, ...]
    """their runs; things with one caption share one"""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        things = [
            f"  {thing.count} x {thing.caption}, {size:g} m"
            for thing, size in zip(self.sentence.things, self.sizes, strict=True)
        ]
        return "\n".join([*things, *relations_told(self.sentence), *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Scene:
    """What was made."""

    files: list[Path]
    verdict: Verdict
    notes: tuple[str, ...]
    """what was not laid out as said"""


def plan(
    text: str, settings: Mapping[str, str], sizes: Mapping[str, float], runs: Path, threads: int, joint: bool = False
) -> Plan:
    """What a sentence asks for; nothing is made. `settings` as those of a batch, `sizes` in metres by name.

    Raises UserError for what is not understood, and if there is to be a `joint` stage with a prior that cannot do it.
    """
    resolver = Resolver(settings, threads)
    reader = resolver.settings().reader
    if joint:
        require_sentences(reader)
    words = reader.words if isinstance(reader, WordListedEncoder) else None
    sentence = parse(text, lambda prompt: understood(reader, prompt), words)
    found = [size_of(thing.caption, sizes) for thing in sentence.things]
    unknown = [thing.caption for thing, size in zip(sentence.things, found, strict=True) if size is None]
    notes = (*sentence.notes, *(f"{caption}: its size is not known, taken as {UNKNOWN} m" for caption in unknown))
    metres = [(size or UNKNOWN) * thing.scale for thing, size in zip(sentence.things, found, strict=True)]
    return Plan(
        sentence, tuple(metres), tuple(_item(thing.caption, resolver, runs) for thing in sentence.things), notes
    )


def make_scene(plan: Plan, out: Path, jobs: int, say: ProgressCallback, stopped: Callable[[], bool]) -> Scene | None:
    """Make the runs that are missing, lay them out in the folder `out`, and check it; None if it was stopped before.

    The caller owns `out`. Raises UserError, also for a thing without a mesh.
    """
    if (out / SCENE).exists():
        raise UserError(f"{out / SCENE} is there: show it with `dreamfusion compose {out / SCENE}`, or delete it first")
    distinct = {item.folder: item for item in plan.items}
    for item in distinct.values():
        _require_same(item)
    left = [item for item in distinct.values() if not RunFolder(item.folder).mesh.is_file()]
    if left:
        say(f"{len(left)} of {len(distinct)} things to make, {jobs} at a time")
        problems = make_here(left, out, jobs, MakeRuns(), say, stopped)
        if stopped():
            return None
        if problems:
            raise UserError("; ".join(f"{path.name}: {what}" for path, what in problems.items()))
    say("layout")
    solids = {path: solid_of(RunFolder(path).mesh) for path in distinct}
    sized = [solids[item.folder].scale((size, size, size)) for item, size in zip(plan.items, plan.sizes, strict=True)]
    placed, notes = layout(plan.sentence, sized)
    told = described(plan, placed, out)
    files = compose.renew(compose.parse(told, out / SCENE), out, say)
    write_json(out / SCENE, told)  # at last: as long as it is not there, the same command goes on
    return Scene([out / SCENE, *files], check(plan.sentence, placed), notes)


def described(plan: Plan, placed: Sequence[Placed], home: Path) -> dict[str, Any]:
    """A scene as `dreamfusion compose` reads it from a file in `home`."""
    assets = [
        {
            "file": Path(os.path.relpath(plan.items[each.thing].folder, home)).as_posix(),
            "name": plan.sentence.things[each.thing].caption,
            "position": [round(value, 5) for value in each.position],
            "rotation": [0.0, round(each.turn_deg, 3), 0.0],
            "scale": round(each.scale * plan.sizes[each.thing], 6),
        }
        for each in placed
    ]
    return {"title": plan.sentence.text, "assets": assets}


def relations_told(sentence: Sentence, right: Sequence[bool] | None = None) -> list[str]:
    """A line for each relation; `right` says which hold."""
    lines = [
        f"  {sentence.things[each.thing].caption} - {each.place} - {sentence.things[each.other].caption}"
        for each in sentence.relations
    ]
    return (
        lines if right is None else [f"{line}: {'yes' if so else 'NO'}" for line, so in zip(lines, right, strict=True)]
    )


def _item(caption: str, resolver: Resolver, runs: Path) -> Item:
    wishes = list(resolver({"prompt": caption}))
    if len(wishes) > 1:
        raise UserError("a scene is made with one seed: give --set seed=N")
    (wish, settings), *_ = wishes
    own = {"prompt": wish.prompt, "negative": wish.negative, "seed": wish.seed, "understood": wish.understood}
    name = name_of(wish.prompt, wish.negative, wish.seed, settings.digest)
    return Item(name, replace(settings.config, **own), runs / folder_name(wish.prompt, wish.seed))


def _require_same(item: Item) -> None:
    """Raises UserError if another thing lies in a run's folder; with which settings it was made does not matter."""
    if not RunFolder(item.folder).config.exists():
        return
    there = generate.config_of(item.folder)
    if there.caption(there.prompt) != item.config.caption(item.config.prompt):
        raise UserError(f"{item.folder} holds {there.prompt!r}: move it away, or choose another --runs")
