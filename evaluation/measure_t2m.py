"""Evaluation of a text-to-motion model on the captions of a split.

Rows of the tables: the recorded clips (real), their reconstruction by the tokenizer of the model (reconstruction), and
the motions that the model generates for their captions (generated). A repeat draws a caption and a cut per clip and
generates new motions, as in the protocol of T2M; the generator determines the length of each motion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evaluation.evaluators.any import groups_captions
from evaluation.evaluators.interface import Caption, Evaluator
from evaluation.fid import unit_fid
from evaluation.generation import GeneratedMotions
from evaluation.options import ProtocolOptions
from evaluation.physical_table import mean_quality, physical_table, quality_of
from evaluation.protocol import Row, measure
from evaluation.recorded import (
    Recorded,
    check_pool,
    convert,
    convert_any_length,
    converted_frames,
    describe_limits,
    draw_part,
    hold,
)
from evaluation.report import Column, Example, Report, Table, worst_and_median
from evaluation.retrieval import Retrieval, retrieve, retrieve_by_meaning, retrieve_in_pools, similarity
from evaluation.text_motion import POOL, TOP, Embeddings, Interval, interval, multimodality
from models.reconstruction import reconstruct

MOTIONS_PER_CAPTION = 30  # for MultiModality, of which ten pairs are drawn
MULTIMODALITY = 1_000_000  # number of the first set of motions for MultiModality, beyond all repeats
TOGETHER = 512  # clips that are in memory at a time
EXAMPLES = 6  # worst, and as many median, motions on the page
METRICS = (
    *(Column(f"R@{k}") for k in range(1, TOP + 1)), Column("MM-Dist"), Column("FID"), Column("FID normalized", 5),
    Column("Diversity"), Column("MultiModality"),
)  # fmt: skip
RECALLS = (
    *(Column(f"{name}, t→m", 1) for name in ("R@1", "R@3", "R@10", "median rank")),
    *(Column(f"{name}, m→t", 1) for name in ("R@1", "R@3", "R@10", "median rank")),
)
ROWS = ("real", "reconstruction", "generated")


@dataclass
class Repeat:
    """Captions and embeddings of one repeat; row i belongs to clip i."""

    captions: list[Caption]
    texts: np.ndarray  # (N, D)
    motions: dict[str, np.ndarray]  # row of the table -> (N, D)


class T2MEvaluation:
    """Evaluation of the motions of a model against the recorded clips.

    Args:
        generated: Source of the motions.
        recorded: Clips of the split.
        evaluator: Evaluator of the embeddings.
        options: Repeats, seed, protocol and so on.

    Raises:
        InputError: there are fewer clips than a pool of R-precision has.
    """

    def __init__(self, generated: GeneratedMotions, recorded: Recorded, evaluator: Evaluator, options: ProtocolOptions):
        check_pool(len(recorded))
        self.generated, self.recorded, self.evaluator, self.options = generated, recorded, evaluator, options
        self.model = generated.model
        self.tokens: list[torch.Tensor] = []  # of each clip
        self.held = self.cut = self.made = 0  # generated motions: too short, too long, all
        self.groups = recorded.groups() if groups_captions(evaluator, options.group_captions) else None

    def run(self, report: Report) -> None:
        """Generate, measure, and add tables, notes and examples to a report."""
        repeats = [self.repeat(number) for number in range(self.options.repeats)]
        report.tables += [self.metrics(repeats), self.retrieval(repeats[0]), self.physical(repeats[0])]
        report.notes += self.notes()
        report.examples = self.examples(repeats[0])

    # --- Embeddings

    def repeat(self, number: int) -> Repeat:
        """Draw captions and cuts, generate, and embed."""
        random = np.random.RandomState([self.options.seed, number])
        captions = [options[random.randint(len(options))] for options in self.recorded.captions]
        prompts, seeds = [caption.text for caption in captions], self.seeds(number)
        texts = self.evaluator.embed_texts(captions)  # raises before anything is generated
        self.generated.generate(prompts, seeds, f"repeat {number + 1} of {self.options.repeats}")
        embedded: dict[str, list[np.ndarray]] = {name: [] for name in ROWS}
        for first in range(0, len(self.recorded), TOGETHER):
            motions: dict[str, list[np.ndarray]] = {name: [] for name in ROWS}
            for clip in range(first, min(first + TOGETHER, len(self.recorded))):
                real = self.recorded.features(clip)
                part = draw_part(self.evaluator, converted_frames(self.evaluator, len(real)), random)
                motions["real"].append(convert(self.evaluator, real)[part])
                motions["reconstruction"].append(convert(self.evaluator, self.reconstruction(clip, real))[part])
                motions["generated"].append(self.fitted(self.generated.features(prompts[clip], seeds[clip])))
            for name, rows in motions.items():
                embedded[name].append(self.evaluator.embed_motions(rows))
        return Repeat(captions, texts, {name: np.concatenate(rows) for name, rows in embedded.items()})

    def seeds(self, number: int) -> list[int]:
        """Return the seeds of a set of motions, which depend on the place of the clips in their split."""
        first = self.options.seed + number * len(self.recorded.clips)
        return [first + row for row in self.recorded.rows]

    def reconstruction(self, clip: int, real: np.ndarray) -> np.ndarray:
        """Return a clip (T, 272) decoded from its tokens; its last pose is held to encode whole tokens."""
        tokenizer = self.model.tokenizer
        if len(self.tokens) == clip:
            stride = tokenizer.config.stride
            self.tokens.append(reconstruct(tokenizer, hold(real, -(-len(real) // stride) * stride))[0])
        return self.model.decode([self.tokens[clip]])[0][: len(real)]

    def fitted(self, motion: np.ndarray) -> np.ndarray:
        """Convert a generated motion (T, 272) to features of the evaluator, and count it if its length is changed."""
        frames = converted_frames(self.evaluator, len(motion))
        self.held += frames < self.evaluator.min_frames
        self.cut += frames > self.evaluator.max_frames
        self.made += 1
        return convert_any_length(self.evaluator, motion)

    # --- Tables

    def metrics(self, repeats: Sequence[Repeat]) -> Table:
        """Return the metrics of the protocol, as means over the repeats with their intervals."""
        table = Table(f"Text-to-motion, {self.evaluator.name}", METRICS)
        for name in ROWS[1:]:
            embeddings = [Embeddings(row.texts, row.motions["real"], row.motions[name], self.groups) for row in repeats]
            measured = measure(embeddings, self.options.protocol, self.options.seed)
            if name == ROWS[1]:
                table.rows["real"] = metric_values(measured.real, None)
            modes = self.multimodality() if name == "generated" and self.options.multimodality else None
            table.rows[name] = metric_values(measured.generated, embeddings, modes)
        return table

    def multimodality(self) -> Interval:
        """Generate many motions per caption and return their MultiModality over the draws of all repeats."""
        random = np.random.RandomState([self.options.seed, MULTIMODALITY])
        clips = random.permutation(len(self.recorded))[: self.options.multimodality]
        captions = [self.recorded.captions[clip] for clip in clips]
        prompts = [options[random.randint(len(options))].text for options in captions]
        seeds = [np.array(self.seeds(MULTIMODALITY + number))[clips].tolist() for number in range(MOTIONS_PER_CAPTION)]
        self.generated.generate(prompts * len(seeds), sum(seeds, []), "MultiModality")
        embeddings = []
        for row in seeds:
            motions = [self.fitted(self.generated.features(*key)) for key in zip(prompts, row, strict=True)]
            embeddings.append(self.evaluator.embed_motions(motions))
        drawn = [multimodality(np.stack(embeddings, axis=1), seed=seed) for seed in range(self.options.repeats)]
        return interval(np.array(drawn))

    def retrieval(self, repeat: Repeat) -> Table:
        """Return retrieval in TMR's protocols, of the first repeat."""
        features, mask = self.model.text_encoder.encode([caption.text for caption in repeat.captions])
        mask = mask[..., None].to(features.dtype)
        sentences = ((features * mask).sum(dim=1) / mask.sum(dim=1)).float().cpu().numpy()
        table = Table("Retrieval, text to motion and motion to text, first repeat", RECALLS)
        for name in ROWS:
            cosines = similarity(repeat.texts, repeat.motions[name])
            table.rows[f"{name}, all"] = _recalls(retrieve(cosines))
            table.rows[f"{name}, same meaning"] = _recalls(retrieve_by_meaning(cosines, sentences))
            table.rows[f"{name}, groups of {POOL}"] = _recalls(retrieve_in_pools(cosines, self.options.seed))
        return table

    def physical(self, repeat: Repeat) -> Table:
        """Return the physical measures of all clips, and of the motions of the first repeat."""
        rows: dict[str, list] = {name: [] for name in ROWS}
        for clip, (caption, seed) in enumerate(zip(repeat.captions, self.seeds(0), strict=True)):
            real = self.recorded.features(clip)
            motions = (real, self.reconstruction(clip, real), self.generated.features(caption.text, seed))
            for name, motion in zip(ROWS, motions, strict=True):
                rows[name].append(quality_of(motion))
        return physical_table({name: mean_quality(row) for name, row in rows.items()})

    # --- Notes and examples

    def notes(self) -> list[str]:
        """Return sentences on the conditions of the numbers."""
        options, limits = self.options, describe_limits(self.evaluator)
        notes = [
            f"{len(self.recorded)} clips, {options.repeats} repeats, protocol {options.protocol}; ± is the half width "
            "of the 95 % interval."
        ]
        if left_out := self.recorded.describe_left_out():
            notes.append(f"Left out: {left_out}.")
        if self.groups is not None:
            notes.append("Clips that share a caption are correct answers to each other's captions.")
        if self.held:
            notes.append(
                f"{self.held} of {self.made} generated motions are shorter than {limits}: their last pose is held."
            )
        if self.cut:
            notes.append(f"{self.cut} of {self.made} generated motions are longer and are cut.")
        return notes

    def examples(self, repeat: Repeat) -> list[Example]:
        """Return the generated motions farthest from their captions, and those in the middle."""
        distances = np.linalg.norm(repeat.texts - repeat.motions["generated"], axis=1)
        return [
            Example(caption.text, f"{kind}, MM-Dist {distances[clip]:.3f}, seed {seed}",
                    self.generated.features(caption.text, seed))
            for kind, clip in worst_and_median(distances, EXAMPLES)
            for caption, seed in [(repeat.captions[clip], self.seeds(0)[clip])]
        ]  # fmt: skip


def metric_values(
    row: Row, repeats: Sequence[Embeddings] | None, multimodality: Interval | None = None
) -> list[Interval | None]:
    """Return the values of the columns ``METRICS``; normalized FID needs the embeddings of the repeats."""
    normalized = None
    if repeats is not None:
        normalized = interval(np.array([unit_fid(each.real, each.generated) for each in repeats]))
    precisions = [Interval(*values) for values in zip(*row.r_precision, strict=True)]
    return [*precisions, row.mm_dist, row.fid, normalized, row.diversity, multimodality]


def _recalls(retrieval: Retrieval) -> list[float]:
    """Return R@1, R@3, R@10 and the median rank of both directions."""
    return [value for side in retrieval for value in (*side.recall[[0, 2, 4]].tolist(), side.median_rank)]
