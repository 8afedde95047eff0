"""Generate motions from prompts: SMPL-X parameters as .npz, videos, and files for 3-D tools.

    python inference_batch.py --prompt "a person walks forward" --out-dir outputs
    python inference_batch.py --prompts assets/demo_prompts.txt --samples 2 --save npz,bvh,glb,html --out-dir outputs

Each motion is written as NAME.npz (smplx_85, joints, features, tokens, fps, prompt, seed, checkpoint, and the keys of
AMASS) as soon as it is generated, and as NAME.mp4, NAME.bvh and so on. results.json lists all motions; with html,
gallery.html shows them, and with sheet, contact_sheet.png. A second run resumes: it skips motions that are already in
the folder.
"""

import utils.interrupt  # noqa: F401

# isort: split

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from formats.fbx import find_blender
from formats.import_options import ImportOptions, LengthUnit, UpAxis
from models.sampling_options import DEFAULT_SAMPLING, Sampling
from models.sources import check_checkpoint
from utils.config import bounded, parse_options
from utils.errors import InputError, counted, exit_on_input_error
from utils.prompts import MAX_SAMPLES, MAX_SEED, Prompt, PromptItem, expand, read_prompts
from visualize.options import FORMATS, VIDEOS, VIEWS, PictureSide, smplx_file

if TYPE_CHECKING:
    Seed, Samples, Probability = int, int, float
else:
    Samples = bounded("Samples", int, (">=", 1), ("<=", MAX_SAMPLES))
    Seed = bounded("Seed", int, (">=", 0), ("<=", MAX_SEED - 1))
    Probability = bounded("Probability", float, (">", 0), ("<=", 1))


@dataclass
class Options:
    """Options of batch inference."""

    prompts: Path | None = None
    """Prompt file: .txt (a prompt per line), or .jsonl, .json, .csv, .tsv with prompt, name, seed, length (seconds) and
    constraints."""
    prompt: str | None = None
    """Single prompt, in place of a prompt file; '|' separates the sentences of one continuous motion."""
    list_actions: bool = False
    """List the actions that the checkpoint knows, or some captions of its training, and exit."""
    checkpoint: str = "checkpoints/demo"
    """Text-to-motion model: a folder, as train_t2m.py writes it, or an id of the Hugging Face hub: user/name or
    user/name@revision."""
    out_dir: Path = Path("outputs")
    """Folder for the results; created if missing."""
    save: str = "npz,mp4"
    """Formats to write, separated by commas: npz (always written), mp4, gif, bvh, glb, fbx (needs
    Blender), html (adds gallery.html), sheet (contact_sheet.png, poses of all motions)."""
    view: Literal["mesh", "skeleton", "both"] = "mesh"
    """Content of videos: the shaded body (mesh), the skeleton, or both; skeleton videos are named NAME_skeleton.mp4."""
    samples: Samples = 1
    """Number of motions per prompt, with successive seeds (variations in the web app)."""
    seed: Seed = 0
    """Seed of the first sample; the same prompt, seed and settings give the same motion."""
    seconds: PositiveFloat | None = None
    """Length of each motion in seconds (length in prompt files); by default, the generator ends the motion."""
    constraints: Path | None = None
    """.yaml or .json file with poses, paths, pinned joints and so on (docs/control.md), for all prompts without
    constraints of their own."""
    temperature: NonNegativeFloat = DEFAULT_SAMPLING.temperature
    """Temperature of sampling; 0 selects the most likely token (greedy)."""
    top_k: NonNegativeInt = DEFAULT_SAMPLING.top_k
    """Sample from the k most likely tokens; 0 disables it."""
    top_p: Probability = DEFAULT_SAMPLING.top_p
    """Sample from the smallest set of most likely tokens whose total probability reaches this value (nucleus sampling);
    1 disables it."""
    guidance: NonNegativeFloat | None = DEFAULT_SAMPLING.guidance
    """Scale of classifier-free guidance; larger values follow the text more closely, 1 disables it. Default: 2, or 1 if
    the model was trained without text dropout."""
    init_motion: Path | None = None
    """Motion file to continue (any .npz, .bvh, .glb, .fbx or .npy that visualize.export reads); every generated motion
    begins with it. Needs a generator trained with --joined."""
    init_skeleton: Path | None = None
    """YAML file that maps the joints of a .bvh, .glb or .fbx in --init-motion to the 22 SMPL-X joints; by default
    joints are found by name and hierarchy."""
    init_animation: str | None = None
    """Name of the animation to read from a .glb or .fbx with several in --init-motion."""
    init_up: UpAxis | None = None
    """Axis that points up in --init-motion; by default it is inferred from the motion."""
    init_units: LengthUnit | None = None
    """Length unit of the positions in --init-motion; by default it is inferred from the bone lengths."""
    init_fps: PositiveFloat | None = None
    """Frame rate of --init-motion in frames per second; by default the rate stated in the file."""
    init_force: bool = False
    """Skip the plausibility check of --init-motion, which refuses for example knees that bend the wrong way."""
    batch_size: PositiveInt = 32
    """Number of motions generated at the same time; finished ones are replaced by waiting prompts."""
    dtype: Literal["auto", "float32", "bf16", "float16"] = "auto"
    """Precision of the generator (--precision in the training scripts); auto is float32 on a CPU and bf16 on a GPU
    (float16 if the GPU lacks bf16)."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Quantization of the generator's weights, best for one or a few motions at a time; int8 and int4 (CUDA only) need
    bf16, which --dtype auto then selects."""
    compiled: bool = False
    """Compile the decode step with torch.compile; the first motions take longer."""
    size: PictureSide = 512
    """Width and height of videos in pixels."""
    foot_lock: bool = True
    """Remove foot sliding (adjusts hip, knee and ankle rotations) in all results except features and tokens. Motions
    with constraints are left as they are, because their poses are exact."""
    body_model: Literal["mannequin", "smplx"] | None = None
    """Body model to draw; by default smplx if --smplx-path is given, else mannequin."""
    smplx_path: Path | None = None
    """SMPL-X model file, or the folder that contains SMPLX_NEUTRAL.npz."""
    text_encoder_path: Path | None = None
    """Folder of the text encoder's weights. By default, checkpoints/<name>, the Hugging Face cache and the Hugging Face
    hub are searched, in this order."""
    rewrite_model: str | None = None
    """Chat model (folder or Hugging Face id) that rewrites each prompt first; the rewritten text is saved as well."""
    device_memory: PositiveFloat | None = None
    """Device memory for the generator's weights in GB; the remaining layers are copied to the device at each step.
    Cannot be combined with --quantize or --compiled."""
    overwrite: bool = False
    """Generate all motions and draw all their files again, even if they are in the folder."""
    workers: PositiveInt = os.cpu_count() or 1
    """Number of processes on this machine that draw videos and write other files. (default: number of CPU cores)"""
    device: str = "auto"
    """Device of the models: auto, cpu, cuda, cuda:1, ..."""

    def __post_init__(self):
        if (self.prompts is None) == (self.prompt is None) and not self.list_actions:
            raise InputError("give either --prompts FILE or --prompt TEXT")
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown:
            raise InputError(f"--save {unknown[0]} is unknown; use {', '.join(FORMATS)}")
        if "fbx" in self.formats:
            find_blender()
        if self.smplx_path is not None or self.body_model == "smplx":
            smplx_file(self.smplx_path)
        if self.smplx_path is not None and self.body_model == "mannequin":
            raise InputError("--body-model is mannequin, which --smplx-path does not go with; leave one of them out")
        check_checkpoint(self.checkpoint)

    @property
    def formats(self) -> list[str]:
        return [word.strip() for word in self.save.split(",") if word.strip()]

    @property
    def video_views(self) -> list[str]:
        """Views to draw videos of; none if no video is saved."""
        if not set(self.formats) & set(VIDEOS):
            return []
        return list(VIEWS) if self.view == "both" else [self.view]

    @property
    def shows_body(self) -> bool:
        """Whether a format is saved that shows the body."""
        return "mesh" in self.video_views or bool({"glb", "fbx", "html", "sheet"} & set(self.formats))

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance=self.guidance)


if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        OPTIONS = parse_options(Options, __doc__)[0]

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from control.constraints import Constraints
from control.of_prompts import read_all_constraints
from control.report import measure
from formats.clip import read_clip
from models.known import Closest, find_known
from models.motion import Motion
from models.pipeline import TextToMotion
from models.rewrite import rewrite_prompts
from models.sampling import resolve_guidance
from motion.foot_lock import lock_feet
from motion.smplx import smplx85_to_motion
from utils.device import choose_device
from utils.language import language_warning
from utils.processes import exit_on_sigterm
from visualize.body import body_from_options
from visualize.output_folder import OutputFolder, check_writable, output_folder_in_use
from visualize.renderers import Renderers

STOPPED = "stopped on SIGTERM; finished motions are kept and listed: run the same command again to continue"


def main(options: Options) -> None:
    if options.list_actions:
        print(find_known(options.checkpoint))
        return
    folder = options.prompts.parent if options.prompts is not None else Path()
    items, constraints = read_all_constraints(read_items(options), options.constraints, folder)
    init = read_initial_motion(options) if options.init_motion else None
    check_writable(options.out_dir)
    if options.smplx_path is not None and options.shows_body:
        body_from_options(options.body_model, options.smplx_path)  # an unusable body is refused before generation
    processes = PartialState(cpu=not torch.cuda.is_available())  # `accelerate launch` starts several
    share = items[processes.process_index :: processes.num_processes]
    if processes.is_main_process and options.rewrite_model is None:
        warn_of_languages(items)
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # set by torchrun and Accelerate
    workers = max(1, min(options.workers // processes_here, len(share)))
    with (
        exit_on_sigterm(STOPPED),
        output_folder_in_use(options.out_dir, options.formats) as folder_in_use,
        Renderers(workers, options.size, options.smplx_path, options.video_views) as renderers,
    ):
        model, device, dtype = load_model(options, processes)
        sampling = resolve_guidance(model.generator, options.sampling)
        settings = settings_of(options, sampling, dtype, init, model)
        folder = OutputFolder(
            folder_in_use, options.formats, options.video_views, model.checkpoint_id, settings, model.rights
        )
        todo = select_missing(folder, share, renderers, options.overwrite)
        texts = rewrite_prompts(options.rewrite_model, [item.prompt for item in todo], device)
        prompts = [texts.get(item.prompt, item.prompt) for item in todo]
        closest = find_closest(model, prompts, processes)
        try:
            seeds, seconds = [item.seed for item in todo], [item.seconds for item in todo]
            given = [constraints.get(item.name) for item in todo]
            motions = model.generate_each(prompts, seeds, sampling, seconds, init, options.batch_size, given)
            save_each(motions, todo, constraints, closest, options.foot_lock, folder, renderers)
            drawn = renderers.finish()
        except BaseException:
            if folder.finished:
                with suppress(InputError):  # the first error is reported
                    folder.write_results(folder.finished, {})
            raise
        failures = dict(gather_object(list(drawn.items())))
        if processes.is_main_process:
            results = folder.write_results(items, failures)
            print(f"{counted(len(items), 'motion')} in {options.out_dir}, listed in {results}")
            overviews = folder.write_overviews(options.body_model, options.smplx_path)
            if overviews:
                print(f"open {' and '.join(map(str, overviews))}")
    if failures:
        file, why = next(iter(failures.items()))
        raise InputError(f"{len(failures)} files could not be made, {file} first: {why}; fix the cause and run again")


def load_model(options: Options, processes: PartialState) -> tuple[TextToMotion, torch.device, torch.dtype]:
    """Load the checkpoint; returns it with the device of this process and the data type of its arithmetic."""
    several = processes.num_processes > 1 and options.device == "auto"  # one GPU per process
    device, dtype, reason = choose_device(
        str(processes.device) if several else options.device,
        options.dtype,
        training=False,
        quantized=options.quantize != "none",
    )
    print(reason)
    model = TextToMotion.from_pretrained(
        options.checkpoint,
        device,
        dtype=dtype,
        quantize=options.quantize,
        compiled=options.compiled,
        text_encoder_path=options.text_encoder_path,
        device_memory=options.device_memory,
    )
    return model, device, dtype


def read_items(options: Options) -> list[PromptItem]:
    """The motions to generate: prompt, name, seed and, if one is given, length."""
    if options.prompts is not None:
        items = read_prompts(options.prompts, options.seed, options.samples)
    else:
        items = expand([{"prompt": str(Prompt.parse(options.prompt))}], options.seed, options.samples)
    return [replace(item, seconds=item.seconds or options.seconds) for item in items]


def warn_of_languages(items: Sequence[PromptItem]) -> None:
    """Print one line to the standard error about prompts that are not in English."""
    if warning := language_warning(item.prompt for item in items):
        print(warning, file=sys.stderr)


def read_initial_motion(options: Options) -> np.ndarray:
    """Return the features (T, 272) of --init-motion; errors name the options of this script."""
    reading = ImportOptions(
        up=options.init_up,
        units=options.init_units,
        fps=options.init_fps,
        animation=options.init_animation,
        force=options.init_force,
    )
    try:
        clip = read_clip(options.init_motion, options.init_skeleton, reading)
    except InputError as error:
        raise InputError(re.sub(r"--(skeleton|up|units|fps|animation|force)\b", r"--init-\1", str(error))) from error
    for note in clip.notes:
        print(f"note: {options.init_motion}: {note}")
    return clip.features()


def settings_of(
    options: Options, sampling: Sampling, dtype: torch.dtype, init: np.ndarray | None, model: TextToMotion
) -> str:
    """All that a motion depends on besides prompt, seed, length and constraints, as JSON."""
    settings = {"checkpoint": model.checkpoint_id, **asdict(sampling)}
    settings["max_tokens"] = sampling.max_tokens or model.generator.config.max_tokens
    settings["dtype"] = str(dtype).removeprefix("torch.")
    settings["quantize"] = options.quantize
    settings["rewrite_model"] = options.rewrite_model
    settings["foot_lock"] = options.foot_lock
    settings["init"] = "" if init is None else hashlib.sha256(init.tobytes()).hexdigest()[:16]
    return json.dumps(settings, sort_keys=True)


def select_missing(
    folder: OutputFolder, items: Sequence[PromptItem], renderers: Renderers, overwrite: bool
) -> list[PromptItem]:
    """Return the items to generate, and draw the missing files of the others."""
    complete = {item.name: not overwrite and folder.is_complete(item) for item in items}
    todo = [item for item in items if not complete[item.name]]
    if len(todo) < len(items):
        print(f"{len(items) - len(todo)} of {len(items)} motions are in {folder.path} already")
    kept = sum(folder.draw_missing(item, renderers) for item in items if complete[item.name])
    if kept:
        print(f"{kept} other files are kept as they are; --overwrite draws them again")
    replaced = sum(folder.motion_file(item).is_file() for item in todo)
    if replaced and not overwrite:
        print(f"{replaced} motions are generated again: damaged, or of another prompt, checkpoint or settings")
    return todo


def find_closest(model: TextToMotion, prompts: Sequence[str], processes: PartialState) -> dict[str, Closest]:
    """Return the known caption closest to each sentence, and warn of those that are far from all of them."""
    sentences = dict.fromkeys(sentence for prompt in prompts for sentence in Prompt.parse(prompt).sentences)
    closest = model.closest(list(sentences))
    far = gather_object([str(each) for each in closest if each.is_far])
    for warning in dict.fromkeys(far) if processes.is_main_process else ():
        print(warning, file=sys.stderr)
    return {each.sentence: each for each in closest}


def save_each(
    motions: Iterator[tuple[int, Motion]],
    items: Sequence[PromptItem],
    constraints: dict[str, Constraints],
    closest: dict[str, Closest],
    foot_lock: bool,
    folder: OutputFolder,
    renderers: Renderers,
) -> None:
    """Save each motion and draw its files; the errors of constraints are those of the saved motion."""
    started = time.perf_counter()
    for number, motion in motions:
        item = items[number]
        smplx85 = lock_feet(motion.smplx85) if foot_lock and item.name not in constraints else motion.smplx85
        errors = []
        if item.name in constraints:
            errors = [error.to_dict() for error in measure(constraints[item.name], *smplx85_to_motion(smplx85))]
        sentences = [closest[text].to_dict() for text in Prompt.parse(motion.prompt).sentences if closest]
        folder.save(item, smplx85, motion.features, motion.tokens, motion.prompt, errors, sentences)
        folder.draw_missing(item, renderers)
    if items:
        print(f"{counted(len(items), 'motion')} generated in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    with exit_on_input_error():
        main(OPTIONS)
