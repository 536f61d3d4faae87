"""Evaluations from beginning to end: make the runs that are missing, measure them, report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dreamfusion import generate
from dreamfusion.build import device_of
from dreamfusion.claims import owned
from dreamfusion.config import Config
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors import ConditionSet, PriorOptions, open_prior
from dreamfusion.diffusion.priors.locate import rooted
from dreamfusion.evaluate.captions import meaning
from dreamfusion.evaluate.evaluation_views import evaluation_views, read_views, save_views
from dreamfusion.evaluate.fidelity import likeness
from dreamfusion.evaluate.judge.judge import Judge, open_judge
from dreamfusion.evaluate.making import Task, make_all, pictures_of
from dreamfusion.evaluate.measure import Captions, Result, captions_of, verdicts
from dreamfusion.evaluate.page import percent
from dreamfusion.evaluate.report import Report, write_report
from dreamfusion.evaluate.samples import report_samples
from dreamfusion.evaluate.scorer import Scorer, open_scorer
from dreamfusion.evaluate.suites import SUITES, pool, suite
from dreamfusion.evaluate.truth import Truths, open_truths
from dreamfusion.files import numbered
from dreamfusion.progress import ProgressCallback
from dreamfusion.provenance import prior_digest
from dreamfusion.runs import RunFolder, folder_name
from dreamfusion.runtime import available_cores

Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Session:
    """Options that all evaluations share."""

    out: Path
    scorer: Scorer
    config: Config
    """of every run, but for its prompt"""
    jobs: int
    """runs at a time"""
    files: bool = True
    """as in MakeJudged"""
    truths: Truths = field(default_factory=open_truths)


def new_session(
    out: Path, scorer: str, changes: Mapping[str, object], jobs: int, files: bool = True, truth: Path | None = None
) -> Session:
    """`changes` to the fast preset; `jobs` 0 makes as many runs at a time as there are cores; `truth` as `open_truths`.

    Raises UserError for a scorer or truths that cannot be opened.
    """
    cores = available_cores()
    jobs = jobs or cores
    config = replace(preset("fast"), preview_seconds=0.0, threads=max(1, cores // jobs), **changes)
    config = replace(config, prior=rooted(config.prior), prior_sha256=prior_digest(config))
    return Session(out, open_scorer(scorer, device_of(config.device)), config, jobs, files, open_truths(truth))


def run_suites(session: Session, names: Sequence[str], say: ProgressCallback, stopped: Stopped) -> list[Path]:
    """Make and judge the runs of suites; returns the report's files, or none if it was stopped.

    Captions compete with all 80 prompts, whichever suites are made.
    """
    results = made(
        session, {prompt: name for name in names for prompt in suite(name)}, session.out / "runs", say, stopped
    )
    return [] if results is None else _reported(session, results, captions_of(pool(), bare=True), say)


def run_prompts(session: Session, prompts: Sequence[str], say: ProgressCallback, stopped: Stopped) -> list[Path]:
    """The same with prompts of the user's, which compete with each other, as the prior understood them."""
    results = made(session, dict.fromkeys(prompts, ""), session.out / "runs", say, stopped)
    if results is None:
        return []
    return _reported(session, results, _competing(session, [result.prompt for result in results], prompts), say)


def judge_folders(
    session: Session, folders: Sequence[Path], prompts: Sequence[str], say: ProgressCallback
) -> list[Path]:
    """Judge runs that are there, without making any: their prompts compete with `prompts`, or the suites' if none.

    Raises UserError if one of the folders is no run.
    """
    suite_of = {prompt: name for name in SUITES for prompt in suite(name)}
    results = []
    for folder in folders:
        config = generate.config_of(folder)
        if not pictures_of(folder).exists():
            say(f"pictures of {folder}")
            generate.prepare_process(config, session.config.device)
            with owned(folder):
                _, run = generate.open_run(folder, session.config.device)
                save_views(evaluation_views(run.scene, run.recipe.eval_render), pictures_of(folder))
        results.append(_result(session, Task(config, folder), suite_of.get(config.prompt, ""), ""))
    captions = _competing(session, [*(prompts or pool()), *(result.prompt for result in results)], prompts)
    return _reported(session, results, captions, say)


def _competing(session: Session, captions: Sequence[str], own: Sequence[str]) -> Captions:
    """Captions that the user gave as their `own` stay as they are, unless they go to the judge, which wants no colour
    words for pictures without texture.
    """
    return captions_of(captions, bare=not own or isinstance(session.scorer, Judge))


def judge_samples(out: Path, prior: str, conditions: ConditionSet, device: str) -> list[Path]:
    """Judge what the prior draws of the 60 captions; returns the files of the report."""
    generate.prepare_process(replace(preset("fast"), prior=prior, device=device))
    opened = open_prior(prior, PriorOptions(device=device_of(device)))
    return report_samples(opened, open_judge(), suite("samples"), conditions, out)


def made(
    session: Session, suite_of: Mapping[str, str], runs: Path, say: ProgressCallback, stopped: Stopped
) -> list[Result] | None:
    """The runs of all prompts in the folder `runs`, made where they are missing; None if it was stopped before."""
    folders = _folders(suite_of, session.config.seed, runs)
    tasks = [Task(replace(session.config, prompt=prompt), folder) for prompt, folder in folders.items()]
    problems = make_all(tasks, session.out, session.jobs, say, stopped, session.files)
    if stopped():
        return None
    return [_result(session, task, suite_of[task.config.prompt], problems.get(task.folder, "")) for task in tasks]


def _folders(prompts: Iterable[str], seed: int, runs: Path) -> dict[str, Path]:
    """A folder for each prompt, also for those whose letters make one name."""
    folders = dict[str, Path]()
    for prompt in prompts:
        free = (path for path in numbered(runs / folder_name(prompt, seed)) if path not in folders.values())
        folders[prompt] = next(free)
    return folders


def _result(session: Session, task: Task, name: str, problem: str) -> Result:
    path, truths = pictures_of(task.folder), session.truths
    config = generate.config_of(task.folder) if RunFolder(task.folder).config.exists() else task.config
    prompt, views = config.caption(config.prompt), read_views(path) if path.exists() else None
    near = likeness(views, truths.true(prompt), truths.reached[prompt]) if truths.knows(config) else None
    return Result(prompt, name, task.folder, problem, views.pictures if views else None, near)


def _reported(session: Session, results: Sequence[Result], captions: Captions, say: ProgressCallback) -> list[Path]:
    say(f"judging {len(results)} runs among {len(captions.coloured)} captions")
    judge = open_judge()
    found = verdicts(results, captions, session.scorer, judge)
    ideal = [
        replace(result, problem="", pictures=session.truths.made(result.prompt))
        for result in results
        if result.likeness
    ]
    perfect = verdicts(ideal, captions, session.scorer, judge)
    facts = facts_of(session, [result.folder for result in results]) | real_facts(judge, results)
    facts |= {"captions": len(captions.coloured), "captions without colours": len(captions.bare)}
    return write_report(Report(facts, found, perfect, session.truths), session.out)


def real_facts(judge: Judge, results: Sequence[Result]) -> dict[str, object]:
    """How often the judge names real meshes of the prompts' nouns, among all its nouns: what a result can hope for."""
    said = [meaning(result.prompt, judge.nouns) for result in results]
    nouns = [one.noun for one in said if one is not None]
    if not nouns:
        return {}
    colour, geometry = (judge.names_real(nouns, kind) for kind in ("shaded", "textureless"))
    told = f"{percent(colour)} % in colour, {percent(geometry)} % textureless"
    return {"real meshes of these nouns that the judge names": told}


def facts_of(session: Session, folders: Sequence[Path]) -> dict[str, object]:
    """How the figures came about: the scorer, and the settings of the runs, as lists where they differ; a baseline has
    no weights of a prior.
    """
    configs = [generate.config_of(folder) for folder in folders if RunFolder(folder).config.exists()]
    told = {
        name: list(dict.fromkeys(value for config in configs if (value := getattr(config, name)) != ""))
        for name in ("prior", "prior_sha256", "version", "preset", "steps", "seed", "conditions")
    }
    for name in ("candidates", "heal"):  # which are worth a word only where they are used
        used = list(dict.fromkeys(getattr(config, name) for config in configs))
        told |= {name: used} if used not in ([], [getattr(Config, name)]) else {}
    facts: dict[str, object] = {"scorer": session.scorer.name}
    return facts | {name: values[0] if len(values) == 1 else values for name, values in told.items()}
