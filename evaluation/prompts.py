"""Prompt following: prompts are generated with many seeds, and the motions are judged by geometric conditions.

A suite is a YAML file with a list of entries:

    - prompt: a person walks forward
      same as: [someone walks straight ahead]                   # rephrasings, judged by the same conditions
      conditions: [moves forward faster than 0.8 m/s, moves forward slower than 1.7 m/s]
      required: 0.9                                             # smallest acceptable share of seeds
      mirrored: true                                            # add the entry with left and right exchanged
      seconds: 4                                                # length; by default the generator ends the motion

All keys except ``prompt`` are optional. evaluation/conditions.py describes the conditions. Prompt files of others can
be used as well: without conditions, the physical measures of their motions are reported.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dataset.caption_sides import mirror_caption
from evaluation.conditions import Condition, parse_condition
from evaluation.physical.quality import SHORTEST, motion_quality
from evaluation.quantities import Performance
from models.pipeline import Motion, TextToMotion
from models.sampling import Sampling
from motion.measures import speed
from motion.resample import FPS
from utils.errors import InputError, shown
from utils.prompts import Prompt, read_prompts
from utils.reading.texts import read_json, read_json_lines, read_text, read_yaml

KEYS = ("prompt", "same as", "conditions", "required", "mirrored", "seconds")
SUFFIXES = (".yaml", ".yml", ".txt", ".json", ".jsonl", ".csv", ".tsv")
PHYSICAL = {  # measure -> unit; the last five are measures of ``MotionQuality``
    "length": "s",
    "speed": "m/s",
    "skating ratio": "",
    "foot speed": "m/s",
    "penetration": "mm",
    "floating": "mm",
    "jerk": "m/s^3",
}
Job = tuple[str, float | None]  # prompt, seconds


@dataclass(frozen=True)
class PromptCase:
    """A prompt and the conditions that its motions must meet."""

    prompt: str
    conditions: tuple[Condition, ...] = ()
    required: float | None = None
    """Smallest acceptable share of motions that meet all conditions."""
    seconds: float | None = None
    """Length of the motions; None lets the generator end them."""
    plain: str | None = None
    """Prompt that this one rephrases."""


# --- Reading


def read_suite(path: Path) -> list[PromptCase]:
    """Read a suite (.yaml), or a prompt file of another form: .txt, .json, .jsonl, .csv, .tsv.

    JSON objects and tables need the key or column ``prompt``; others are ignored, so that T2MBench and MBench can be
    used as published. A repeated prompt is read once.

    Raises:
        InputError: the file cannot be read, holds no prompt, or an entry is invalid; the message names the entry.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{shown(path, 200)} is no file of prompts; give {', '.join(SUFFIXES)}")
    if path.suffix.lower() in (".yaml", ".yml"):
        cases = list(_read_yaml(path))
    else:
        cases = [PromptCase(prompt) for prompt in dict.fromkeys(_read_texts(path))]
    if not cases:
        raise InputError(f"{shown(path, 200)} holds no prompt; write one, for example: - prompt: a person walks")
    return cases


def read_prompt_list(path: Path) -> list[str]:
    """Read the prompts of a suite or prompt file in their order, with repetitions; errors as in ``read_suite``."""
    cases = read_suite(path)
    is_suite = path.suffix.lower() in (".yaml", ".yml")
    return [case.prompt for case in cases] if is_suite else list(_read_texts(path))


def _read_yaml(path: Path) -> Iterator[PromptCase]:
    content = read_yaml(path)
    if not isinstance(content, list):
        raise InputError(f"{shown(path, 200)} is not a list of entries; write: - prompt: a person walks")
    for number, entry in enumerate(content, 1):
        try:
            yield from _cases_of(entry)
        except InputError as error:
            raise InputError(f"{shown(path, 150)}, entry {number}: {error}") from error


def _cases_of(entry: Any) -> Iterator[PromptCase]:
    """Yield the case of an entry of a suite, its rephrasings, and the mirror images of all."""
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise InputError(f"{shown(repr(entry), 60)} has no prompt; write: - prompt: a person walks")
    for key in entry:
        if key not in KEYS:
            raise InputError(f"the key {shown(key, 40)} is unknown; use {', '.join(KEYS)}")
    rephrasings, conditions = (_texts(entry, key) for key in ("same as", "conditions"))
    required, seconds = (_number(entry, key, most) for key, most in (("required", 1), ("seconds", 3600)))
    mirrored = entry.get("mirrored", False)
    if not isinstance(mirrored, bool):
        raise InputError(f"mirrored is {shown(repr(mirrored), 40)}; give true or false")
    texts = [entry["prompt"], *rephrasings]
    versions = [(texts, conditions)]
    if mirrored:
        versions.append(([mirror_caption(text) for text in texts], [_exchange_sides(text) for text in conditions]))
    for (plain, *others), sentences in versions:
        case = PromptCase(str(Prompt.parse(plain)), tuple(map(parse_condition, sentences)), required, seconds)
        yield case
        yield from (replace(case, prompt=str(Prompt.parse(text)), required=None, plain=plain) for text in others)


def _exchange_sides(condition: str) -> str:
    """Exchange left and right in a condition; "left and right" is a direction of swings and stays."""
    opposite = {"left": "right", "right": "left"}
    return re.sub(r"left and right|\b(left|right)\b", lambda found: opposite.get(found[0], found[0]), condition)


def _texts(entry: dict, key: str) -> list[str]:
    texts = entry.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{key} is {shown(repr(texts), 60)}; give a list of texts")
    return texts


def _number(entry: dict, key: str, most: float) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise InputError(f"{key} is {shown(repr(value), 40)}; give a number above 0 and at most {most}")
    return float(value)


def _read_texts(path: Path) -> Iterator[str]:
    """Yield the prompts of a file of any other form."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        yield from (item.prompt for item in read_prompts(path, 0, 1))
        return
    if suffix in (".csv", ".tsv"):
        entries: Iterable[tuple[int, Any]] = _read_table(path, "," if suffix == ".csv" else "\t")
    elif suffix == ".jsonl":
        entries = read_json_lines(path)
    else:
        content = read_json(path)
        entries = enumerate(content if isinstance(content, list) else [content], 1)
    for number, entry in entries:
        text = entry.get("prompt") if isinstance(entry, dict) else entry
        try:
            if not isinstance(text, str):
                raise InputError(f"{shown(repr(entry), 60)} has no prompt; give it the key or column prompt")
            yield str(Prompt.parse(text))
        except InputError as error:
            raise InputError(f"{shown(path, 150)}, entry {number}: {error}") from error


def _read_table(path: Path, delimiter: str) -> Iterator[tuple[int, dict]]:
    rows = csv.DictReader(io.StringIO(read_text(path, "prompts"), newline=""), delimiter=delimiter, strict=True)
    try:
        yield from enumerate(rows, 1)
    except csv.Error as error:
        raise InputError(
            f"{shown(path, 150)}, line {rows.line_num}: no row of a table ({error}); correct it"
        ) from error


# --- Judging


@dataclass
class ConditionResult:
    """One condition on the motions of a prompt."""

    condition: Condition
    limit: float
    """Limit of the condition, or the mean number of the prompt that it compares with."""
    values: list[float]
    """Number of each seed."""

    @property
    def passed(self) -> list[bool]:
        return [self.condition.holds(value, self.limit) for value in self.values]

    @property
    def share(self) -> float:
        return float(np.mean(self.passed))

    @property
    def worst(self) -> float:
        return self.condition.worst(self.values)


@dataclass
class CaseResult:
    """The motions of one prompt."""

    case: PromptCase
    conditions: list[ConditionResult]
    physical: dict[str, float]
    """Means over the seeds of the measures in ``PHYSICAL``; the length alone if all motions are too short."""

    @property
    def share(self) -> float | None:
        """Share of motions that meet all conditions; None without conditions."""
        if not self.conditions:
            return None
        return float(np.mean([all(passed) for passed in zip(*(row.passed for row in self.conditions), strict=True)]))


def follow(
    model: TextToMotion, cases: Sequence[PromptCase], seeds: int, sampling: Sampling, slots: int = 32
) -> list[CaseResult]:
    """Generate every prompt with the seeds 0 to ``seeds`` - 1, and judge the motions.

    Args:
        model: Generator of the motions.
        cases: Prompts and conditions; prompts that conditions compare with are generated as well.
        seeds: Number of motions per prompt.
        sampling: Temperature, guidance and so on.
        slots: Number of motions generated at a time.

    Raises:
        InputError: a prompt or length does not fit the checkpoint.
    """
    jobs = [(job, seed) for job in _conditions_by_job(cases) for seed in range(seeds)]
    prompts, seconds = [prompt for (prompt, _), _ in jobs], [length for (_, length), _ in jobs]
    motions = model.generate_each(prompts, [seed for _, seed in jobs], sampling, seconds, slots=slots)
    counted = tqdm(motions, total=len(jobs), unit="motion", mininterval=2)
    return judge(cases, ((*jobs[number], motion) for number, motion in counted))


def judge(cases: Sequence[PromptCase], motions: Iterable[tuple[Job, int, Motion]]) -> list[CaseResult]:
    """Judge motions, each with its job and its seed.

    Args:
        cases: Prompts and conditions. All their jobs have motions, and so do the prompts that they compare with.
        motions: Motions in any order, one at a time.
    """
    wanted = _conditions_by_job(cases)
    values: dict[tuple, dict[int, float]] = defaultdict(dict)  # (job, condition or measure) -> seed -> number
    for job, seed, motion in motions:
        performance = Performance.of(motion.joints)
        for text, condition in wanted[job].items():
            values[job, text][seed] = condition.value(performance)
        for name, value in physical_measures(motion).items():
            values[job, name][seed] = value
    return [_result_of(case, values) for case in cases]


def _conditions_by_job(cases: Sequence[PromptCase]) -> dict[Job, dict[str, Condition]]:
    """Return the conditions of each job by their texts; prompts that conditions compare with are jobs as well."""
    wanted: dict[Job, dict[str, Condition]] = {}
    for case in cases:
        for condition in case.conditions:
            wanted.setdefault((case.prompt, case.seconds), {})[condition.text] = condition
            if condition.other is not None:
                wanted.setdefault((condition.other, case.seconds), {})[condition.text] = condition
        wanted.setdefault((case.prompt, case.seconds), {})
    return wanted


def physical_measures(motion: Motion) -> dict[str, float]:
    """Return the measures of ``PHYSICAL`` of one motion; its length only if it is too short for the others."""
    joints = motion.joints.astype(np.float64)
    if len(joints) < SHORTEST:
        return {"length": len(joints) / FPS}
    quality = {name.replace("_", " "): value for name, value in motion_quality([joints])._asdict().items()}
    return {"length": len(joints) / FPS, "speed": speed(joints), **quality}


def _result_of(case: PromptCase, values: dict[tuple, dict[int, float]]) -> CaseResult:
    job = (case.prompt, case.seconds)
    conditions = []
    for condition in case.conditions:
        limit = condition.limit
        if condition.other is not None:
            limit = float(np.mean(list(values[(condition.other, case.seconds), condition.text].values())))
        numbers = values[job, condition.text]
        conditions.append(ConditionResult(condition, limit, [numbers[seed] for seed in sorted(numbers)]))
    physical = {name: float(np.mean([*values[job, name].values()])) for name in PHYSICAL if (job, name) in values}
    return CaseResult(case, conditions, physical)
