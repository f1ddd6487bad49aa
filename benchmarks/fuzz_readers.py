"""Damage files of every format in ten thousand ways and read them: a clear error or a good clip, nothing else.

python benchmarks/fuzz_readers.py [--mutants 10000] [--seed 0] [--data ../shared/data]
python benchmarks/fuzz_readers.py --replay FILE    # once more a mutant that was kept because something was wrong

Each mutant of a good file, real or generated, is read alone and through open_dataset, now and then into a cache. It is
to be refused by an error in the one form, that names the file and is short, or to give finite float32 clips of the
right shape; without another exception, a warning, ten seconds, or much memory. What a plain reader accepts is to be
accepted and all else refused (NTU, NW-UCLA, Kinetics), and every number to be the plain reader's (all formats).
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import multiprocessing
import multiprocessing.connection
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import fuzz_truth
import numpy as np
import torch
from fuzz_seeds import KINDS, KINETICS, NTU, NW_UCLA, Seed, all_seeds
from fuzz_structures import mutant

from skeleton_focus import FormatError, open_dataset, read_kinetics, read_ntu, read_nw_ucla
from skeleton_focus.clips import Clip
from skeleton_focus.formats import ClipFile, UnreadableFileError

READERS: dict[str, Callable[[Path], ClipFile]] = {NTU: read_ntu, NW_UCLA: read_nw_ucla, KINETICS: read_kinetics}
"""The readers of one file; the other formats have open_dataset alone."""

MOST_SECONDS, MOST_CHARACTERS, MOST_MEMORY, EACH_MEMORY = 10.0, 400, 1536 << 20, 256 << 20
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class Wrong(Exception):
    """What a reader did with a mutant and must not do."""


class Slow(BaseException):
    """A mutant took too long; no reader catches it."""


@dataclass
class Row:
    """What is told of a format."""

    mutants: int = 0
    accepted: int = 0
    refused: int = 0
    compared: int = 0
    slowest: float = 0.0
    slowest_number: int = -1

    def add(self, other: Row) -> None:
        slower = max(self, other, key=lambda row: row.slowest)
        self.slowest, self.slowest_number = slower.slowest, slower.slowest_number
        for name in ("mutants", "accepted", "refused", "compared"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Report:
    """What one process found: a row a format, what is wrong with which kept mutant, and the growth of its memory."""

    rows: dict[str, Row] = field(default_factory=lambda: {kind: Row() for kind in KINDS})
    wrong: list[str] = field(default_factory=list)
    memory: int = 0


class Opened(NamedTuple):
    """What open_dataset gave: the clips, or why it raised; and the clips that it left out."""

    clips: dict[str, Clip]
    raised: str
    problems: list[str]


# ---------------------------------------------------------------------------------------------------------- the checks


def check(seed: Seed, folder: Path, row: Row, *, cache: bool = False) -> None:
    """Read the mutant that lies in ``folder`` beside its neighbours, and count it.

    Raises:
        Wrong: a reader did what it must not do.
    """
    path, where = folder / seed.target, folder / seed.opened
    start = time.perf_counter()
    with _warnings_are_wrong(), _in_time():
        alone = _read(seed.kind, path) if seed.kind in READERS else None
        opened = _open(where, path, False)
    row.slowest = max(row.slowest, time.perf_counter() - start)
    refused = bool(opened.raised or opened.problems)
    if alone is not None:
        refused = isinstance(alone, str)
        _agrees_alone(seed, alone, opened, len(seed.beside))
        row.compared += _compare_with_plain(seed.kind, path, alone)
    elif not opened.raised:
        row.compared += _compare_with_numpy(seed.kind, where, opened.clips)
    row.mutants, row.refused, row.accepted = row.mutants + 1, row.refused + refused, row.accepted + (not refused)
    if cache:
        with _warnings_are_wrong(), _in_time():
            _check_cache(where, path, folder.parent / "cache", opened)


def _read(kind: str, path: Path) -> ClipFile | str:
    """The clip, checked, or the error's message, checked."""
    try:
        clip = READERS[kind](path)
    except FormatError as error:
        return _clear(error, path)
    joints = {NTU: 25, NW_UCLA: 20, KINETICS: 18}[kind]
    shape = (2 if kind == KINETICS else 3, clip.x.shape[1], joints, 1 if kind == NW_UCLA else 2)
    seen = np.ones(shape[1:], np.float32) if clip.visibility is None else clip.visibility
    _good(clip.name, torch.from_numpy(clip.x), torch.from_numpy(seen), shape)
    return clip


def _open(where: Path, path: Path, cache: Path | bool, on_error: str | None = None) -> Opened:
    """What open_dataset makes of it; every clip and every message is checked."""
    told: list[FormatError] = []
    clips: dict[str, Clip] = {}
    try:
        split = open_dataset(where, on_error=on_error or told.append, cache=cache)
        for side in split:
            shape: tuple[int, ...] = ()
            for i, name in enumerate(side.names):
                try:
                    clip = side[i]
                except FormatError as error:  # of clips that lie where they are used
                    told.append(error)
                    continue
                shape = shape or tuple(clip.x.shape)
                _good(name, clip.x, clip.visibility, (shape[0], clip.x.shape[1], *shape[2:]))
                if not 0 <= clip.label < len(side.classes):
                    raise Wrong(f"clip {name!r}: label {clip.label} of {len(side.classes)} classes")
                clips[name] = clip
    except ValueError as error:
        return Opened({}, _clear(error, where, ValueError), [_clear(problem, path) for problem in told])
    return Opened(clips, "", [_clear(error, path) for error in told])


def _good(name: str, x: torch.Tensor, seen: torch.Tensor, shape: tuple[int, ...]) -> None:
    if x.dtype != torch.float32 or tuple(x.shape) != shape or x.shape[1] < 1 or not torch.isfinite(x).all():
        raise Wrong(f"clip {name!r}: {x.dtype} {tuple(x.shape)}, expected finite float32 {shape} with frames")
    if seen.dtype != torch.float32 or seen.shape != x.shape[1:] or not ((seen >= 0) & (seen <= 1)).all():
        raise Wrong(f"clip {name!r}: visibility {seen.dtype} {tuple(seen.shape)}, or not in [0, 1]")
    if (x != 0).any(0)[seen == 0].any():
        raise Wrong(f"clip {name!r}: positions of joints that were not seen")


def _clear(error: ValueError, path: Path, *also: type) -> str:
    """The message of an error in the one form, that names the file, in one short line that can be printed."""
    text = str(error)
    if type(error) not in (FormatError, UnreadableFileError, *also):
        raise error
    rest = text.replace(str(path), "", 1)
    if rest == text or ": expected " not in text or ", got " not in text:
        raise Wrong(f"a message without the path or the form: {text[:300]}")
    if len(rest) > MOST_CHARACTERS or not rest.isprintable():
        raise Wrong(f"a message of {len(rest)} characters, or not printable: {rest[:300]!a}")
    if "fits into memory" in text:
        raise Wrong("all memory was used")
    return text


def _agrees_alone(seed: Seed, alone: ClipFile | str, opened: Opened, beside: int) -> None:
    """open_dataset makes of a file what its reader does, and its neighbours do not mind."""
    if isinstance(alone, str):
        if opened.raised or opened.problems != [alone] or len(opened.clips) != beside:
            raise Wrong(f"alone: {alone}; through open_dataset: {opened.raised or opened.problems}")
        return
    if opened.raised:
        if "for each class" not in opened.raised and "one name for class" not in opened.raised:  # of several files
            raise Wrong(f"alone a clip; through open_dataset: {opened.raised}")
        return
    if opened.problems or len(opened.clips) != beside + 1:
        raise Wrong(f"alone a clip; through open_dataset: {opened.problems}")
    clip = opened.clips[alone.name]
    if not np.array_equal(clip.x.numpy(), alone.x) or clip.label != alone.label:
        raise Wrong("alone another clip than through open_dataset")


def _compare_with_plain(kind: str, path: Path, alone: ClipFile | str) -> bool:
    """Compare with a reader that takes its time: what is accepted, and every number."""
    try:
        if kind == NTU:
            with np.errstate(over="ignore"):
                fuzz_truth.plain_readers.read_ntu(path)
            difference = "" if isinstance(alone, str) else fuzz_truth.ntu_difference(path, alone)
        else:
            x, label = (fuzz_truth.nw_ucla if kind == NW_UCLA else fuzz_truth.kinetics)(path)
            same = not isinstance(alone, str) and np.array_equal(x, alone.x) and label == alone.label
            difference = "" if same else "other numbers than plainly"
    except (ValueError, fuzz_truth.Refused):
        if isinstance(alone, ClipFile):
            raise Wrong("accepted, plainly refused") from None
        return False
    if isinstance(alone, str):
        raise Wrong(f"plainly accepted, refused: {alone}")
    if difference:
        raise Wrong(difference)
    return True


def _compare_with_numpy(kind: str, where: Path, clips: dict[str, Clip]) -> bool:
    """Compare every clip that numpy and pickle can read too."""
    told = fuzz_truth.arrays(kind, where)
    for name, (x, label) in told.items():
        clip = clips.get(name)
        if clip is not None and (not np.array_equal(clip.x.numpy(), x) or clip.label != label):
            raise Wrong(f"clip {name!r}: other numbers than plainly")
    return bool(told.keys() & clips.keys())


def _check_cache(where: Path, path: Path, cache: Path, opened: Opened) -> None:
    """Through a cache the same clips, twice; nothing of a reading that raises."""
    shutil.rmtree(cache, ignore_errors=True)
    strict = _open(where, path, cache, "raise")
    if strict.raised:
        left = [entry.name for entry in cache.glob("*") if not entry.name.endswith(".lock")] if cache.exists() else []
        if left and opened.problems:  # with none, all was read, and raised over what the clips are together
            raise Wrong(f"after an error the cache holds {left}")
    for _ in range(2):
        again = _open(where, path, cache)
        if again[1:] != opened[1:] or again.clips.keys() != opened.clips.keys():
            raise Wrong(f"through a cache {again.raised or again.problems}, without {opened.raised or opened.problems}")
        if not all(torch.equal(again.clips[name].x, clip.x) for name, clip in opened.clips.items()):
            raise Wrong("through a cache other numbers than without")


# ------------------------------------------------------------------------------------------------- time, memory, space


@contextlib.contextmanager
def _warnings_are_wrong() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Raise Slow within whatever takes more than ``MOST_SECONDS``."""

    def ring(*_: object) -> None:
        raise Slow(f"more than {MOST_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process take so many bytes more than it has, and none beyond."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _peak() -> int:
    """Bytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def lay_out(seeds: Sequence[Seed], folder: Path) -> list[Path]:
    """A folder for each seed, with its neighbours."""
    folders = [folder / f"{i}" for i in range(len(seeds))]
    for of_seed, seed in zip(folders, seeds, strict=True):
        for name, content in {**seed.beside, seed.target: seed.content}.items():
            (of_seed / name).parent.mkdir(parents=True, exist_ok=True)
            (of_seed / name).write_bytes(content)
    return folders


# ------------------------------------------------------------------------------------------------------------- the run


def make(seeds: Sequence[Seed], number: int, seed: int) -> tuple[int, bytes]:
    """The mutant of this number: which seed it comes from, and its bytes; always the same."""
    rng = random.Random(f"{seed} {number}")
    kind = KINDS[number % len(KINDS)]
    index = rng.choice([i for i, good in enumerate(seeds) if good.kind == kind])
    return index, mutant(rng, seeds[index])


def run(
    seeds: Sequence[Seed], numbers: Sequence[int], seed: int, folder: Path, keep: Path, tick: Callable[[int], None]
) -> Report:
    """Read the mutants of these numbers; those with which something is wrong are kept."""
    report, folders = Report(), lay_out(seeds, folder)
    for good, of_seed in zip(seeds, folders, strict=True):
        check(good, of_seed, Row(), cache=True)  # the files are good, and all is loaded
    with limited_memory():
        first = _peak()
        for done, number in enumerate(numbers):
            index, content = make(seeds, number, seed)
            good, path = seeds[index], folders[index] / seeds[index].target
            path.write_bytes(content)
            row, before = report.rows[good.kind], _peak()
            slowest = row.slowest
            reason = failure(good, folders[index], row, cache=number % 16 < 2)
            if f": {Slow.__name__} at " in reason:  # or the whole machine stood still: only a reader is slow again
                reason = failure(good, folders[index], row, cache=number % 16 < 2)
            row.slowest_number = number if row.slowest > slowest else row.slowest_number
            if not reason and _peak() - before > EACH_MEMORY:
                reason = f"{(_peak() - before) >> 20} MiB more memory"
            if reason:
                report.wrong.append(f"{_keep(keep, number, good, content)}: {reason}")
            tick(done)
        report.memory = _peak() - first
    return report


def failure(seed: Seed, folder: Path, row: Row, *, cache: bool = False) -> str:
    """What is wrong with how the mutant in ``folder`` is read; empty if nothing is."""
    try:
        check(seed, folder, row, cache=cache)
    except Wrong as wrong:
        return f"{seed.kind}: {wrong}"
    except (Exception, Slow) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(last.filename).name}, line {last.lineno}"
        return f"{seed.kind}: {type(error).__name__} at {at}: {str(error)[:300]}"
    return ""


def _keep(folder: Path, number: int, seed: Seed, content: bytes) -> Path:
    """Write a mutant down: one line of JSON that says of what, then its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:06d}-{seed.kind.replace(' ', '-')}.mutant"
    head = {"kind": seed.kind, "target": seed.target, "beside": {name: list(b) for name, b in seed.beside.items()}}
    path.write_bytes(json.dumps({**head, "opened": seed.opened}).encode() + b"\n" + content)
    return path


def replay(file: Path) -> str:
    """What is wrong with a mutant that was kept; empty if nothing is any more."""
    head, content = file.read_bytes().split(b"\n", 1)
    told = json.loads(head)
    beside = {name: bytes(values) for name, values in told["beside"].items()}
    seed = Seed(told["kind"], told["target"], content, beside, told["opened"])
    with tempfile.TemporaryDirectory() as folder, limited_memory():
        return failure(seed, lay_out([seed], Path(folder))[0], Row(), cache=True)


def _worker(
    numbers: Sequence[int], options: argparse.Namespace, folder: Path, reports: multiprocessing.connection.Connection
) -> None:
    torch.set_num_threads(1)
    seeds = all_seeds(options.data if options.data.is_dir() else None)

    def tick(done: int) -> None:
        faulthandler.dump_traceback_later(6 * MOST_SECONDS, exit=True)  # where no signal is heeded
        if done % 100 == 0 and sys.stderr.isatty():
            print(f"\r{done} of {len(numbers)} ", end="", file=sys.stderr, flush=True)

    reports.send(run(seeds, numbers, options.seed, folder, options.keep, tick))


def in_processes(options: argparse.Namespace, folder: Path) -> Report:
    """Share the mutants among processes; one that dies leaves its last mutant in its folder."""
    context = multiprocessing.get_context("spawn")
    total, started = Report(), []
    for k in range(options.processes):
        receiver, sender = context.Pipe(duplex=False)
        numbers = range(k, options.mutants, options.processes)
        process = context.Process(target=_worker, args=(numbers, options, folder / f"{k}", sender))
        process.start()
        sender.close()
        started.append((process, receiver))
    for k, (process, receiver) in enumerate(started):
        try:
            report = receiver.recv()
        except EOFError:
            process.join()
            left = options.keep / f"process-{k}"
            shutil.copytree(folder / f"{k}", left, dirs_exist_ok=True)
            total.wrong.append(f"{left}: a process died with exit status {process.exitcode}")
            continue
        process.join()
        for kind, row in report.rows.items():
            total.rows[kind].add(row)
        total.wrong += report.wrong
        total.memory = max(total.memory, report.memory)
    return total


def show(report: Report, seconds: float) -> None:
    """Print the table."""
    print(f"{'format':18} {'mutants':>8} {'accepted':>9} {'refused':>8} {'compared':>9} slowest")
    total = Row()
    for kind, row in [*report.rows.items(), ("all", total)]:
        slowest = f"{1e3 * row.slowest:5.0f} ms (mutant {row.slowest_number})"
        print(f"{kind:18} {row.mutants:8} {row.accepted:9} {row.refused:8} {row.compared:9} {slowest}")
        if row is not total:
            total.add(row)
    print("compared: a plain reader, json, numpy or pickle gave the same numbers of all clips that were accepted")
    print(f"memory: {report.memory / 2**20:.0f} MiB more at most; time: {seconds:.0f} s; wrong: {len(report.wrong)}")
    for line in report.wrong[:40]:
        print(f"  {line}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Damage files of every format and read them.")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the mutants")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of ntu_samples and nw_ucla")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where mutants with a fault are kept")
    parser.add_argument("--replay", type=Path, help="read one of those once more")
    options = parser.parse_args(arguments)
    if options.replay:
        reason = replay(options.replay)
        print(reason or "nothing is wrong")
        return int(bool(reason))
    start = time.perf_counter()
    real = sum(seed.real for seed in all_seeds(options.data if options.data.is_dir() else None))
    print(f"{real} files made of real ones" if real else f"no data sets in {options.data}: generated files alone")
    with tempfile.TemporaryDirectory() as folder:
        report = in_processes(options, Path(folder))
    show(report, time.perf_counter() - start)
    return int(bool(report.wrong))


if __name__ == "__main__":
    raise SystemExit(main())
