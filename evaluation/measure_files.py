"""Evaluation of motion files of any system, by the metrics of evaluation/measure_t2m.py.

A motion is compared with the recorded clip that has its name, or with one that its prompt describes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataset.caption_groups import caption_groups
from evaluation.evaluators.any import groups_captions
from evaluation.evaluators.interface import Caption, Evaluator
from evaluation.files import MotionFile
from evaluation.measure_t2m import METRICS, metric_values
from evaluation.options import FilesOptions
from evaluation.physical_table import mean_quality, physical_table, quality_of
from evaluation.prompts import CaseResult, PromptCase, judge
from evaluation.protocol import measure
from evaluation.recorded import (
    Recorded,
    check_pool,
    convert,
    convert_any_length,
    converted_frames,
    describe_limits,
    draw_part,
)
from evaluation.report import Example, Report, Table, worst_and_median
from evaluation.text_motion import Embeddings
from models.pipeline import Motion

MORE = "give more files, or leave out --evaluator for physical measures only"
EXAMPLES = 6  # worst, and as many median, motions on the page


def measure_files(
    motions: Sequence[MotionFile],
    evaluator: Evaluator | None,
    recorded: Recorded | None,
    options: FilesOptions,
    report: Report,
) -> None:
    """Measure motions, and add the results to a report.

    Args:
        motions: Motions and their prompts.
        evaluator: Evaluator of the embeddings; None for physical measures only.
        recorded: Recorded clips to compare with; None for no row of real motions.
        options: Protocol, repeats and so on.
        report: Report to fill.

    Raises:
        InputError: there are fewer motions than a pool of R-precision has.
    """
    physical = {"generated": mean_quality(quality_of(motion.features) for motion in motions)}
    if recorded is not None:
        clips = (recorded.features(clip) for clip in range(len(recorded)))
        physical = {"real": mean_quality(map(quality_of, clips))} | physical
    if evaluator is None:
        speeds = np.array([row.foot_speed if (row := quality_of(motion.features)) else 0.0 for motion in motions])
        report.examples = _examples(motions, speeds, "foot speed {:.3f} m/s")
    elif recorded is None:
        _measure_alone(motions, evaluator, options, report)
    else:
        _measure_beside(motions, evaluator, recorded, options, report)
    report.tables.append(physical_table(physical))


def judge_files(motions: Sequence[MotionFile], cases: Sequence[PromptCase]) -> tuple[list[CaseResult], list[str]]:
    """Judge motions by the conditions of their prompts.

    Returns:
        The results of all prompts that have motions, and the prompts without.
    """
    by_prompt: dict[str, list[MotionFile]] = defaultdict(list)
    for motion in motions:
        by_prompt[motion.prompt].append(motion)
    known = [replace(case, seconds=None) for case in cases if case.prompt in by_prompt and all(
        condition.other is None or condition.other in by_prompt for condition in case.conditions)]  # fmt: skip
    wanted = {case.prompt for case in known} | {
        other.other for case in known for other in case.conditions if other.other
    }
    numbered = (
        ((prompt, None), number, Motion(prompt, number, np.zeros(0, np.int64), motion.features))
        for prompt in sorted(wanted)
        for number, motion in enumerate(by_prompt[prompt])
    )
    missing = {case.prompt for case in cases} - {case.prompt for case in known}
    return judge(known, numbered), sorted(missing)


def _measure_alone(motions: Sequence[MotionFile], evaluator: Evaluator, options: FilesOptions, report: Report) -> None:
    """Measure prompts and motions without recorded clips: all metrics but FID."""
    check_pool(len(motions), "motion files with a prompt", MORE)
    texts = evaluator.embed_texts([Caption(motion.prompt) for motion in motions])
    embedded = evaluator.embed_motions([convert_any_length(evaluator, motion.features) for motion in motions])
    groups = (
        caption_groups([[motion.prompt] for motion in motions])
        if groups_captions(evaluator, options.group_captions)
        else None
    )
    measured = measure(
        [Embeddings(texts, embedded, embedded, groups)] * options.repeats, options.protocol, options.seed
    )
    table = Table(f"Text-to-motion, {evaluator.name}", METRICS)
    values = metric_values(measured.generated, None)
    table.rows["generated"] = [None if column.name == "FID" else value
                               for column, value in zip(METRICS, values, strict=True)]  # fmt: skip
    report.tables.append(table)
    report.notes.append(f"{len(motions)} motions, {options.repeats} repeats, protocol {options.protocol}.")
    report.examples = _examples(motions, np.linalg.norm(texts - embedded, axis=1), "MM-Dist {:.3f}")


def _measure_beside(
    motions: Sequence[MotionFile], evaluator: Evaluator, recorded: Recorded, options: FilesOptions, report: Report
) -> None:
    """Measure motions beside the recorded clips of their names or prompts."""
    paired = pair_with_clips(motions, recorded)
    check_pool(len(paired), "motion files with a clip of their name or prompt that the evaluator takes", MORE)
    chosen = [motions[number] for number in paired]
    captions = [
        next((caption for caption in recorded.captions[clip] if caption.text == motions[number].prompt),
             Caption(motions[number].prompt)) for number, clip in paired.items()
    ]  # fmt: skip
    texts = evaluator.embed_texts(captions)
    generated = evaluator.embed_motions([convert_any_length(evaluator, motion.features) for motion in chosen])
    groups = None
    if groups_captions(evaluator, options.group_captions):
        groups = recorded.groups()[list(paired.values())]
    repeats = []
    for number in range(options.repeats):
        random = np.random.RandomState([options.seed, number])
        real = [convert(evaluator, recorded.features(clip)) for clip in paired.values()]
        real = [motion[draw_part(evaluator, len(motion), random)] for motion in real]
        repeats.append(Embeddings(texts, evaluator.embed_motions(real), generated, groups))
    table = Table(f"Text-to-motion, {evaluator.name}", METRICS)
    measured = measure(repeats, options.protocol, options.seed)
    table.rows["real"] = metric_values(measured.real, None)
    table.rows["generated"] = metric_values(measured.generated, repeats)
    report.tables.append(table)
    report.notes.append(f"{len(paired)} motions, {options.repeats} repeats, protocol {options.protocol}.")
    if len(paired) < len(motions):
        report.notes.append(
            f"{len(motions) - len(paired)} of {len(motions)} motions have no clip with their name, or their prompt as "
            "a caption, and enter the physical measures only."
        )
    limits = [converted_frames(evaluator, len(motion.features)) for motion in chosen]
    changed = sum(not evaluator.min_frames <= frames <= evaluator.max_frames for frames in limits)
    if changed:
        report.notes.append(
            f"{changed} motions are shorter or longer than {describe_limits(evaluator)}: their last pose is held, or "
            "they are cut."
        )
    report.examples = _examples(chosen, np.linalg.norm(texts - generated, axis=1), "MM-Dist {:.3f}")


def pair_with_clips(motions: Sequence[MotionFile], recorded: Recorded) -> dict[int, int]:
    """Return the clip of each motion that has one: that of its name, or the next one with its prompt as a caption."""
    by_name = {name: clip for clip, name in enumerate(recorded.names)}
    by_caption: dict[str, list[int]] = defaultdict(list)
    for clip, captions in enumerate(recorded.captions):
        for caption in captions:
            by_caption[caption.text].append(clip)
    paired = {number: by_name[motion.name] for number, motion in enumerate(motions) if motion.name in by_name}
    used = set(paired.values())
    for number, motion in enumerate(motions):
        free = [clip for clip in by_caption[motion.prompt] if clip not in used]
        if number not in paired and free:
            paired[number] = free[0]
            used.add(free[0])
    return dict(sorted(paired.items()))


def _examples(motions: Sequence[MotionFile], distances: np.ndarray, note: str) -> list[Example]:
    return [
        Example(motions[number].prompt, f"{kind}, {note.format(distances[number])}, {motions[number].name}",
                motions[number].features)
        for kind, number in worst_and_median(distances, EXAMPLES)
    ]  # fmt: skip
