"""The command `batch`, with its arguments. What is slow to load it imports."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt
from tyro.conf import Positional, arg

from dreamfusion.claims import InUse
from dreamfusion.cli import arguments as a
from dreamfusion.cli.interrupt import interruptible
from dreamfusion.config import Config
from dreamfusion.config.bounds import Count
from dreamfusion.errors import UserError
from dreamfusion.files import listed

if TYPE_CHECKING:
    from dreamfusion.batch.drive import Tally, Workers
    from dreamfusion.batch.folder import BatchFolder
    from dreamfusion.batch.worker import MakeRuns


@dataclass(frozen=True)
class Batch:
    """Make an object of every prompt in a list, on this machine or a cluster.

    The same command goes on: what is made stays, what was begun goes on from its last checkpoint. A row is a prompt
    (.txt), or columns (.csv) or keys (.jsonl): prompt, seed or seeds (0-4, 7), preset, and any setting, named as the
    options of `dreamfusion generate`.
    """

    prompts: Positional[Path]
    """list of prompts (.txt, .csv, .jsonl), or the directory of a batch to go on with"""
    out: Path | None = None
    """directory of the batch"""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...")] = ()
    """settings of all rows that have none of their own: steps=300 preset=sd seeds=0-4"""
    executor: Literal["local", "ray"] = "local"
    """where runs are made: processes of this machine, or a Ray cluster (extra `ray`)"""
    address: str = ""
    """address of a Ray cluster, or auto; a new one on this machine if not given"""
    jobs: Annotated[int, Ge(0)] = 0
    """runs at a time; 0: one per core, or --per-gpu for each GPU"""
    per_gpu: Count = 1
    """runs at a time on each GPU"""
    retries: Annotated[int, Ge(0)] = 2
    """further attempts at a run that fails without getting farther than before"""
    timeout: Annotated[float, Ge(0)] = 0.0
    """seconds that an attempt may take; 0: any time"""
    lease: Annotated[float, Gt(0)] = 600.0
    """seconds without a sign of life after which a run is taken from its worker"""
    shard: str = ""
    """I/N: make only every N-th row, beginning with the I-th (1 to N), beside others that make the rest"""
    limit: Annotated[int, Ge(0)] = 0
    """most rows to look at, from the first one; 0: all"""
    skip_bad: bool = False
    """leave out rows that cannot be made"""
    files: bool = True
    """write turntable, mesh and page of every run; without, `dreamfusion resume RUN` writes them later"""
    keep_texts: bool = True
    """keep text encoders in memory; without, each prompt has them loaded again"""
    report: bool = False
    """only write summary.csv and index.html of a batch"""


def batch(name: str, given: list[str]) -> int:
    """Make the runs of a list that are missing, and report."""
    arguments = a.read(Batch, name, given)
    shard = _shard(arguments.shard)
    from dreamfusion.batch.folder import BatchFolder
    from dreamfusion.batch.report import write_report

    folder = BatchFolder(_directory(arguments).absolute())
    if arguments.report:
        files, counts = write_report(folder)
        print(_told(counts), file=sys.stderr)
        print(listed(files))
        return 0
    with interruptible() as stop:
        tally = _made(arguments, folder, shard, stop.is_set)
    if tally.left and stop.is_set():  # without a report: who sent the signal may not wait for that
        _say(f"stopped with {tally.left} runs left; all are saved, and the same command goes on")
        return stop.code
    if tally.left:
        raise UserError(f"another process hands out these runs now; {tally.left} were left to it")
    try:
        files, counts = write_report(folder)
    except InUse:  # another shard's process writes it
        files, counts = [], Counter()
    print(_told(counts), file=sys.stderr)
    print(listed(files))
    return 1 if tally.failed else 0


def _directory(arguments: Batch) -> Path:
    if arguments.out is not None and not arguments.report:
        return arguments.out
    if arguments.prompts.is_dir():
        return arguments.prompts
    raise UserError(
        f"give --out DIR, the directory for the runs of {arguments.prompts}"
        if not arguments.report
        else f"--report takes the directory of a batch: dreamfusion batch DIR --report, not {arguments.prompts}"
    )


def _shard(text: str) -> tuple[int, int]:
    """Number and count of the shards; 1 of 1 if none is asked for. Raises UserError."""
    first, _, last = (text or "1/1").partition("/")
    if all(re.fullmatch("[0-9]{1,9}", number) for number in (first, last)) and 1 <= int(first) <= int(last):
        return int(first), int(last)
    raise UserError(f"--shard must be I/N with I from 1 to N, such as 3/8, not {text!r}")


def _made(arguments: Batch, folder: "BatchFolder", shard: tuple[int, int], stopped: Callable[[], bool]) -> "Tally":
    from dreamfusion.batch.drive import Drive, Rules, driving
    from dreamfusion.batch.manifest import Manifest
    from dreamfusion.batch.worker import MakeRuns

    number, count = shard
    with driving(folder, f"{number}-of-{count}") as go:
        if not arguments.prompts.is_dir():
            _write_manifest(arguments, folder, go.with_name("manifest.part"))
        work = MakeRuns(arguments.files, arguments.keep_texts)
        with Manifest(folder) as manifest, _workers(arguments, work, manifest[0].config) as workers:
            rows = range(number - 1, min(len(manifest), arguments.limit or len(manifest)), count)
            _say(f"{len(rows)} runs, {workers.free} at a time, into {folder.path}")
            drive = Drive(folder, workers, Rules(arguments.retries, arguments.timeout, arguments.lease), _say)
            return drive((manifest[row] for row in rows), len(rows), go, stopped)


def _write_manifest(arguments: Batch, folder: "BatchFolder", part: Path) -> None:
    from dreamfusion.batch import new_manifest
    from dreamfusion.batch.resolve import Resolver
    from dreamfusion.batch.rows import read_rows
    from dreamfusion.runtime import available_cores

    defaults = dict(setting(text) for text in arguments.set)
    each = max(1, available_cores() // arguments.jobs) if arguments.jobs and arguments.executor == "local" else 1
    count = new_manifest.Count()

    def lines() -> Iterator[dict[str, object]]:
        rows = read_rows(arguments.prompts)
        yield from new_manifest.manifest_lines(rows, Resolver(defaults, each), count, _bad)
        if count.bad and not arguments.skip_bad:
            raise UserError(
                f"{_rows(count.bad)} cannot be made, see above: mend them, or leave them out with --skip-bad"
            )
        if not count.items:
            raise UserError(f"{arguments.prompts} holds no prompt that can be made")

    new_manifest.write_manifest(lines(), folder, part)
    if count.bad or count.repeated:
        _say(f"{_rows(count.bad)} left out, {_rows(count.repeated)} repeated and made once")


def setting(text: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE. Raises UserError for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UserError(f"--set takes NAME=VALUE, such as steps=300, not {text!r}")
    return name, value


@contextmanager
def _workers(arguments: Batch, work: "MakeRuns", config: Config) -> Iterator["Workers"]:
    """The executor that was asked for; `config` is that of one of the runs."""
    if arguments.executor == "ray":
        from dreamfusion.batch.on_ray import RayWorkers, Share

        share = Share(max(1, config.threads), 0.0 if config.device == "cpu" else 1 / arguments.per_gpu)
        with RayWorkers(arguments.address, arguments.jobs, share, work) as workers:
            yield workers
    else:
        from dreamfusion.batch.local import LocalWorkers, visible_gpus
        from dreamfusion.runtime import available_cores

        gpus = visible_gpus(config.device)
        if arguments.per_gpu > 1 and not gpus:
            raise UserError(f"--per-gpu {arguments.per_gpu} divides GPUs, and there is none here: --jobs says how many")
        jobs = arguments.jobs or len(gpus) * arguments.per_gpu or available_cores()
        with LocalWorkers(jobs, work, gpus or [""]) as workers:
            yield workers


def _bad(line: int, wrong: str) -> None:
    _say(f"line {line}: {wrong}")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _told(counts: "Counter[str]") -> str:
    return ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))


def _say(doing: str) -> None:
    print(doing, file=sys.stderr, flush=True)
