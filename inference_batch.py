"""Turn sentences into motion: files of numbers, videos, and files that other tools open.

    python inference_batch.py --prompt "a person walks forward" --out-dir outputs
    python inference_batch.py --prompts assets/demo_prompts.txt --samples 2 --save npz,bvh,glb,html --out-dir outputs

Each motion becomes NAME.npz (smplx_85, joints, features, tokens, fps, prompt, seed, checkpoint, and the keys of AMASS),
NAME.mp4 and so on; results.json lists them all, and with html gallery.html shows them all. Motions are on disk as soon
as they are made, and running again skips what is there.
"""

import hashlib
import json
import os
import re
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from formats.clip import read_clip
from formats.import_options import ImportOptions, LengthUnit, UpAxis
from models.generate import Sampling, resolve_guidance
from models.pipeline import DEFAULT_SAMPLING, Motion, TextToMotion
from models.rewrite import rewrite_prompts
from motion.foot_lock import lock_feet
from motion.resample import FPS
from utils.config import parse_options
from utils.device import choose_device
from utils.errors import InputError, exit_on_input_error
from utils.files import atomic_write
from utils.prompts import MAX_SEED, PromptItem, check_prompt, expand, read_prompts
from visualize.body import body_from_options, smplx_file
from visualize.export import motion_arrays
from visualize.page import write_results_gallery
from visualize.renderers import Renderers
from visualize.video import check_side

VIDEOS, FILES = ("mp4", "gif"), ("bvh", "glb", "html")
FORMATS = ("npz", *VIDEOS, *FILES)
RESULTS = "results.json"


@dataclass
class Options:
    """Options of batch inference.

    Attributes:
        prompts: File of prompts: text with one a line, or .jsonl with prompt and optionally name, seed, length in s.
        prompt: One prompt, instead of a file.
        checkpoint: Folder of a text-to-motion model.
        out_dir: Folder for the results.
        save: What to write, separated by commas: npz (always written), mp4, gif, bvh, glb, html (and gallery.html).
        view: What videos show: mesh, skeleton or both.
        samples: Motions a prompt, with successive seeds.
        seed: Of the first sample; the same prompt, seed and settings give the same motion.
        seconds: Length of every motion; without it the generator ends each by itself.
        temperature: Of sampling; 0 takes the likeliest token.
        top_k: Sample among the k likeliest tokens; 0 for all.
        top_p: Sample among the likeliest tokens of this total probability.
        guidance: Classifier-free guidance scale, 1 for none; without it 2, or 1 if the model was trained for none.
        init_motion: Motion file to go on from (.npz of ours or AMASS, .bvh, .npy); every motion begins with it.
        init_skeleton: YAML file that maps the joints of a .bvh to ours, where their names do not tell.
        init_up: Axis that points up in that file: x, y, z, -x, -y or -z; by default it is decided from the motion.
        init_units: Length unit of the positions in that file: m, cm, mm, in or ft; by default the bones tell.
        init_fps: Frames per second of that file; by default those that it names.
        init_force: Take initial motion that no person makes, such as knees that bend forward.
        batch_size: Motions that are made at the same time; what is finished makes room for what waits.
        dtype: Precision of the generator: auto (float32 on a CPU, else bf16 or float16), float32, bf16 or float16.
        quantize: Its weights: none, int8 or its smaller sibling int4 (CUDA only); both go with bf16, which auto gives.
        compiled: Compile its step with torch.compile; the first motions wait for it.
        size: Width and height of videos in pixels.
        foot_lock: Keep feet that stand on the floor from sliding (in all but features and tokens).
        body_model: mannequin, or smplx with its file in smplx_path; without it, whichever smplx_path tells.
        smplx_path: Folder or file of SMPL-X.
        text_encoder_path: Weights of the text encoder, if neither in checkpoints/<name> nor in the Hugging Face cache.
        rewrite_model: Chat model (folder or hub id) that rewrites each prompt first; what it wrote is saved too.
        device_memory: GB of the device for the generator's weights; the layers beyond are fetched at each step.
        overwrite: Make again what is there already; videos are also made again when their motion is newer.
        workers: Processes on this machine that render videos.
        device: auto, cpu, cuda, cuda:1, ...
    """

    prompts: Path | None = None
    prompt: str | None = None
    checkpoint: Path = Path("checkpoints/demo")
    out_dir: Path = Path("outputs")
    save: str = "npz,mp4"
    view: str = "mesh"
    samples: int = 1
    seed: int = 0
    seconds: float | None = None
    temperature: float = DEFAULT_SAMPLING.temperature
    top_k: int = DEFAULT_SAMPLING.top_k
    top_p: float = DEFAULT_SAMPLING.top_p
    guidance: float | None = DEFAULT_SAMPLING.guidance
    init_motion: Path | None = None
    init_skeleton: Path | None = None
    init_up: UpAxis | None = None
    init_units: LengthUnit | None = None
    init_fps: float | None = None
    init_force: bool = False
    batch_size: int = 32
    dtype: Literal["auto", "float32", "bf16", "float16"] = "auto"
    quantize: Literal["none", "int8", "int4"] = "none"
    compiled: bool = False
    size: int = 512
    foot_lock: bool = False
    body_model: str | None = None
    smplx_path: Path | None = None
    text_encoder_path: Path | None = None
    rewrite_model: str | None = None
    device_memory: float | None = None
    overwrite: bool = False
    workers: int = os.cpu_count() or 1
    device: str = "auto"

    def __post_init__(self):
        if (self.prompts is None) == (self.prompt is None):
            raise InputError("give either --prompts FILE or --prompt TEXT")
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown:
            raise InputError(f"--save knows no {unknown[0]!r}; use {', '.join(FORMATS)}")
        if self.view not in ("mesh", "skeleton", "both"):
            raise InputError(f"--view {self.view} is unknown; use mesh, skeleton or both")
        for name in ("samples", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; give at least 1")
        if self.device_memory is not None and not self.device_memory > 0:
            raise InputError(f"--device-memory is {self.device_memory:g}; give GB above 0")
        if not 0 <= self.seed < MAX_SEED:
            raise InputError(f"--seed is {self.seed}; give 0 to {MAX_SEED - 1}")
        check_side(self.size)
        if self.smplx_path is not None or self.body_model == "smplx":
            smplx_file(self.smplx_path)
        if self.body_model not in (None, "smplx" if self.smplx_path else "mannequin"):
            raise InputError(f"--body-model is {self.body_model}; give mannequin, or smplx with its --smplx-path")
        if not self.checkpoint.is_dir():
            raise InputError(f"there is no checkpoint folder {self.checkpoint}; give one made by train_t2m.py")

    @property
    def formats(self) -> list[str]:
        return [word.strip() for word in self.save.split(",") if word.strip()]

    @property
    def video_views(self) -> list[str]:
        """What videos are to be drawn of; nothing if none is saved."""
        if not set(self.formats) & set(VIDEOS):
            return []
        return ["mesh", "skeleton"] if self.view == "both" else [self.view]

    @property
    def shows_body(self) -> bool:
        """Whether a file is saved that the body is seen in."""
        return "mesh" in self.video_views or bool({"glb", "html"} & set(self.formats))

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance=self.guidance)


def main(options: Options) -> None:
    items = read_items(options)
    init = init_features(options) if options.init_motion else None
    check_writable(options.out_dir)
    if options.smplx_path is not None and options.shows_body:
        body_from_options(options.body_model, options.smplx_path)  # what is wrong with it is told before generation
    processes = PartialState(cpu=not torch.cuda.is_available())  # several by `accelerate launch`: each makes its share
    ours = items[processes.process_index :: processes.num_processes]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes on this machine, as torchrun and Accelerate tell
    workers = max(1, min(options.workers // local, len(ours)))
    with Renderers(workers, options.size, options.smplx_path, options.video_views) as renderers:
        several = processes.num_processes > 1 and options.device == "auto"  # each has a GPU of its own
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
            dtype,
            options.quantize,
            options.compiled,
            options.text_encoder_path,
            options.device_memory,
        )
        settings = settings_of(options, model, dtype, init)
        todo = [item for item in ours if options.overwrite or not is_done(options.out_dir, item, settings)]
        if len(todo) < len(ours):
            print(f"{len(ours) - len(todo)} of {len(ours)} motions are in {options.out_dir} already")
        kept = sum(draw_missing(renderers, options, item) for item in sorted(set(ours) - set(todo), key=ours.index))
        if kept:
            print(f"{kept} other files are kept as they were drawn; --overwrite true draws them again")
        changed = sum((options.out_dir / f"{item.name}.npz").is_file() for item in todo)
        if changed and not options.overwrite:
            print(f"{changed} motions are made again: they are damaged, or of another prompt, checkpoint or settings")
        rewritten = rewrite_prompts(options.rewrite_model, [item.prompt for item in todo], device)
        started = time.perf_counter()
        try:
            for item in generate_and_save(model, todo, init, options, settings, rewritten):
                draw_missing(renderers, options, item)
        except BaseException:
            done = [item for item in ours if is_done(options.out_dir, item, settings)]
            if done and processes.is_main_process:
                write_results(options, done, {})
            raise
        if todo:
            print(f"{len(todo)} motions generated in {time.perf_counter() - started:.1f} s")
        failures = dict(gather_object(list(renderers.finish().items())))
    if processes.is_main_process:
        write_results(options, items, failures)
        if "html" in options.formats:
            print(write_results_gallery(options.out_dir, body_from_options(options.body_model, options.smplx_path)))
        print(f"{len(items)} motions in {options.out_dir}, listed in {options.out_dir / RESULTS}")
    if failures:
        file, why = next(iter(failures.items()))
        raise InputError(f"{len(failures)} files could not be made, {file} first: {why}; mend that and run again")


def init_features(options: Options) -> np.ndarray:
    """(T, 272) features of the initial motion; errors name the options of this script."""
    reading = ImportOptions(options.init_up, options.init_units, options.init_fps, options.init_force)
    try:
        clip = read_clip(options.init_motion, options.init_skeleton, reading)
    except InputError as error:
        raise InputError(re.sub(r"--(skeleton|up|units|fps|force)\b", r"--init-\1", str(error))) from error
    for note in clip.notes:
        print(f"note: {options.init_motion}: {note}")
    return clip.features()


def settings_of(options: Options, model: TextToMotion, dtype: torch.dtype, init: np.ndarray | None) -> str:
    """All that a motion depends on besides prompt, seed and length, as JSON."""
    settings = {"checkpoint": model.checkpoint_id, **asdict(resolve_guidance(model.generator, options.sampling))}
    settings["dtype"] = str(dtype).removeprefix("torch.")
    settings["quantize"] = options.quantize
    settings["rewrite_model"] = options.rewrite_model
    settings["foot_lock"] = options.foot_lock
    settings["init"] = "" if init is None else hashlib.sha256(init.tobytes()).hexdigest()[:16]
    return json.dumps(settings, sort_keys=True)


def read_items(options: Options) -> list[PromptItem]:
    """The motions asked for, each with a name, a seed and perhaps a length."""
    if options.prompts is not None:
        items = read_prompts(options.prompts, options.seed, options.samples)
    else:
        check_prompt(options.prompt)
        items = expand([{"prompt": options.prompt}], options.seed, options.samples)
    return [replace(item, seconds=item.seconds or options.seconds) for item in items]


def check_writable(out_dir: Path) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into the folder {out_dir}: {error.strerror or error}; choose a writable --out-dir"
        ) from error


def is_done(out_dir: Path, item: PromptItem, settings: str) -> bool:
    """Whether the item's npz is there, whole, and of the same prompt, seed, length, checkpoint and settings."""
    try:
        with np.load(out_dir / f"{item.name}.npz", allow_pickle=False) as saved:
            made_from = str(saved["prompt"]), int(saved["seed"]), str(saved["settings"])
            asked = None if np.isnan(saved["asked_seconds"]) else float(saved["asked_seconds"])
            same = (*made_from, asked) == (item.prompt, item.seed, settings, item.seconds)
            return same and saved.zip.testzip() is None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def generate_and_save(
    model: TextToMotion,
    items: list[PromptItem],
    init: np.ndarray | None,
    options: Options,
    settings: str,
    rewritten: dict[str, str],
) -> Iterator[PromptItem]:
    """Generate, from a prompt's ``rewritten`` text where there is one; yields each item when its npz is written.

    What was made of another motion under the same name is removed.
    """
    texts = [rewritten.get(item.prompt, item.prompt) for item in items]
    seeds, seconds = [item.seed for item in items], [item.seconds for item in items]
    for number, motion in model.generate_each(texts, seeds, options.sampling, seconds, init, options.batch_size):
        item = items[number]
        motion.smplx85 = lock_feet(motion.smplx85) if options.foot_lock else motion.smplx85
        save_motion(options.out_dir / f"{item.name}.npz", motion, item, model.checkpoint_id, settings)
        for file in other_files(replace(options, save=",".join(FORMATS), view="both"), item.name):
            if file.is_file():
                file.unlink()
        yield item


def save_motion(path: Path, motion: Motion, item: PromptItem, checkpoint_id: str, settings: str) -> None:
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            **motion_arrays(motion.smplx85),
            features=motion.features,
            tokens=motion.tokens,
            prompt=item.prompt,
            text=motion.prompt,
            seed=motion.seed,
            checkpoint=checkpoint_id,
            settings=settings,
            asked_seconds=np.nan if item.seconds is None else item.seconds,
        )


def other_files(options: Options, name: str) -> dict[Path, str]:
    """file -> view of each file asked for: NAME.mp4 shows the mesh, NAME_skeleton.mp4 the skeleton."""
    files = {
        options.out_dir / f"{name}{'_skeleton' if view == 'skeleton' else ''}.{kind}": view
        for view in options.video_views
        for kind in options.formats
        if kind in VIDEOS
    }
    return files | {options.out_dir / f"{name}.{kind}": "mesh" for kind in options.formats if kind in FILES}


def draw_missing(renderers: Renderers, options: Options, item: PromptItem) -> int:
    """Make the item's files that are not there, and count the others; one older than its npz shows another motion."""
    source = options.out_dir / f"{item.name}.npz"
    files = other_files(options, item.name)
    missing = [file for file in files if not (file.is_file() and file.stat().st_mtime_ns >= source.stat().st_mtime_ns)]
    for file in missing:
        renderers.draw(source, file, files[file])
    return len(files) - len(missing)


def write_results(options: Options, items: list[PromptItem], failures: dict[str, str]) -> None:
    """Enter the items into results.json of the output folder, by name; what other runs entered stays."""
    path = options.out_dir / RESULTS
    try:
        results = {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        results = {}  # none yet, or not ours
    for item in items:
        with np.load(options.out_dir / f"{item.name}.npz", allow_pickle=False) as saved:
            seconds, checkpoint = len(saved["smplx_85"]) / FPS, str(saved["checkpoint"])
            text = str(saved["text"])
        files = [options.out_dir / f"{item.name}.npz", *other_files(options, item.name)]
        results[item.name] = {
            "name": item.name,
            "prompt": item.prompt,
            "text": text,
            "seed": item.seed,
            "seconds": round(seconds, 3),
            "checkpoint": checkpoint,
            "files": [file.name for file in files if file.name not in failures and file.is_file()],
            "failed": {file.name: failures[file.name] for file in files if file.name in failures},
        }
    with atomic_write(path) as file:
        file.write_text(json.dumps(list(results.values()), indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
