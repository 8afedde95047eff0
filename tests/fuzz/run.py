"""Makes cases, has them read by worker processes, and reports findings by root cause."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from fuzz.mutate import mutate_folder

ROOT = Path(__file__).parents[2]
GOOD = ("ok", "refused")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0",
               "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}  # fmt: skip


@dataclass
class Case:
    """How one input was read."""

    number: int
    target: str
    change: str
    result: str
    detail: str
    where: str
    seconds: float
    megabytes: int

    @property
    def cause(self) -> tuple[str, ...]:
        """What findings of one root cause share."""
        kind = self.detail.split(":")[0] if self.result in ("traceback", "message", "left behind") else ""
        return self.result, self.where.split(":")[0] + " " + self.where.split(" ")[-1], kind, self.target


def fuzz(seed: int, numbers: list[int], keep: Path, workers: int = 2, only: str = "") -> list[Case]:
    """Read the cases ``numbers`` of a seed; the inputs of findings are copied into folders of ``keep``.

    The first case of each target is its first seed, unchanged, which is valid.

    Args:
        only: Part of the names of the targets to fuzz; "" for all.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        root = Path(temporary)
        (root / "seeds").mkdir()
        with started_workers(root / "seeds", workers) as free:
            make_seeds(root / "seeds")
            targets, kinds = ask_targets(free, workers)
            chosen = [name for name in targets if only in name]
            with ThreadPoolExecutor(workers) as pool:

                def read(number: int) -> Case:
                    target, change = chosen[number % len(chosen)], number >= len(chosen)
                    return read_case(seed, number, target, kinds, root, keep, free, change)

                return list(tqdm(pool.map(read, numbers), total=len(numbers), unit="input", disable=None))


def read_case(
    seed: int, number: int, target: str, kinds: dict[str, str], root: Path, keep: Path, free: SimpleQueue, change: bool
) -> Case:
    """Make a case, have the next free worker read it, and keep it if it is a finding."""
    rng = random.Random(f"{seed} {number}")
    seeds = sorted((root / "seeds" / kinds[target]).iterdir())
    place = Path(tempfile.mkdtemp(dir=root))
    folder = place / "case"
    shutil.copytree(rng.choice(seeds) if change else seeds[0], folder)
    changes = mutate_folder(folder, rng, seeds) if change else "unchanged"
    shutil.copytree(folder, place / "input", symlinks=True, copy_function=copied) if not has_fifo(folder) else None
    worker = free.get()
    try:
        worker.stdin.write(json.dumps({"target": target, "folder": str(folder)}) + "\n")
        worker.stdin.flush()
        answer = json.loads(worker.stdout.readline())
    finally:
        free.put(worker)
    case = Case(number, target, changes, **answer)
    if case.result not in GOOD and (place / "input").is_dir():
        keep.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(keep / f"{seed}-{number}", ignore_errors=True)
        shutil.move(place / "input", keep / f"{seed}-{number}")
    shutil.rmtree(place, ignore_errors=True)
    return case


def copied(source: str, target: str) -> str:
    return shutil.copy2(source, target, follow_symlinks=False)


def has_fifo(folder: Path) -> bool:
    return any(path.is_fifo() for path in folder.rglob("*"))


def make_seeds(folder: Path) -> None:
    """In a process of its own: the libraries that write the seeds start threads."""
    code = "import sys; from pathlib import Path; from fuzz.seeds import make_seeds; make_seeds(Path(sys.argv[1]))"
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the seeds cannot be made:\n{done.stderr}")


@contextmanager
def started_workers(seeds: Path, count: int) -> Iterator[SimpleQueue]:
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), str(seeds)]
    workers = [
        subprocess.Popen(
            command, cwd=seeds, env=os.environ | ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    free: SimpleQueue = SimpleQueue()
    for worker in workers:
        free.put(worker)
    try:
        yield free
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def ask_targets(free: SimpleQueue, count: int) -> tuple[list[str], dict[str, str]]:
    """The names of the targets and the kinds of their seeds, when all workers are ready."""
    for _ in range(count):
        worker = free.get()
        line = worker.stdout.readline()
        if not line:
            raise RuntimeError("a worker did not start; see its error above")
        kinds = json.loads(line)["ready"]
        free.put(worker)
    return list(kinds), kinds


def report(cases: list[Case], seed: int, keep: Path) -> str:
    """Findings by root cause, the most frequent first."""
    groups: dict[tuple, list[Case]] = {}
    for case in cases:
        if case.result not in GOOD:
            groups.setdefault(case.cause, []).append(case)
    results = [case.result for case in cases]
    counts = ", ".join(f"{results.count(result)} {result}" for result in sorted(set(results)))
    lines = [f"seed {seed}: {len(cases)} inputs: {counts}"]
    for group in sorted(groups.values(), key=len, reverse=True):
        first = group[0]
        lines.append(f"{len(group):5} {first.result} in {first.target}, {first.where or 'outside of the project'}")
        lines.append(f"      {ascii(first.detail[:200])[1:-1]}")
        numbers = " ".join(str(case.number) for case in group[:8])
        lines.append(f"      {first.change}; inputs {numbers} in {keep}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="Number of inputs.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the inputs.")
    parser.add_argument("--only", type=int, help="Number of the one input to read.")
    parser.add_argument("--target", default="", help="Part of the names of the targets to fuzz.")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="Worker processes.")
    parser.add_argument("--keep", type=Path, default=ROOT / "outputs" / "fuzz", help="Folder for inputs of findings.")
    options = parser.parse_args()
    started = time.monotonic()
    numbers = list(range(options.count)) if options.only is None else [options.only]
    cases = fuzz(options.seed, numbers, options.keep, options.workers, options.target)
    print(report(cases, options.seed, options.keep))
    if options.only is not None:
        print(cases[0])
    slowest = max(cases, key=lambda case: case.seconds)
    largest = max(cases, key=lambda case: case.megabytes)
    print(f"{time.monotonic() - started:.0f} s; slowest: {slowest.target} {slowest.number}, {slowest.seconds} s; "
          f"largest: {largest.target} {largest.number}, {largest.megabytes} MB")  # fmt: skip
    return int(any(case.result not in GOOD for case in cases))
