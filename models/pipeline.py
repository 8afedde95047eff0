"""TextToMotion: sentences in, motion out. Text encoder, generator and tokenizer in one object.

from models.pipeline import TextToMotion

model = TextToMotion.from_pretrained("checkpoints/demo")
motion = model.generate(["a person walks forward"], seeds=[0])[0]
motion.smplx85  # (T, 85) SMPL-X body parameters at 30 fps
motion.joints   # (T, 22, 3) metres, y up
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from models.generate import Sampling, generate
from models.llama import LLaMAHF
from models.motion_vqvae import HumanVQVAE
from models.placement import load_placed
from models.text_encoder import TextEncoder, load_text_encoder
from utils.checkpoint import fingerprint
from utils.errors import InputError
from utils.motion272 import FPS, features_to_smplx85, recover_joints_fk
from utils.prompts import check_prompt

DEFAULT_SAMPLING = Sampling(temperature=0.9, top_p=0.95, guidance=2.0)  # for models trained with text dropout


@dataclass
class Motion:
    """One generated motion at 30 frames per second."""

    prompt: str
    seed: int
    tokens: np.ndarray  # (n,) int64
    features: np.ndarray  # (T, 272) float32, not normalised

    @cached_property
    def smplx85(self) -> np.ndarray:
        """(T, 85) SMPL-X body parameters; see ``utils.motion272.features_to_smplx85``."""
        return features_to_smplx85(self.features)

    @cached_property
    def joints(self) -> np.ndarray:
        """(T, 22, 3) world joint positions in metres, y up, from the rotations."""
        return recover_joints_fk(self.features)


class TextToMotion:
    """A generator with the tokenizer and the text encoder it was trained with."""

    def __init__(self, generator: LLaMAHF, tokenizer: HumanVQVAE, text_encoder: TextEncoder, checkpoint_id: str):
        config = generator.config
        if config.codebook_size != tokenizer.codebook_size:
            raise InputError(
                f"the generator writes {config.codebook_size} codes and the tokenizer has {tokenizer.codebook_size}; "
                "put the tokenizer that it was trained with into the checkpoint"
            )
        if (config.text_encoder, config.text_dim) != (text_encoder.name, text_encoder.dim):
            raise InputError(
                f"the generator was trained with {config.text_encoder} features of width {config.text_dim}, not with "
                f"{text_encoder.name} of width {text_encoder.dim}; use the encoder that it was trained with"
            )
        self.generator, self.tokenizer, self.text_encoder = generator.eval(), tokenizer.eval(), text_encoder
        self.checkpoint_id = checkpoint_id

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        device: str | torch.device = "cpu",
        text_encoder_path: Path | None = None,
        device_memory: float | None = None,
    ) -> "TextToMotion":
        """Load a run folder of train_t2m.py or models/motionmillion.py: the generator, and its tokenizer in tokenizer/.

        Args:
            checkpoint: the folder. device: where everything is computed.
            text_encoder_path: weights of the text encoder, if they are not where models/text_weights.py looks.
            device_memory: GB of the device for the generator's weights; see ``models.placement``.

        Raises:
            InputError: a part is missing or damaged, or the parts do not fit together.
        """
        checkpoint = Path(checkpoint)
        for folder in (checkpoint, checkpoint / "tokenizer"):
            if not folder.is_dir():
                raise InputError(f"there is no checkpoint folder {folder}; give a run folder of train_t2m.py")
        if device_memory is None:
            generator = LLaMAHF.from_pretrained(checkpoint).to(device)
        else:
            generator = load_placed(checkpoint, torch.device(device), device_memory)
        tokenizer = HumanVQVAE.from_pretrained(checkpoint / "tokenizer").to(device)
        checkpoint_id = f"{checkpoint.resolve().name}-{fingerprint(checkpoint)}"
        if generator.config.tokenizer not in ("", fingerprint(checkpoint / "tokenizer")):
            raise InputError(
                f"{checkpoint / 'tokenizer'} is not the tokenizer that the generator of {checkpoint} was trained with; "
                "put that one there, or train again"
            )
        try:
            text_encoder = load_text_encoder(generator.config.text_encoder, device, text_encoder_path)
            return cls(generator, tokenizer, text_encoder, checkpoint_id)
        except InputError as error:
            raise InputError(f"the checkpoint {checkpoint} cannot be used: {error}") from error

    @property
    def frames_per_token(self) -> int:
        return self.tokenizer.config.stride

    @property
    def max_frames(self) -> int:
        """The longest motion the generator makes."""
        return self.generator.config.max_tokens * self.frames_per_token

    def tokens_of(self, seconds: float | None) -> int | None:
        """The number of tokens nearest to a length in seconds; None for None.

        Raises:
            InputError: the length is not positive or longer than the generator can make.
        """
        if seconds is None:
            return None
        longest = self.max_frames / FPS
        if not 0 < seconds <= longest:
            raise InputError(
                f"a length of {seconds} s is asked for; give more than 0 and at most {longest:.1f}, "
                "the longest that the checkpoint makes"
            )
        return max(1, round(seconds * FPS / self.frames_per_token))

    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: list[float | None] | None = None,
    ) -> list[Motion]:
        """Generate one motion a prompt, all in one batch.

        Args:
            prompts: B sentences. seeds: B seeds; the same prompt, seed and settings give the same motion in any batch.
            sampling: Temperature, guidance and so on.
            seconds: Length of each motion; None lets the generator end it.

        Raises:
            InputError: a prompt is empty or too long, or a setting does not fit the checkpoint.
        """
        for prompt in prompts:
            check_prompt(prompt)
        lengths = [self.tokens_of(value) for value in seconds] if seconds else None
        tokens = generate(self.generator, *self.text_encoder.encode(prompts), seeds, sampling, lengths)
        features = self.decode(tokens)
        return [
            Motion(prompt, seed, ids.numpy(), frames)
            for prompt, seed, ids, frames in zip(prompts, seeds, tokens, features, strict=True)
        ]

    @torch.inference_mode()
    def decode(self, tokens: list[torch.Tensor]) -> list[np.ndarray]:
        """Features (T, 272), not normalised, of each token sequence (n,), decoded in one batch."""
        lengths = torch.tensor([len(ids) for ids in tokens])
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)  # (B, n)
        device = self.tokenizer.mean.device
        motion = self.tokenizer.denormalize(self.tokenizer.decode(padded.to(device), lengths.to(device))).cpu()
        return [
            row[: count * self.frames_per_token].numpy() for row, count in zip(motion, lengths.tolist(), strict=True)
        ]
