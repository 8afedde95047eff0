"""TextToMotion: sentences in, motion out. Text encoder, generator and tokenizer in one object.

from models.pipeline import TextToMotion

model = TextToMotion.from_pretrained("checkpoints/demo")
motion = model.generate(["a person walks forward"], seeds=[0])[0]
motion.smplx85  # (T, 85) SMPL-X body parameters at 30 fps
motion.joints   # (T, 22, 3) metres, y up

for chunk in model.stream(["a person walks forward", "a person waves"]):
    chunk.joints  # the next frames, while the others are still being made
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from models.generate import Part, Request, Sampling, decode_steps, generate, resolve_guidance
from models.llama import LLaMAHF
from models.motion_vqvae import HumanVQVAE, State
from models.offload import load_offloaded
from models.optimize import check_support, optimize
from models.text_encoder import TextEncoder, load_text_encoder
from motion.features272 import check_features, features_to_smplx85, local_rotations, recover_joints_fk, recover_root
from motion.resample import FPS
from motion.skeleton import forward_kinematics
from motion.smplx import motion_to_smplx85
from utils.checkpoint import fingerprint
from utils.errors import InputError
from utils.prompts import check_prompt, parts_of

DEFAULT_SAMPLING = Sampling(temperature=0.9, top_p=0.95, guidance=None)  # None: as the model was trained for
ENCODED_TOGETHER = 256  # prompts whose text features are held at a time
Prompt = str | list[str]  # a sentence, or several that one continuous motion follows


@dataclass
class Motion:
    """One generated motion at 30 frames per second."""

    prompt: str  # the sentences of a sequence are joined by " | "
    seed: int
    tokens: np.ndarray  # (n,) int64
    features: np.ndarray  # (T, 272) float32, not normalised

    @cached_property
    def smplx85(self) -> np.ndarray:
        """(T, 85) SMPL-X body parameters; see ``motion.features272.features_to_smplx85``."""
        return features_to_smplx85(self.features)

    @cached_property
    def joints(self) -> np.ndarray:
        """(T, 22, 3) world joint positions in metres, y up, from the rotations."""
        return recover_joints_fk(self.features)


@dataclass
class MotionChunk:
    """The next frames of a motion that is still being made; chunks put together are the motion."""

    part: int  # which sentence it follows, from 0; -1 for a motion that was given to go on from
    tokens: np.ndarray  # (n,) int64
    features: np.ndarray  # (T, 272) float32, not normalised
    smplx85: np.ndarray  # (T, 85)
    joints: np.ndarray  # (T, 22, 3) metres


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
        dtype: torch.dtype = torch.float32,
        quantize: str = "none",
        compiled: bool = False,
        text_encoder_path: Path | None = None,
        device_memory: float | None = None,
    ) -> "TextToMotion":
        """Load a run folder of train_t2m.py or models/motionmillion.py: the generator, and its tokenizer in tokenizer/.

        Args:
            checkpoint: the folder. device: where everything is computed.
            dtype, quantize, compiled: of the generator; see ``models.optimize``.
            text_encoder_path: weights of the text encoder, if they are not where models/text_weights.py looks.
            device_memory: GB of the device for the generator's weights; see ``models.offload``.

        Raises:
            InputError: a part is missing or damaged, the parts do not fit together, or the device cannot do this.
        """
        checkpoint = Path(checkpoint)
        check_support(torch.device(device).type, dtype, quantize)
        for folder in (checkpoint, checkpoint / "tokenizer"):
            if not folder.is_dir():
                raise InputError(f"there is no checkpoint folder {folder}; give a run folder of train_t2m.py")
        if device_memory is None:
            generator = LLaMAHF.from_pretrained(checkpoint).to(device, dtype)
            generator = optimize(generator, dtype, quantize, compiled)
        elif quantize == "none" and not compiled:
            generator = load_offloaded(checkpoint, torch.device(device), device_memory, dtype)
        else:
            raise InputError(
                "device_memory goes neither with quantized weights nor with a compiled step; leave one out"
            )
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
        prompts: list[Prompt],
        seeds: list[int],
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: list[float | None] | None = None,
        init: np.ndarray | None = None,
        slots: int = 32,
    ) -> list[Motion]:
        """Generate one motion a prompt, in their order; arguments and errors as in ``generate_each``."""
        motions = dict(self.generate_each(prompts, seeds, sampling, seconds, init, slots))
        return [motions[number] for number in range(len(prompts))]

    def generate_each(
        self,
        prompts: list[Prompt],
        seeds: list[int],
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: list[float | None] | None = None,
        init: np.ndarray | None = None,
        slots: int = 32,
    ) -> Iterator[tuple[int, Motion]]:
        """Generate motions, each given as soon as it is made, with the number of its prompt.

        Args:
            prompts: B sentences, or lists of sentences that one continuous motion follows in turn.
            seeds: B seeds; the same prompt, seed and settings give the same motion in any company.
            sampling: Temperature, guidance and so on.
            seconds: Length of each motion (of each sentence's part in a list); None lets the generator end it.
            init: (T, 272) features of a motion to go on from; it becomes the beginning of every motion.
            slots: Motions that are made at the same time.

        Raises:
            InputError: a prompt is empty or too long, or a setting or ``init`` does not fit the checkpoint; before
                anything is generated.
        """
        context = self.start(init)
        seconds = [None] * len(prompts) if seconds is None else seconds
        if not len(prompts) == len(seeds) == len(seconds):
            raise InputError(
                f"there are {len(prompts)} prompts, {len(seeds)} seeds and {len(seconds)} lengths; give one a prompt"
            )
        self.check(prompts, sampling, seconds, context)
        # The longest first: those made together are then of like length, and no long one is left over at the end.
        order = sorted(range(len(prompts)), key=lambda number: -(seconds[number] or math.inf))
        prompts, seeds, seconds = ([values[number] for number in order] for values in (prompts, seeds, seconds))
        requests = self._requests(prompts, seeds, sampling, seconds, context)
        for number, tokens in generate(self.generator, requests, sampling, slots):
            tokens = context + tokens
            prompt = " | ".join(parts_of(prompts[number]))
            motion = Motion(prompt, seeds[number], np.array(tokens), self.decode([torch.tensor(tokens)])[0])
            yield order[number], motion

    @torch.inference_mode()
    def stream(
        self,
        prompts: Prompt,
        seed: int = 0,
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: float | None = None,
        init: np.ndarray | None = None,
    ) -> Iterator[MotionChunk]:
        """Generate one motion and yield its frames token by token, equal to what ``generate`` gives.

        Args and errors as in ``generate_each``, for one prompt; with ``init`` its frames come first.
        """
        context = self.start(init)
        self.check([prompts], sampling, [seconds], context)
        state, place = None, RootTracker()
        if context:
            features, state = self._decode_next(context, state)
            yield place.chunk(-1, context, features)
        requests = self._requests([prompts], [seed], sampling, [seconds], context)
        for step in decode_steps(self.generator, requests, sampling, slots=1):
            for _, part, token in step:
                if token is not None:
                    features, state = self._decode_next([token], state)
                    yield place.chunk(part, [token], features)

    @torch.inference_mode()
    def start(self, init: np.ndarray | None) -> list[int]:
        """Tokens of a motion (T, 272) to go on from; none without one.

        Raises:
            InputError: it is no motion, or so long that the model has no room to go on.
        """
        if init is None:
            return []
        check_features(init, "the motion to go on from")
        motion = torch.from_numpy(np.asarray(init, dtype=np.float32)).to(self.tokenizer.mean.device)
        return self.tokenizer.encode(self.tokenizer.normalize(motion)[None])[0].tolist()

    def check(self, prompts: list[Prompt], sampling: Sampling, seconds: list[float | None], context: list[int]) -> None:
        """Raise InputError if these motions cannot be made."""
        resolve_guidance(self.generator, sampling)
        room = self.generator.config.max_tokens - len(context)
        for prompt, length in zip(prompts, seconds, strict=True):
            check_prompt(prompt)
            least = self.tokens_of(length) or sampling.min_tokens
            if least > room:
                raise InputError(
                    f"the motion to go on from has {len(context)} tokens, which leaves room for {max(0, room)} of the "
                    f"{self.generator.config.max_tokens} that the checkpoint takes, and {least} are to be made; give a "
                    "shorter one, its end for example, or ask for less"
                )

    def _requests(
        self,
        prompts: list[Prompt],
        seeds: list[int],
        sampling: Sampling,
        seconds: list[float | None],
        context: list[int],
    ) -> Iterator[Request]:
        """Requests in turn; texts are encoded some at a time as they come up."""
        for first in range(0, len(prompts), ENCODED_TOGETHER):
            group = [parts_of(prompt) for prompt in prompts[first : first + ENCODED_TOGETHER]]
            features, mask = self.text_encoder.encode([sentence for sentences in group for sentence in sentences])
            texts = iter([row[kept] for row, kept in zip(features, mask, strict=True)])
            for number, sentences in enumerate(group, first):
                length = self.tokens_of(seconds[number])
                least = length or sampling.min_tokens
                most = length or sampling.max_tokens or self.generator.config.max_tokens
                yield Request([Part(next(texts), least, most) for _ in sentences], seeds[number], context)

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

    def _decode_next(self, tokens: list[int], state: State | None) -> tuple[np.ndarray, State]:
        """Features (n * frames a token, 272) of the next tokens (n) of a stream."""
        motion, state = self.tokenizer.decode_chunk(torch.tensor([tokens], device=self.tokenizer.mean.device), state)
        return self.tokenizer.denormalize(motion)[0].cpu().numpy(), state


class RootTracker:
    """Where a motion stands and which way it faces after the frames so far."""

    def __init__(self) -> None:
        self.heading, self.position = np.eye(3), np.zeros(3)

    def chunk(self, part: int, tokens: list[int], features: np.ndarray) -> MotionChunk:
        """The next frames (T, 272), put where the motion has come to."""
        exact = features.astype(np.float64)
        heading, pelvis = recover_root(exact, self.heading, self.position)
        self.heading, self.position = heading[-1], pelvis[-1]
        rotations = local_rotations(exact)
        rotations[:, 0] = heading @ rotations[:, 0]
        smplx85, joints = motion_to_smplx85(rotations, pelvis), forward_kinematics(rotations, pelvis)
        return MotionChunk(part, np.array(tokens), features, smplx85.astype(np.float32), joints.astype(np.float32))
