"""What is fuzzed: one line a reader or command.

A target reads the case's folder, which is the working folder. It returns, or raises InputError; a command must end
with status 0, or with status 2 and one line "error: ...".
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401 (imported once, before the cases)

import inference_batch
import prepare_data
from characters.character import load_character
from characters.write import write_character
from control.checks import check_constraints
from control.files import read_constraints
from dataset import converting
from dataset.captions import CaptionRules
from dataset.motion_folder import VECTORS, MotionFolder
from dataset.token_rows import TokenDataset
from formats.clip import read_clip
from formats.skeleton_map import SkeletonMap
from models import pipeline
from models.motion_vqvae import HumanVQVAE
from models.motionmillion_release import read_tensors
from models.pipeline import DEFAULT_SAMPLING, TextToMotion
from models.rewrite import Chat
from models.sampling import resolve_guidance
from motion.clip import Clip
from motion.features272 import features_to_smplx85
from serving.options import Options
from serving.requests import GenerationRequest
from serving.schemas import GenerateBody, checked
from training.options import GeneratorOptions, TokenizerOptions
from training.state import newest_state, read_description
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.prompts import read_prompts
from utils.reading.arrays import read_npy, read_npy_header, read_npz, read_vector
from utils.reading.tensors import open_safetensors, read_safetensors_header
from utils.reading.texts import check_template, parse_json, read_json, read_json_lines, read_lines, read_yaml
from utils.reading.torch_files import read_state_dict
from visualize import export
from visualize.character import CharacterMesh
from visualize.page import write_results_gallery

static = Path()  # folder with a good model and data; set by the worker


class Target(NamedTuple):
    """A reader to fuzz."""

    kind: str  # of its seeds
    read: Callable[[], object]
    writes: tuple[str, ...] = ()  # what it may leave in the folder


def command(main: Callable[[], object], *words: object) -> None:
    """Run a script's main function with a command line; its refusal becomes an InputError again."""
    sys.argv = ["script.py", *map(str, words)]
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), exit_on_input_error():
            main()
    except SystemExit as stop:
        lines = output.getvalue().rstrip("\n").split("\n")
        errors = [line for line in lines if line.startswith("error: ")]
        if stop.code == 2 and errors == lines[-1:]:
            raise InputError(errors[0].removeprefix("error: ")) from None
        if stop.code not in (0, None):
            raise RuntimeError(f"status {stop.code}: {output.getvalue()[-500:]}") from None
    if "Traceback" in output.getvalue():
        raise RuntimeError(f"a traceback was printed: {output.getvalue()[-500:]}")


def options_of(kind: type, *words: str) -> object:
    """Parse options as a script does; --help ends it well."""
    try:
        return parse_options(kind, "Fuzzed.", list(words))
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
        return None


def words() -> list[str]:
    """The words of a command line, which cannot hold NUL."""
    return Path("words.txt").read_bytes().replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")


def captions() -> None:
    rules = CaptionRules.from_yaml("captions.yaml")
    with contextlib.suppress(InputError):
        rules.captions("dataset-1_walk_normal_001", 5)


def prompts(name: str) -> None:
    for item in read_prompts(Path(name), 0, 2):
        (item.name + item.prompt).encode()


def constraints() -> None:
    given = read_constraints(Path("constraints.json"))
    check_constraints(given, 2.0)
    given.track(60)


def motion_folder() -> None:
    folder = MotionFolder("")
    folder.mean_std()
    for split in ("train", "val", "test"):
        for clips in (folder.motions(split), folder.clips(split)):
            for clip in clips:
                clips.features(clip)


def tokens() -> None:
    dataset = TokenDataset(Path("tokens/train"), static / "model" / "tokenizer", 12, cut_longer=True)
    dataset.captions()
    for number in range(min(20, 2 * len(dataset))):
        dataset[number]


def state() -> None:
    path = newest_state(Accelerator(cpu=True), Path())
    read_description(path)["config"].get("width")


def request() -> None:
    global model
    model = model or TextToMotion.from_pretrained(static / "model")
    try:
        value = parse_json(Path("request.json").read_bytes())  # as serving/answers.py does
    except (InputError, OSError):
        return
    body = checked(GenerateBody, value)
    parsed = GenerationRequest.parse(body, Options(), model, resolve_guidance(model.generator, DEFAULT_SAMPLING))
    json.dumps(str(parsed.prompt)).encode()


model: TextToMotion | None = None


def warm_up() -> None:
    """Have what is imported or computed on first use before cases are read, in children of this process."""
    TextToMotion.from_pretrained(static / "model")
    Clip(features_to_smplx85(np.load(static / "data" / VECTORS / "clip0.npy").astype(np.float64))).features()


def templates() -> None:
    values = read_yaml("captions.yaml")
    listed = values.get("templates") if isinstance(values, dict) else None
    for template in listed if isinstance(listed, list) else []:
        if isinstance(template, str):
            check_template(template, ("content", "style"))
            template.format(content="walks", style="fast")


def stand_in_encoder(name: str, *arguments: object) -> object:
    """A text encoder without weights; others than minilm are looked for as always."""
    return Encoder() if name == "minilm" else load_text_encoder(name, *arguments)


class Encoder:
    name, dim = "minilm", 384

    def encode(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(texts), 1, self.dim), torch.ones(len(texts), 1, dtype=torch.bool)


load_text_encoder, pipeline.load_text_encoder = pipeline.load_text_encoder, stand_in_encoder


def run_export(source: str, target: str) -> None:
    command(lambda: export.main(*export.read_arguments(sys.argv[1:])), source, target, "--size", 64)


def run_inference(*arguments: object) -> None:
    def main() -> None:
        inference_batch.main(parse_options(inference_batch.Options, "Fuzzed.")[0])

    shared = ("--checkpoint", static / "model", "--out-dir", "out", "--save", "npz", "--seconds", 0.2)
    command(main, *arguments, *shared, "--workers", 1, "--device", "cpu")


@contextlib.contextmanager
def threads(workers: int, *arguments: object) -> Iterator[ThreadPoolExecutor]:
    """Stands for ``worker_pool``, whose processes would import everything again for each case."""
    with ThreadPoolExecutor(workers) as pool:
        yield pool


converting.worker_pool = threads


def run_prepare(kind: str, *arguments: object) -> None:
    words = [kind, *map(str, arguments), "--out", "out", "--workers", "1"]
    command(lambda: prepare_data.main(prepare_data.read_arguments(words)))


TARGETS = {
    "read_clip bvh": Target("bvh", lambda: read_clip("clip.bvh")),
    "read_clip gltf": Target("gltf", lambda: read_clip("clip.gltf")),
    "read_clip glb": Target("gltf", lambda: read_clip("clip.glb")),
    "character": Target("gltf", lambda: write_character("out.glb", load_character("clip.gltf"), []), ("out.glb",)),
    "draw character": Target("gltf", lambda: CharacterMesh(load_character("clip.gltf"))),
    "read_clip npy": Target("npy", lambda: read_clip("clip.npy")),
    "read_clip npz": Target("npz", lambda: read_clip("clip.npz")),
    "read_prompts txt": Target("prompts_txt", lambda: prompts("prompts.txt")),
    "read_prompts jsonl": Target("prompts_jsonl", lambda: prompts("prompts.jsonl")),
    "read_prompts json": Target("prompts_json", lambda: prompts("prompts.json")),
    "read_prompts csv": Target("prompts_csv", lambda: prompts("prompts.csv")),
    "constraints": Target("constraints", constraints),
    "CaptionRules": Target("captions", captions),
    "SkeletonMap": Target("skeleton", lambda: SkeletonMap.from_yaml("skeleton.yaml")),
    "train_vq --config": Target("vq_options", lambda: options_of(
        TokenizerOptions, "--config", "options.yaml", "--data", "d", "--out", "o")),
    "train_t2m --config": Target("t2m_options", lambda: options_of(
        GeneratorOptions, "--config", "options.yaml", "--data", "d", "--out", "o", "--tokenizer",
        str(static / "model" / "tokenizer"))),
    "inference_batch words": Target("inference_words", lambda: options_of(
        inference_batch.Options, *words(), "--checkpoint", str(static / "model"))),
    "train_vq words": Target("train_words", lambda: options_of(TokenizerOptions, *words())),
    "export words": Target("export_words", lambda: options_of(export.Options, *words())),
    "HumanVQVAE": Target("tokenizer", lambda: HumanVQVAE.from_pretrained(Path.cwd())),
    "TextToMotion": Target("model", lambda: TextToMotion.from_pretrained(Path.cwd())),
    "MotionFolder": Target("data", motion_folder, ("index",)),
    "TokenDataset": Target("tokens", tokens),
    "states": Target("states", state),
    "read_tensors": Target("torch", lambda: read_tensors(Path("file.pth"), "net")),
    "read_vector": Target("vector", lambda: read_vector("clip.npy", 272)),
    "results.json": Target("results", lambda: write_results_gallery(Path.cwd()), ("gallery.html",)),
    "rewrite model": Target("chat", lambda: Chat(str(Path.cwd()), torch.device("cpu"))),
    "web request": Target("request", request),
    "export bvh": Target("bvh", lambda: run_export("clip.bvh", "out.npz"), ("out.npz",)),
    "export npz": Target("npz", lambda: run_export("clip.npz", "out.bvh"), ("out.bvh",)),
    "inference_batch --prompts": Target("prompts_jsonl", lambda: run_inference("--prompts", "prompts.jsonl"), ("out",)),
    "inference_batch --init-motion": Target("npz", lambda: run_inference(
        "--prompt", "walk", "--init-motion", "clip.npz"), ("out",)),
    "prepare_data bvh": Target("bvh_folder", lambda: run_prepare(
        "bvh", "--source", "mocap", "--skeleton", "skeleton.yaml"), ("out",)),
    "prepare_data amass": Target("npz", lambda: run_prepare("amass", "--source", "."), ("out",)),
    # The helpers that the readers above are to use.
    "reading npy": Target("npy", lambda: (read_npy_header("clip.npy"), read_npy("clip.npy"))),
    "reading npz": Target("npz", lambda: read_npz("clip.npz")),
    "reading lines": Target("prompts_txt", lambda: read_lines("prompts.txt")),
    "reading jsonl": Target("prompts_jsonl", lambda: list(read_json_lines("prompts.jsonl"))),
    "reading json": Target("results", lambda: read_json("results.json")),
    "reading yaml": Target("captions", templates),
    "reading safetensors": Target("tokenizer", lambda: reading_safetensors("model.safetensors")),
    "reading torch": Target("torch", lambda: [
        tensor.contiguous() for tensor in read_state_dict("file.pth", "net").values()]),
}  # fmt: skip


def reading_safetensors(name: str) -> None:
    header = read_safetensors_header(name)
    with open_safetensors(name) as file:
        assert {key: file.get_tensor(key).shape for key in header.tensors} == {
            key: tensor.shape for key, tensor in header.tensors.items()
        }
