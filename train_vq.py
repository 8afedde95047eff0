"""Train the motion tokenizer: a HumanVQVAE that converts motion features to tokens and back.

    python train_vq.py --config configs/vq/demo.yaml --data data/bandai --out runs/vq
    python train_vq.py --config configs/vq/demo.yaml --data data/bandai --out runs/vq --model.levels "[8,5,5,5]"
    python train_vq.py --config configs/vq/demo.yaml --data data/bandai --out runs/vq --resume
    python train_vq.py --init checkpoints/demo/tokenizer --data data/mine --out runs/vq-mine    (fine-tuning)
    accelerate launch --config_file configs/accelerate/ddp.yaml train_vq.py ...    (several GPUs)

The run folder holds the tokenizer (config.json and model.safetensors, for HumanVQVAE.from_pretrained), the best one so
far (best/), the options (train.yaml), states/ for --resume, motions/ rendered at validations, and TensorBoard logs.
Prepare the data with prepare_data.py.
"""

import utils.interrupt  # noqa: F401

# isort: split

from training.options import TokenizerOptions
from utils.config import parse_options
from utils.errors import exit_on_input_error

if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        OPTIONS, OPTIONS_YAML = parse_options(TokenizerOptions, __doc__)

import numpy as np
import torch

from dataset.clips import Clips
from dataset.motion_folder import MotionFolder
from dataset.windows import WindowDataset
from evaluation.measure_tokenizer import measure_clip
from evaluation.recorded import SHORTEST
from models.motion_vqvae import HumanVQVAE
from models.reconstruction import reconstruct
from models.vq_loss import MotionLoss, frame_counts
from training.init import initial_source, initial_tokenizer
from training.loop import Loop
from training.meter import Meter
from training.run import Comparison, Run
from training.scores import reconstruction_scores


def main(options: TokenizerOptions, options_yaml: str) -> None:
    with Run(options, options_yaml) as run:
        train(run, options)


def train(run: Run, options: TokenizerOptions) -> None:
    """Train a tokenizer and save it to the run folder."""
    folder = MotionFolder(options.data)
    motions = {split: folder.motions(split, required=split == "train") for split in ("train", "val")}
    for note in [note for split in motions for note in motions[split].notes(split)]:
        run.report(note)
    windows = WindowDataset(motions["train"], options.window, options.beginnings)
    batch_order = run.batches(len(windows))
    model = initial_model(options, folder)
    validation = validation_clips(motions["val"], options.validate_clips, model.config.stride)
    if not validation:
        run.report("no validation clips: only the training loss is reported")

    loss_function = MotionLoss(options.loss)
    engine = run.prepare(model)
    meter = Meter(run, "frames", 3 * model.flops_per_frame())  # the backward pass costs two forward passes
    with Loop(run, engine, meter, run.loader(windows, batch_order)) as loop:
        for step in loop.steps():
            batches = loop.next_batches()
            frames = loop.total(frame_counts(whole_token_frames(model, lengths)) for _, lengths in batches)  # (3,)
            for features, lengths in loop.micro_batches(batches):  # (B, T, 272), (B,)
                motion = model.normalize(features)
                output = engine.wrapped(motion, lengths)
                valid = whole_token_frames(model, lengths)
                loss, terms = loss_function(output.reconstruction, motion, model.mean, model.std, valid, frames)
                loop.backward(loss + output.loss * valid.sum() / frames[0])
            scalars = loop.update(step, frames[0])

            if meter.is_log_step(step):
                scalars |= {f"loss/{name}": term for name, term in terms.items()} | {"loss/quantizer": output.loss}
                usage = {"codebook/perplexity": output.perplexity, "codebook/active": output.active_fraction}
                meter.log(step, scalars | usage)
            if run.is_validation_step(step):
                with engine.ema.applied():
                    scores = validate(run, model, validation, step)
                loop.save(step, scores)
    run.report(f"tokenizer saved to {options.out}")


def initial_model(options: TokenizerOptions, folder: MotionFolder) -> HumanVQVAE:
    """Return the model of --init with its own statistics, or a new one with the statistics of the data."""
    if options.init is not None:
        model = initial_tokenizer(initial_source(options), options.model)
        options.check_window(model.config)
        if options.only_decoder:
            model.requires_grad_(False).decoder.requires_grad_(True)
        return model
    model = HumanVQVAE(options.model)
    for statistic, values in zip((model.mean, model.std), folder.mean_std(), strict=True):
        statistic.copy_(torch.from_numpy(values))
    return model


def whole_token_frames(model: HumanVQVAE, lengths: torch.Tensor) -> torch.Tensor:
    """Round lengths in frames (B,) down to whole tokens."""
    return lengths // model.config.stride * model.config.stride


def validation_clips(motions: Clips, count: int, stride: int) -> list[tuple[str, np.ndarray]]:
    """Return names and features (T, 272) of at most ``count`` clips to validate on, of at least a token each."""
    clips = [motions[row] for row in range(min(len(motions), count))]
    read = [(clip.name, motions.valid_features(clip)) for clip in clips if clip.frames >= max(stride, SHORTEST)]
    return [(name, features) for name, features in read if features is not None]


def validate(run: Run, model: HumanVQVAE, clips: list[tuple[str, np.ndarray]], step: int) -> dict[str, float]:
    """Return the errors and physical measures of reconstructed clips, and draw the first ones."""
    own = [(measure_clip(model, clip)[0], counts) for (_, clip), counts in run.shard(clips)]
    run.draw(
        step, [Comparison(name, name, clip, reconstruct(model, clip)[1]) for name, clip in clips[: run.options.draw]]
    )
    results = run.gather([result for result, counts in own if counts])
    return reconstruction_scores(results, model.codebook_size) if results else {}


if __name__ == "__main__":
    with exit_on_input_error():
        main(OPTIONS, OPTIONS_YAML)
