"""Train the motion tokenizer: a folder of features becomes a HumanVQVAE that turns motion into tokens and back.

    python train_vq.py --config configs/vq/demo.yaml --data data/bandai --out runs/vq
    ... the same with --resume true goes on from the last save
    accelerate launch --config_file configs/accelerate/ddp.yaml train_vq.py ...    on many GPUs

The run folder holds the tokenizer (config.json and model.safetensors, for HumanVQVAE.from_pretrained), the best one so
far (best/), the options (train.yaml), states/ for --resume, motions/ drawn at validations, and TensorBoard logs.
Prepare the data with prepare_data.py.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from dataset.motion_folder import MotionFolder
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.reconstruction import reconstruct, reconstruction_error
from models.vq_loss import MotionLoss, MotionLossConfig, frame_counts
from training.run import Training, TrainingOptions
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Options of the tokenizer training.

    Attributes:
        model: Shape of the tokenizer.
        loss: Terms of the loss and their weights.
        window: Frames of a training window; a multiple of the frames a token.
        validate_clips: At most so many whole clips are validated on.
    """

    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    loss: MotionLossConfig = field(default_factory=MotionLossConfig)
    window: PositiveInt = 64
    validate_clips: PositiveInt = 64

    def __post_init__(self):
        if self.window % self.model.stride:
            raise InputError(
                f"window {self.window} is no multiple of the {self.model.stride} frames a token; change window"
            )


def main(options: Options, options_yaml: str) -> None:
    training = Training(options, options_yaml)
    folder = MotionFolder(options.data)
    windows = WindowDataset(folder, "train", options.window)
    order = training.batches(len(windows))
    validation = validation_clips(folder, options)
    if not validation:
        training.say("no validation clips: only the training loss will be reported")

    model = HumanVQVAE(options.model)
    for statistic, values in zip((model.mean, model.std), folder.mean_std(), strict=True):
        statistic.copy_(torch.from_numpy(values))
    loss_function = MotionLoss(options.loss)
    forward = training.prepare(model, "frames", 3 * options.model.flops_per_frame())
    loader = training.loader(windows, order)
    with training:
        for step in training.steps():
            batches = training.take(loader)
            frames = training.total(frame_counts(covered(model, lengths)) for _, lengths in batches)  # (3,)
            for features, lengths in training.micro_batches(batches):  # (B, T, 272), (B,)
                motion = model.normalize(features)
                reconstruction, auxiliary, perplexity, active, _ = forward(motion, lengths)
                valid = covered(model, lengths)
                loss, terms = loss_function(reconstruction, motion, model.mean, model.std, valid, frames)
                training.backward(loss + auxiliary * valid.sum() / frames[0])
            scalars = training.update(step, frames[0])

            if training.is_logged(step):
                scalars |= {f"loss/{name}": term for name, term in terms.items()} | {"loss/quantizer": auxiliary}
                training.log(step, scalars | {"codebook/perplexity": perplexity, "codebook/active": active})
            if training.is_due(step):
                with training.average.in_use():
                    scores = validate(training, model, validation, step)
                training.save(step, scores)
    training.say(f"tokenizer saved to {options.out}")


def covered(model: HumanVQVAE, lengths: torch.Tensor) -> torch.Tensor:
    """Frames (B,) that the whole tokens of clips of ``lengths`` (B,) stand for."""
    return lengths // model.config.stride * model.config.stride


def validation_clips(folder: MotionFolder, options: Options) -> list[tuple[str, np.ndarray]]:
    """Names and features (T, 272) of the clips to validate on."""
    clips = [(name, folder.motion(name)) for name in folder.ids("val", required=False)[: options.validate_clips]]
    return [(name, clip) for name, clip in clips if len(clip) >= options.model.stride]


def validate(training: Training, model: HumanVQVAE, clips: list[tuple[str, np.ndarray]], step: int) -> dict[str, float]:
    """Reconstruction error on whole clips and the share of the codebook they use; the first clips are drawn."""
    results = [(reconstruction_error(model, clip), counts) for (_, clip), counts in training.share(clips)]
    pairs = [(name, name, clip, reconstruct(model, clip)[1]) for name, clip in clips[: training.options.draw]]
    training.draw(step, pairs)
    results = training.gather([result for result, counts in results if counts])
    if not results:
        return {}
    used = len(np.unique(np.concatenate([result.tokens for result in results])))
    turns = [abs(result.turn_error) for result in results if abs(result.turn) > 45]
    return {
        "local_mm": float(np.mean([result.local_mm for result in results])),
        "local_positions_mm": float(np.mean([result.local_positions_mm for result in results])),
        "global_mm": float(np.mean([result.global_mm for result in results])),
        "turn_error_degrees": float(np.mean(turns)) if turns else 0.0,
        "codes_used": used / model.codebook_size,
    }


if __name__ == "__main__":
    with exit_on_input_error():
        main(*parse_options(Options, __doc__))
