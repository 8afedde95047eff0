"""TextToMotion: text encoder, generator and tokenizer in one object, from sentences to motion.

from models.pipeline import TextToMotion

model = TextToMotion.from_pretrained("checkpoints/demo")  # on a GPU, if there is one
motion = model.generate("a person walks forward")
motion.smplx85  # (T, 85) SMPL-X body parameters at 30 fps
motion.joints   # (T, 22, 3) metres, y up
motion.save("walk.bvh")

for chunk in model.stream(["a person walks forward", "a person waves"]):
    chunk.joints  # the next frames, while later frames are still being generated
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch

from control.constraints import Constraints
from models.arguments import (
    AllConstraints,
    AllSeconds,
    Asked,
    PromptLike,
    Prompts,
    Seconds,
    Seeds,
    check_types,
    lengths_of,
    per_prompt,
)
from models.checkpoints import TOKENIZER, check_tokenizer, find_checkpoint
from models.constrained import constrained_chunks, constrained_motion, goal_of, start_before
from models.controlled import Goal, decode_controlled
from models.frames import FrameStream, compiled_weights
from models.generate import Part, Request, generate
from models.known import Closest, Known
from models.llama import LLaMAHF
from models.model_card import CardOptions, rights_of_motions
from models.motion import Motion, MotionChunk
from models.motion_vqvae import HumanVQVAE
from models.offload import load_offloaded
from models.optimize import check_support, load_optimized
from models.publish import MESSAGE, publish, save_copy
from models.sampling_options import DEFAULT_SAMPLING, Sampling
from models.streams import MotionStream, StreamBatch
from models.text_encoder import TextEncoder, load_text_encoder
from motion.features272 import check_features
from motion.resample import FPS
from utils.checkpoint import fingerprint
from utils.device import choose_device
from utils.errors import InputError
from utils.prompts import Prompt

ENCODE_BATCH = 256  # prompts whose text features are in memory at a time


class _Job(NamedTuple):
    """A validated motion to generate."""

    number: int  # of the prompt in the call
    prompt: Prompt
    seed: int
    tokens: list[tuple[int, int]]  # least and greatest number per sentence
    constraints: Constraints | None
    goal: Goal | None  # of the constraints


class TextToMotion:
    """A generator with its tokenizer and text encoder."""

    def __init__(
        self,
        generator: LLaMAHF,
        tokenizer: HumanVQVAE,
        text_encoder: TextEncoder,
        checkpoint_id: str,
        folder: Path | None = None,
    ) -> None:
        config = generator.config
        if config.codebook_size != tokenizer.codebook_size:
            raise InputError(
                f"the generator has {config.codebook_size} codes and the tokenizer has {tokenizer.codebook_size}; "
                "put the tokenizer of its training into the checkpoint"
            )
        if (config.text_encoder, config.text_dim) != (text_encoder.name, text_encoder.dim):
            raise InputError(
                f"the generator was trained with {config.text_encoder} features of width {config.text_dim}, not with "
                f"{text_encoder.name} of width {text_encoder.dim}; use the encoder of its training"
            )
        self.generator, self.tokenizer, self.text_encoder = generator.eval(), tokenizer.eval(), text_encoder
        self.checkpoint_id, self.folder = checkpoint_id, folder
        self.known = None if folder is None else Known.load(folder)
        self.frame_weights: Any = None  # see models.frames
        self.rights = "" if folder is None else rights_of_motions(folder)

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        quantize: str = "none",
        compiled: bool = False,
        text_encoder_path: Path | None = None,
        device_memory: float | None = None,
        revision: str | None = None,
    ) -> "TextToMotion":
        """Load a checkpoint: a run folder of train_t2m.py, a folder converted by models/motionmillion.py, or a hub id.

        Args:
            checkpoint: Folder of the generator, with its tokenizer in the subfolder tokenizer; or the id of such a
                repository on the Hugging Face hub, user/name or user/name@revision.
            device: Device of all parts: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
            dtype, quantize, compiled: Settings of the generator; see ``models.optimize``.
            text_encoder_path: Weights of the text encoder; by default models/text_weights.py searches for them.
            device_memory: Memory in GB for the generator's weights on the device; see ``models.offload``.
            revision: Branch, tag or commit of a repository on the hub.

        Raises:
            InputError: a part is missing or damaged, the parts do not belong together, the device does not support
                the settings, or the checkpoint cannot be downloaded.
        """
        device = choose_device(str(device), "float32")[0]
        check_support(device.type, dtype, quantize)
        name, checkpoint = find_checkpoint(checkpoint, revision)
        if device_memory is None:
            generator = load_optimized(checkpoint, device, dtype, quantize, compiled)
        elif quantize == "none" and not compiled:
            generator = load_offloaded(checkpoint, device, device_memory, dtype)
        else:
            raise InputError(
                "device_memory goes neither with quantized weights nor with a compiled step; leave one out"
            )
        tokenizer = HumanVQVAE.from_pretrained(checkpoint / TOKENIZER).to(device)
        checkpoint_id = f"{name}-{fingerprint(checkpoint)}"
        check_tokenizer(checkpoint, generator.config)
        try:
            text_encoder = load_text_encoder(generator.config.text_encoder, device, text_encoder_path)
            model = cls(generator, tokenizer, text_encoder, checkpoint_id, checkpoint)
        except InputError as error:
            raise InputError(f"the checkpoint {checkpoint} cannot be used: {error}") from error
        model.frame_weights = compiled_weights(model.tokenizer)
        return model

    def save_pretrained(self, folder: str | Path, card: CardOptions | None = None) -> None:
        """Copy the files of the checkpoint into a folder, and write a model card; errors as ``push_to_hub``."""
        save_copy(self._source(), Path(folder), card)

    def push_to_hub(
        self,
        repo_id: str,
        card: CardOptions | None = None,
        private: bool = False,
        revision: str | None = None,
        commit_message: str = MESSAGE,
        token: str | None = None,
    ) -> str:
        """Upload the files of the checkpoint, unchanged, and a model card; see ``models.publish``.

        Args:
            repo_id: user/name; the repository and the branch ``revision`` are created if they do not exist.

        Returns:
            Address of the commit.

        Raises:
            InputError: the model was not loaded by ``from_pretrained``, or the upload is refused.
        """
        repository = repo_id if revision is None else f"{repo_id}@{revision}"
        return publish(self._source(), repository, card, private, commit_message, token)

    def _source(self) -> Path:
        """Folder that the model was loaded from."""
        if self.folder is None:
            raise InputError("the model has no files; save its parts, and load them with TextToMotion.from_pretrained")
        return self.folder

    @property
    def device(self) -> torch.device:
        """Device of the tokenizer."""
        return next(self.tokenizer.parameters()).device

    @property
    def frames_per_token(self) -> int:
        return self.tokenizer.config.stride

    @property
    def max_frames(self) -> int:
        """Number of frames of the longest motion."""
        return self.generator.config.max_tokens * self.frames_per_token

    def tokens_of(self, seconds: float | None) -> int | None:
        """Return the number of tokens nearest to a length in seconds; None for None.

        Raises:
            InputError: the length is not positive or exceeds the longest motion.
        """
        if seconds is None:
            return None
        longest = self.max_frames / FPS
        if not 0 < seconds <= longest:
            raise InputError(
                f"the length is {seconds} s; give more than 0 and at most {longest:.1f} s, the longest motion of the "
                "checkpoint"
            )
        return max(1, round(seconds * FPS / self.frames_per_token))

    def closest(self, sentences: Sequence[str]) -> list[Closest]:
        """Return the known caption that is closest to each sentence; none if the checkpoint does not list captions."""
        return [] if self.known is None else self.known.closest(sentences, self.text_encoder)

    @overload
    def generate(self, prompts: str | Prompt, seeds: Seeds = ..., *settings: Any, **more: Any) -> Motion: ...
    @overload
    def generate(
        self, prompts: Sequence[PromptLike], seeds: Seeds = ..., *settings: Any, **more: Any
    ) -> list[Motion]: ...
    def generate(
        self,
        prompts: Prompts,
        seeds: Seeds = 0,
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: AllSeconds = None,
        init: np.ndarray | None = None,
        slots: int = 32,
        constraints: AllConstraints = None,
    ) -> Motion | list[Motion]:
        """Generate one motion from a sentence, or one per prompt of a list, in their order.

        Arguments and errors as in ``generate_each``.
        """
        motions = dict(self.generate_each(prompts, seeds, sampling, seconds, init, slots, constraints))
        return motions[0] if isinstance(prompts, str | Prompt) else [motions[number] for number in range(len(motions))]

    def generate_each(
        self,
        prompts: Prompts,
        seeds: Seeds = 0,
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: AllSeconds = None,
        init: np.ndarray | None = None,
        slots: int = 32,
        constraints: AllConstraints = None,
    ) -> Iterator[tuple[int, Motion]]:
        """Generate motions and yield each as soon as it is finished, with the number of its prompt.

        Args:
            prompts: A sentence, or a list of B prompts: sentences, or lists of sentences that one continuous motion
                follows in turn. In a text, | separates sentences.
            seeds: B seeds, or one for all; a prompt that occurs again then takes the next seeds. A motion depends on
                prompt, seed and settings, not on the other motions.
            sampling: Temperature, guidance and so on.
            seconds: B lengths, or one for all: each of the motion or, in a sequence, of the part of each sentence, or
                a list with one length per sentence; None lets the generator end it.
            init: (T, 272) features of an initial motion; every motion begins with it.
            slots: Number of motions generated at a time.
            constraints: B constraints, or one for all; None leaves a motion free. Their times count from the first
                frame, that of ``init`` if there is one. Constrained motions are generated one by one, after the free
                ones.

        Raises:
            InputError: a prompt is empty or too long, or a setting or ``init`` does not fit the checkpoint; raised
                before anything is generated.
        """
        context = self.encode_init(init)
        jobs = [
            self._started(self._validated_job(number, asked, sampling, context), context, init)
            for number, asked in enumerate(per_prompt(prompts, seeds, seconds, constraints))
        ]
        free = [job for job in jobs if job.constraints is None]
        # Longest first: motions in the batch are then of similar length, and no long one is left over at the end.
        free.sort(key=lambda job: -sum(most for _, most in job.tokens))
        if not self.generator.static_shapes:
            slots = min(slots, len(free))
        finished = generate(self.generator, self._requests(free, context), sampling, slots) if free else iter(())
        constrained = [job for job in jobs if job.constraints is not None]
        motions = chain(self._decoded(free, context, finished), self._constrained(constrained, context, sampling))
        return ((number, replace(motion, rights=self.rights)) for number, motion in motions)

    def stream(
        self,
        prompts: PromptLike,
        seed: int = 0,
        sampling: Sampling = DEFAULT_SAMPLING,
        seconds: Seconds = None,
        init: np.ndarray | None = None,
        constraints: Constraints | None = None,
        batch: StreamBatch | None = None,
    ) -> Iterator[MotionChunk]:
        """Generate one motion and yield its frames token by token, equal to the motion of ``generate``.

        Arguments and errors as in ``generate_each``, for one prompt. The frames of ``init`` are yielded first. Streams
        without constraints in the same ``batch`` are decoded together; one thread reads all of them.
        """
        context = self.encode_init(init)
        asked = Asked(Prompt.parse(prompts), seed, seconds, constraints)
        job = self._validated_job(0, asked, sampling, context)
        job = self._started(job, context, init)
        [request] = self._requests([job], context)
        if job.goal is not None:
            return constrained_chunks(
                job.goal, decode_controlled(self.generator, self.tokenizer, request, job.goal, sampling)
            )
        batch = StreamBatch(self.generator, motions=1) if batch is None else batch
        return MotionStream(FrameStream(self.tokenizer, self.frame_weights), context, batch.start(request, sampling))

    @torch.inference_mode()
    def encode_init(self, init: np.ndarray | None) -> list[int]:
        """Return the tokens of an initial motion (T, 272); none without one.

        Raises:
            InputError: it is not a motion.
        """
        if init is None:
            return []
        init = np.asarray(init)
        check_features(init, "the initial motion")
        motion = torch.from_numpy(init.astype(np.float32)).to(self.device)
        return self.tokenizer.encode(self.tokenizer.normalize(motion)[None])[0].tolist()

    @torch.inference_mode()
    def decode(self, tokens: list[torch.Tensor]) -> list[np.ndarray]:
        """Return the features (T, 272), not normalized, of each token sequence (n,), decoded in one batch."""
        lengths = torch.tensor([len(ids) for ids in tokens])
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)  # (B, n)
        motion = self.tokenizer.decode(padded.to(self.device), lengths.to(self.device))
        motion = self.tokenizer.denormalize(motion).cpu()  # (B, T, 272)
        return [
            row[: count * self.frames_per_token].numpy() for row, count in zip(motion, lengths.tolist(), strict=True)
        ]

    def _validated_job(self, number: int, asked: Asked, sampling: Sampling, context: list[int]) -> _Job:
        check_types(asked)
        prompt, seed, seconds, constraints = asked
        limit, given = self.generator.config.max_tokens, len(context) * self.frames_per_token / FPS
        lengths = lengths_of(seconds, len(prompt.sentences))
        if constraints is not None and constraints.length is not None and not any(lengths):
            lengths = [(constraints.length - given) / len(lengths)] * len(lengths)
        least = [self.tokens_of(length) for length in lengths]
        tokens = [(count or sampling.min_tokens, count or sampling.max_tokens or limit) for count in least]
        if len(context) + tokens[0][0] > limit:
            raise InputError(
                f"the initial motion has {len(context)} tokens, which leaves room for {max(0, limit - len(context))} "
                f"of the {limit} of the checkpoint, and {tokens[0][0]} are requested; give a shorter initial motion, "
                "for example its end, or a shorter length"
            )
        goal = None
        if constraints is not None:
            frames = (len(context) + sum(most for _, most in tokens)) * self.frames_per_token
            goal = goal_of(constraints, frames, given + sum(filter(None, lengths)) if all(lengths) else None)
        return _Job(number, prompt, seed, tokens, constraints, goal)

    def _started(self, job: _Job, context: list[int], init: np.ndarray | None) -> _Job:
        """Return a job whose initial motion, decoded from its tokens, ends at the place of the given one."""
        if job.goal is None or init is None or not context:
            return job
        decoded = self.decode([torch.tensor(context)])[0]
        start = start_before(job.goal.start, decoded, np.asarray(init)[: len(decoded)])
        return job._replace(goal=job.goal._replace(start=start))

    def _requests(self, jobs: list[_Job], context: list[int]) -> Iterator[Request]:
        """Yield the requests in turn; ``ENCODE_BATCH`` prompts are encoded at a time, when their turn comes."""
        for first in range(0, len(jobs), ENCODE_BATCH):
            group = jobs[first : first + ENCODE_BATCH]
            features, mask = self.text_encoder.encode([text for job in group for text in job.prompt.sentences])
            texts = iter([row[kept] for row, kept in zip(features, mask, strict=True)])
            for job in group:
                parts = [Part(next(texts), *bounds) for bounds in job.tokens]
                yield Request(parts, job.seed, context)

    def _decoded(
        self, jobs: list[_Job], context: list[int], finished: Iterator[tuple[int, list[int]]]
    ) -> Iterator[tuple[int, Motion]]:
        for request, new_tokens in finished:
            job, tokens = jobs[request], torch.tensor(context + new_tokens)
            yield job.number, Motion(str(job.prompt), job.seed, tokens.numpy(), self.decode([tokens])[0])

    def _constrained(self, jobs: list[_Job], context: list[int], sampling: Sampling) -> Iterator[tuple[int, Motion]]:
        for job, request in zip(jobs, self._requests(jobs, context), strict=True):
            assert job.goal is not None and job.constraints is not None
            new = decode_controlled(self.generator, self.tokenizer, request, job.goal, sampling)
            yield job.number, constrained_motion(str(job.prompt), job.seed, job.constraints, job.goal, new)
