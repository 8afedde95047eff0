"""Turn sentences into motion: files of numbers and videos.

    python inference_batch.py --prompt "a person walks forward" --out-dir outputs
    python inference_batch.py --prompts assets/demo_prompts.txt --samples 2 --save npz,mp4,gif --out-dir outputs

Each motion becomes NAME.npz (smplx_85, joints, features, tokens, fps, prompt, seed, checkpoint), NAME.mp4 and so on;
results.json lists them all. Motions are on disk as soon as they are made, and running again skips what is there.
"""

import json
import os
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from models.generate import Sampling
from models.pipeline import DEFAULT_SAMPLING, Motion, TextToMotion
from models.rewrite import rewrite_prompts
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.files import written_whole
from utils.motion272 import FPS
from utils.prompts import MAX_SEED, PromptItem, check_prompt, expand, read_prompts
from utils.training import choose_device
from visualize.renderers import Renderers

FORMATS = ("npz", "mp4", "gif")
RESULTS = "results.json"


@dataclass
class Options:
    """Options of batch inference.

    Attributes:
        prompts: File of prompts: text with one a line, or .jsonl with prompt and optionally name, seed, length in s.
        prompt: One prompt, instead of a file.
        checkpoint: Folder of a text-to-motion model.
        out_dir: Folder for the results.
        save: What to write, separated by commas: npz (always written), mp4, gif.
        view: What videos show: mesh, skeleton or both.
        samples: Motions a prompt, with successive seeds.
        seed: Of the first sample; the same prompt, seed and settings give the same motion.
        seconds: Length of every motion; without it the generator ends each by itself.
        temperature: Of sampling; 0 takes the likeliest token.
        top_k: Sample among the k likeliest tokens; 0 for all.
        top_p: Sample among the likeliest tokens of this total probability.
        guidance: Classifier-free guidance scale; 1 for none.
        batch_size: Prompts generated together.
        size: Width and height of videos in pixels.
        smplx_path: Folder or file of SMPL-X, to render its body instead of the mannequin.
        text_encoder_path: Weights of the text encoder, if neither in checkpoints/<name> nor in the Hugging Face cache.
        rewrite_model: Chat model (folder or hub id) that rewrites each prompt first; what it wrote is saved too.
        device_memory: GB of the device for the generator's weights; the layers beyond are fetched at each step.
        overwrite: Make again what is there already; videos are also made again when their motion is newer.
        workers: Processes that render videos.
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
    guidance: float = DEFAULT_SAMPLING.guidance
    batch_size: int = 32
    size: int = 512
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
        if not 0 <= self.seed < MAX_SEED:
            raise InputError(f"--seed is {self.seed}; give 0 to {MAX_SEED - 1}")
        if not 64 <= self.size <= 4096:
            raise InputError(f"--size is {self.size}; give 64 to 4096 pixels")
        if self.smplx_path is not None and not self.smplx_path.exists():
            raise InputError(f"--smplx-path {self.smplx_path} does not exist; give SMPLX_NEUTRAL.npz or its folder")
        if not self.checkpoint.is_dir():
            raise InputError(f"there is no checkpoint folder {self.checkpoint}; give one made by train_t2m.py")

    @property
    def formats(self) -> list[str]:
        return [word.strip() for word in self.save.split(",") if word.strip()]

    @property
    def video_views(self) -> list[str]:
        """What videos are to be drawn of; nothing if only numbers are saved."""
        if set(self.formats) <= {"npz"}:
            return []
        return ["mesh", "skeleton"] if self.view == "both" else [self.view]

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance=self.guidance)


def main(options: Options) -> None:
    items = read_items(options)
    check_writable(options.out_dir)
    with Renderers(
        min(options.workers, len(items)), options.size, options.smplx_path, options.video_views
    ) as renderers:
        device, _, reason = choose_device(options.device, "float32")
        print(reason)
        model = TextToMotion.from_pretrained(
            options.checkpoint, device, options.text_encoder_path, options.device_memory
        )
        rewriting = {"rewrite_model": options.rewrite_model} if options.rewrite_model else {}
        settings = json.dumps(
            {"checkpoint": model.checkpoint_id, **asdict(options.sampling), **rewriting}, sort_keys=True
        )
        todo = [item for item in items if options.overwrite or not is_done(options.out_dir, item, settings)]
        if len(todo) < len(items):
            print(f"{len(items) - len(todo)} of {len(items)} motions are in {options.out_dir} already")
        for item in sorted(set(items) - set(todo), key=items.index):
            draw_missing(renderers, options, item)
        rewritten = rewrite_prompts(options.rewrite_model, [item.prompt for item in todo], device)
        started = time.perf_counter()
        for item in generate_and_save(model, todo, options, settings, rewritten):
            draw_missing(renderers, options, item)
        if todo:
            print(f"{len(todo)} motions generated in {time.perf_counter() - started:.1f} s")
        failures = renderers.finish()
    write_results(options, items, failures)
    print(f"{len(items)} motions in {options.out_dir}, listed in {options.out_dir / RESULTS}")
    if failures:
        file, why = next(iter(failures.items()))
        raise InputError(f"{len(failures)} videos could not be made, {file} first: {why}; mend that and run again")


def read_items(options: Options) -> list[PromptItem]:
    """The motions asked for, each with a name, a seed and perhaps a length."""
    if options.prompts is not None:
        items = read_prompts(options.prompts, options.seed, options.samples)
    else:
        check_prompt(options.prompt)
        items = expand([{"prompt": options.prompt}], options.seed, options.samples)
    return [replace(item, seconds=item.seconds or options.seconds) for item in items]


def check_writable(out_dir: Path) -> None:
    with written_whole(out_dir / ".write-test") as file:
        file.touch()
    (out_dir / ".write-test").unlink()


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
    model: TextToMotion, items: list[PromptItem], options: Options, settings: str, rewritten: dict[str, str]
) -> Iterator[PromptItem]:
    """Generate in batches, from a prompt's ``rewritten`` text where there is one; yields an item when it is saved."""
    for item in items:
        model.tokens_of(item.seconds)  # lengths that cannot be made are refused before anything is generated
    for first in range(0, len(items), options.batch_size):
        batch = items[first : first + options.batch_size]
        prompts, seeds, seconds = zip(*((item.prompt, item.seed, item.seconds) for item in batch), strict=True)
        texts = [rewritten.get(prompt, prompt) for prompt in prompts]
        motions = model.generate(texts, list(seeds), options.sampling, list(seconds))
        for item, motion in zip(batch, motions, strict=True):
            save_motion(options.out_dir / f"{item.name}.npz", motion, item, model.checkpoint_id, settings)
            yield item
        write_results(options, batch, {})


def save_motion(path: Path, motion: Motion, item: PromptItem, checkpoint_id: str, settings: str) -> None:
    with written_whole(path) as file:
        np.savez_compressed(
            file,
            smplx_85=motion.smplx85.astype(np.float32),
            joints=motion.joints.astype(np.float32),
            features=motion.features,
            tokens=motion.tokens,
            fps=FPS,
            prompt=item.prompt,
            text=motion.prompt,
            seed=motion.seed,
            checkpoint=checkpoint_id,
            settings=settings,
            asked_seconds=np.nan if item.seconds is None else item.seconds,
        )


def video_files(options: Options, name: str) -> dict[Path, str]:
    """file -> view of each video asked for: NAME.mp4 shows the mesh, NAME_skeleton.mp4 the skeleton."""
    return {
        options.out_dir / f"{name}{'_skeleton' if view == 'skeleton' else ''}.{kind}": view
        for view in options.video_views
        for kind in options.formats
        if kind != "npz"
    }


def draw_missing(renderers: Renderers, options: Options, item: PromptItem) -> None:
    """Draw the item's videos that are not there; one older than its npz shows another motion."""
    source = options.out_dir / f"{item.name}.npz"
    for file, view in video_files(options, item.name).items():
        if not (file.is_file() and file.stat().st_mtime_ns >= source.stat().st_mtime_ns):
            renderers.draw(source, file, view)


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
            text = str(saved["text"]) if "text" in saved else item.prompt  # before there was rewriting
        files = [options.out_dir / f"{item.name}.npz", *video_files(options, item.name)]
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
    with written_whole(path) as file:
        file.write_text(json.dumps(list(results.values()), indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
