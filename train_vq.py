"""Train the motion tokenizer: a folder of features becomes a HumanVQVAE that turns motion into tokens and back.

    python train_vq.py --config configs/vq/demo.yaml --data data/bandai --out runs/vq
    ... the same with --resume true goes on from the last save

The run folder holds the tokenizer (config.json and model.safetensors, for HumanVQVAE.from_pretrained), train.yaml,
state.pt for --resume, and TensorBoard logs. Prepare the data with prepare_data.py.
"""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch.utils.data import DataLoader

from dataset.motion_folder import MotionFolder
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.vq_loss import MotionLoss, MotionLossConfig
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.metrics import reconstruction_error
from utils.training import Training, TrainingOptions, choose_device


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
    device, dtype, reason = choose_device(options.device, options.precision)
    print(reason)
    torch.manual_seed(options.seed)
    folder = MotionFolder(options.data)
    windows = WindowDataset(folder, "train", options.window)
    validation = [folder.motion(name) for name in folder.ids("val", required=False)[: options.validate_clips]]
    validation = [clip for clip in validation if len(clip) >= options.model.stride]
    if not validation:
        print("no validation clips: only the training loss will be reported")

    model = HumanVQVAE(options.model)
    mean, std = folder.mean_std()
    model.mean.copy_(torch.from_numpy(mean))
    model.std.copy_(torch.from_numpy(std))
    model.to(device)
    loss_function = MotionLoss(options.loss)
    training = Training(options, options_yaml, model)
    order = training.batches(len(windows))
    settings = {"num_workers": options.workers, "pin_memory": device.type == "cuda"}
    own_generator = torch.Generator()  # or the new loader of a resumed run changes the vectors that replace dead codes
    loader = iter(DataLoader(windows, batch_sampler=order, generator=own_generator, **settings))
    for step in training.steps():
        started = time.perf_counter()
        features, lengths = (part.to(device, non_blocking=True) for part in next(loader))  # (B, T, 272), (B,)
        motion = model.normalize(features)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            reconstruction, auxiliary, perplexity, active, _ = model(motion, lengths)
        covered = lengths // model.config.stride * model.config.stride  # frames that tokens stand for
        loss, terms = loss_function(reconstruction, motion, model.mean, model.std, covered)
        scalars = training.update(step, loss + auxiliary)

        if step % 20 == 0:
            scalars |= {f"loss/{name}": term for name, term in terms.items()} | {"loss/quantizer": auxiliary}
            scalars |= {"codebook/perplexity": perplexity, "codebook/active": active}
            training.log(step, scalars, lengths.sum().item() / (time.perf_counter() - started), "frames")
        if training.is_due(step):
            # A learned codebook lies in buffers, which the weight average leaves as they were.
            with torch.no_grad():
                torch._foreach_copy_(list(training.ema.model.buffers()), list(model.buffers()))
            training.save(step, validate(training.ema.model, validation) if validation else {})
    print(f"tokenizer saved to {options.out}")


def validate(model: HumanVQVAE, clips: list[np.ndarray]) -> dict[str, float]:
    """Reconstruction error on whole clips and the share of the codebook they use."""
    results = [reconstruction_error(model, clip) for clip in clips]
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
