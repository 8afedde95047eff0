"""Train an evaluator: a motion encoder and a text encoder, which embed motions and captions into the same space.

    python train_evaluator.py --config configs/evaluator/demo.yaml --data data/bandai --out runs/evaluator
    python train_evaluator.py --config configs/evaluator/demo.yaml --data data/bandai --out runs/evaluator --resume

The run folder holds the evaluator (config.json and model.safetensors, for MotionTextEvaluator.from_pretrained), the
best one so far (best/), the options (train.yaml), states/ for --resume, and TensorBoard logs. Prepare the data with
prepare_data.py, and measure the result with `python -m benchmarks.evaluator`.
"""

import utils.interrupt  # noqa: F401

# isort: split

from training.options import EvaluatorOptions
from utils.config import parse_options
from utils.errors import exit_on_input_error

if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        OPTIONS, OPTIONS_YAML = parse_options(EvaluatorOptions, __doc__)

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.caption_groups import caption_groups, same_sides
from dataset.captioned_clips import CaptionedClips, collate, described_features, long_enough
from dataset.clips import Clips
from dataset.motion_folder import MotionFolder
from evaluation.evaluators.config import PATCH
from evaluation.evaluators.contrastive import MotionTextEvaluator
from evaluation.text_motion import POOL, match
from models.text_encoder import load_text_encoder
from models.text_features import CaptionFeatures
from training.loop import Loop
from training.meter import Meter
from training.run import Run

VALIDATION_REPEATS = 10  # with other captions and pools


def main(options: EvaluatorOptions, options_yaml: str) -> None:
    with Run(options, options_yaml) as run:
        train(run, options)


def train(run: Run, options: EvaluatorOptions) -> None:
    """Train an evaluator and save it to the run folder."""
    folder = MotionFolder(options.data)
    clips = {split: folder.clips(split, required=split == "train") for split in ("train", "val")}
    for note in [note for split, of_split in clips.items() for note in of_split.notes(split)]:
        run.report(note)
    items = CaptionedClips(clips["train"], options.model.min_frames, options.model.max_frames)
    batch_order = run.batches(len(items), items.lengths)
    if len(long_enough(clips["val"], options.model.min_frames)) < POOL:
        run.report(f"fewer than {POOL} validation clips: only the training loss is reported")
    captions = [caption for of_split in clips.values() for texts in captions_of(of_split) for caption in texts]
    with run.accelerator.main_process_first():  # which downloads the weights, if need be
        encoder = load_text_encoder(options.model.text_encoder, run.device, options.text_encoder_path)
    encode = run.caption_features(encoder, captions if options.cache_text_features else None)

    model = MotionTextEvaluator(options.model)
    for statistic, values in zip((model.mean, model.std), folder.mean_std(), strict=True):
        statistic.copy_(torch.from_numpy(values))
    engine = run.prepare(model)
    meter = Meter(run, "frames", 6 * sum(p.numel() for p in model.motion.parameters()) / PATCH)
    with Loop(run, engine, meter, run.loader(items, batch_order, collate)) as loop:
        for step in loop.steps():
            batches = loop.next_batches()
            count = loop.total(torch.tensor(len(captions), device=run.device) for captions, *_ in batches)
            frames = loop.total((lengths + lengths_2).sum() for _, _, _, lengths, _, lengths_2, _ in batches)
            for captions, groups, motions, lengths, corrupted, lengths_2, is_reflected in loop.micro_batches(batches):
                text, mask = encode(captions)  # (B, L, D), (B, L)
                embedded = engine.wrapped(text, mask, motions, lengths, corrupted, lengths_2)
                same = (groups[:, None] == groups) | are_equivalent(captions, text, mask, options.same_meaning)
                wrong = (lengths_2 > 0) & (same | ~is_reflected)  # a reflected copy may match other captions
                loss = contrastive_loss(*embedded, same, wrong, options.temperature)
                loop.backward(loss / count)
            scalars = loop.update(step, frames)

            if meter.is_log_step(step):
                meter.log(step, scalars)
            if run.is_validation_step(step):
                with engine.ema.applied():
                    scores = validate(model, clips, encode)
                loop.save(step, scores)
    run.report(f"evaluator saved to {options.out}")


def are_equivalent(captions: list[str], text: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """Return (B, B) booleans: whether captions are similar, as in TMR, and name the same sides.

    Args:
        captions: B captions.
        text: (B, L, D) their features.
        mask: (B, L) false at padding.
        threshold: Similarity, cosine / 2 + 0.5 of the mean features, above which captions are equivalent.
    """
    sentences = F.normalize((text * mask[..., None]).sum(dim=1), dim=-1)  # (B, D)
    is_similar = sentences @ sentences.T > 2 * threshold - 1
    return is_similar & torch.from_numpy(same_sides(captions)).to(text.device)


def contrastive_loss(
    texts: Tensor, motions: Tensor, corrupted: Tensor, same: Tensor, wrong: Tensor, temperature: float
) -> Tensor:
    """Return the InfoNCE loss of B pairs of captions and motions, summed over the pairs.

    Each caption must retrieve its motion among all motions and the corrupted ones, and each motion its caption. The
    pairs are those of one micro-batch of one process.

    Args:
        texts: (B, D) embeddings of captions, of norm 1.
        motions: (B, D) embeddings of their motions.
        corrupted: (B, D) embeddings of corrupted copies of the motions.
        same: (B, B) whether captions i and j are equivalent; then motion j is not a negative of caption i.
        wrong: (B, B) whether corrupted motion j is a negative of caption i.
        temperature: Divisor of the similarities.
    """
    own = torch.arange(len(texts), device=texts.device)
    others = same & ~torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    pairs = (texts @ motions.T / temperature).masked_fill(others, -torch.inf)  # (B, B)
    hard = (texts @ corrupted.T / temperature).masked_fill(~wrong, -torch.inf)  # (B, B)
    to_motion = F.cross_entropy(torch.cat((pairs, hard), dim=1), own, reduction="sum")
    return (to_motion + F.cross_entropy(pairs.T, own, reduction="sum")) / 2


def captions_of(clips: Clips) -> list[list[str]]:
    """Return the captions of each clip."""
    return clips.table["captions"].to_pylist()


@torch.no_grad()
def validate(model: MotionTextEvaluator, clips: dict[str, Clips], encode: CaptionFeatures) -> dict[str, float]:
    """Return R-precision of the validation clips; motions of clips with equivalent captions are interchangeable."""
    rows = long_enough(clips["val"], model.min_frames)
    if len(rows) < POOL:
        return {}
    groups = caption_groups([*captions_of(clips["val"]), *captions_of(clips["train"])])[rows]
    chosen = [clips["val"][row] for row in rows]
    motions = [described_features(clips["val"], clip)[: model.max_frames] for clip in chosen]
    embeddings = model.embed_motions(motions)  # (N, D)
    values = []
    for repeat in range(VALIDATION_REPEATS):
        random = np.random.RandomState(repeat)
        texts = model.encode_text(*encode([random.choice(clip.captions) for clip in chosen])).cpu().numpy()
        values.append(match(texts, embeddings, random.permutation(len(motions)), groups)[0])
    r_precision = np.mean(values, axis=0)  # (3,)
    top = {f"r_precision_{k}": float(value) for k, value in enumerate(r_precision, start=1)}
    return {"r_precision_misses": 1 - float(r_precision.mean())} | top


if __name__ == "__main__":
    with exit_on_input_error():
        main(OPTIONS, OPTIONS_YAML)
