"""Valid inputs of each kind, and hostile ones that would run code: folders to be changed by mutate.py.

A kind is a folder ``<root>/<kind>`` of seeds; a seed is a folder of files. Hostile seeds leave a file named EXECUTED.
"""

import base64
import io
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate import Accelerator

from characters.character import load_character
from characters.write import write_character
from dataset.motion_folder import STATISTICS, VECTORS, MotionFolder
from dataset.synthetic import synthetic_clips
from dataset.tokenizing import tokenize
from formats.bvh_writer import write_bvh
from formats.clip import Clip
from formats.gltf_file import read_gltf
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from motion.features263 import HUMANML3D, KIT, features_from_joints
from motion.skeleton import forward_kinematics
from motion.smplx import motion_to_smplx85, smplx85_to_motion
from tests.rigs import Rig, write_rig
from training.state import save_state, save_tensors
from utils.checkpoint import fingerprint
from visualize.export import motion_arrays

ROOT = Path(__file__).parents[2]
EXECUTED = "EXECUTED"  # written by code that was in a file
STATIC = "static"  # not a kind: folders that targets only use
PROMPTS = ["a person walks forward", "someone jumps | he waves with the left hand", "größere Schritte"]
ABOUT = {"step": 10, "config": {"width": 32}, "order": {"seed": 0}, "best": 1.5, "is_best": True}
REQUEST = {"prompts": PROMPTS[:1], "seed": 1, "variations": 2, "temperature": 0.9, "guidance": 2, "seconds": 1.0}


class RunsCode:
    """Unpickled, it writes EXECUTED."""

    def __reduce__(self):
        return exec, (f"open({EXECUTED!r}, 'w').write('x')",)


def make_seeds(root: Path) -> None:
    """Write all seeds and the static folders below ``root``."""
    torch.manual_seed(0)
    clips = motions()
    model_folder(root / STATIC / "model")
    data_folder(root / STATIC / "data", clips)
    seeds = {
        "bvh": bvh_seeds(clips),
        "gltf": gltf_seeds(clips),
        "npy": npy_seeds(clips),
        "npz": npz_seeds(clips),
        "prompts_txt": [{"prompts.txt": "\n".join(PROMPTS)}],
        "prompts_jsonl": [{"prompts.jsonl": "\n".join(map(json.dumps, prompt_entries()))}],
        "prompts_json": [{"prompts.json": json.dumps([*prompt_entries(), PROMPTS[0]])}],
        "prompts_csv": [{"prompts.csv": 'prompt,name,seed,length\na person walks,walk,3,2.5\n"stops, waits",,,\n'}],
        "constraints": [{"constraints.json": json.dumps(constraints(clips[0]))}],
        "captions": yaml_seeds("captions.yaml", "bandai_captions.yaml"),
        "skeleton": yaml_seeds("skeleton.yaml", "bandai_skeleton.yaml"),
        "vq_options": option_seeds("vq/debug.yaml"),
        "t2m_options": option_seeds("t2m/debug.yaml"),
        "vector": [{"clip.npy": saved(np.save, np.full(272, 0.5))}],
        **word_seeds(),
        "request": [{"request.json": json.dumps(REQUEST)}],
        "torch": torch_seeds(),
    }
    for kind, contents in seeds.items():
        for number, files in enumerate(contents):
            for name, content in files.items():
                file = root / kind / f"{number:02d}" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.encode() if isinstance(content, str) else content)
    shutil.copytree(root / STATIC / "model" / "tokenizer", root / "tokenizer" / "00")
    shutil.copytree(root / STATIC / "model", root / "model" / "00")
    large = {"depth": 10**7, "width": 10**6, "down_t": 60, "levels": [1000] * 4, "code_dim": 10**6}
    large_configs(root / "tokenizer", large)
    large_configs(root / "model", {"n_layer": 10**7, "n_embd": 2 * 10**6, "codebook_size": 10**9, "max_tokens": 10**10})
    shutil.copytree(root / STATIC / "data", root / "data" / "00")
    token_folder(root / "tokens" / "00", root / STATIC)
    state_folder(root / "states" / "00")
    results_folder(root / "results" / "00", clips[0])
    chat_folder(root / "chat" / "00")
    bvh_folder(root / "bvh_folder" / "00", clips)


def motions() -> list[np.ndarray]:
    """Two short motions, (20, 85)."""
    return [
        motion_to_smplx85(rotations[:20].astype(np.float64), pelvis[:20])
        for _, rotations, pelvis, _ in synthetic_clips(2)
    ]


def saved(write, *arguments, **named) -> bytes:
    file = io.BytesIO()
    write(file, *arguments, **named)
    return file.getvalue()


def bvh_seeds(clips: list[np.ndarray]) -> list[dict]:
    path = Path(write_bvh(Path("seed.bvh"), clips[0][:6]))
    text = path.read_text()
    path.unlink()
    positions = text.replace("CHANNELS 3 ", "CHANNELS 6 Xposition Yposition Zposition ")
    return [{"clip.bvh": text}, {"clip.bvh": text.replace("left_", "Left").replace("right_", "Right")},
            {"clip.bvh": positions}, {"clip.bvh": text.replace("CHANNELS 3", "CHANNELS 300000000", 1)},
            {"clip.bvh": re.sub("CHANNELS .*", "CHANNELS 0", text).replace("Frames: 6", "Frames: 1000000000")},
            {"clip.bvh": re.sub("Frame Time: .*", "Frame Time: 1e9", text)}]  # fmt: skip


def gltf_seeds(clips: list[np.ndarray]) -> list[dict]:
    """A character with an animation, as .gltf with its buffer inside, and as .glb."""
    hero = load_character(write_rig(Path("seed.glb"), Rig(arms=45)))
    file = read_gltf(write_character(Path("seed.glb"), hero, [Clip(clips[0][:6])]))
    content = Path("seed.glb").read_bytes()
    Path("seed.glb").unlink()
    uri = "data:application/octet-stream;base64," + base64.b64encode(file.buffers[0]).decode()
    buffer = {"byteLength": len(file.buffers[0]), "uri": uri}
    text = json.dumps(file.document | {"buffers": [buffer]})
    return [{"clip.gltf": text, "clip.glb": content}]


def npy_seeds(clips: list[np.ndarray]) -> list[dict]:
    joints = forward_kinematics(*smplx85_to_motion(clips[0]))
    arrays = [Clip(clips[0], "").features(), clips[0].astype(np.float32), np.zeros((5, 322)), joints,
              features_from_joints(joints, HUMANML3D), features_from_joints(joints[:, :21] * 1000, KIT)]  # fmt: skip
    hostile = saved(np.save, np.array([RunsCode()], dtype=object), allow_pickle=True)
    return [*({"clip.npy": saved(np.save, array)} for array in arrays), {"clip.npy": hostile},
            {"clip.npy": pickle.dumps(RunsCode())}]  # fmt: skip


def npz_seeds(clips: list[np.ndarray]) -> list[dict]:
    ours = motion_arrays(clips[0]) | {"prompt": PROMPTS[0]}
    amass = {name: values for name, values in ours.items() if name != "smplx_85"} | {"mocap_framerate": 60.0}
    objects = ours | {"fps": np.array([RunsCode()], dtype=object)}
    rotations, pelvis = smplx85_to_motion(clips[0][:6])
    kimodo = {"local_rot_mats": rotations, "root_positions": pelvis}
    hymotion = {"Rh": clips[0][:6, :3], "poses": np.pad(clips[0][:6, :66], ((0, 0), (0, 90))), "trans": pelvis}
    files = (ours, amass, objects, kimodo, hymotion)
    return [{"clip.npz": saved(np.savez_compressed, **arrays)} for arrays in files]


def prompt_entries() -> list[dict]:
    return [
        {"prompt": PROMPTS[0], "name": "walk", "seed": 3, "length": 1.5},
        {"prompt": PROMPTS[1]},
        {"prompt": PROMPTS[2], "seed": 2**40, "length": 1},
    ]


def constraints(clip: np.ndarray) -> dict:
    """Constraints of every kind, on the frames of a clip (T, 85)."""
    pose = clip[0].tolist()
    return {
        "length": 2,
        "start": {"pose": pose},
        "end": {"pose": [pose], "place": [0.5, 1], "facing": 10},
        "keyframes": [{"time": 0.5, "pose": pose, "place": "file"}],
        "pins": [{"joint": "head", "from": 1, "to": 1.2, "position": [None, 1.2, None]}],
        "path": {"points": [[0, 0], [0, 0.5], [0.5, 1]], "kind": "spline"},
        "waypoints": [{"time": 1.5, "facing": 5}],
        "keep": [{"from": 0.8, "to": 0.9, "motion": clip[:4].tolist(), "joints": ["left_arm"]}],
    }


def hostile_yaml(key: str) -> list[str]:
    code = f"open('{EXECUTED}', 'w').write('x')"
    return [
        f'{key}: !!python/object/apply:eval ["{code}"]\n',
        f"{key}: !!python/name:os.system\n",
        f"{key}:\n  class_path: evilmod.Evil\n",
        f"&a {{{key}: *a}}\n",
        "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 10)}]\n" for i in range(10)) + f"{key}: *a9\n",
        f"{key}: 2001-99-99\n",
        f"{key}: ['{{content:>99999999999}}', '{{content.__class__}}']\n",
        f"{key}: 5\n",
    ]


def evil_module() -> str:
    return f"open({EXECUTED!r}, 'w').write('x')\nclass Evil:\n    pass\n"


def yaml_seeds(name: str, config: str) -> list[dict]:
    text = (ROOT / "configs/data" / config).read_text()
    values = yaml.safe_load(text)
    short = {key: value if key != "contents" else dict(list(value.items())[:2]) for key, value in values.items()}
    texts = [text, yaml.safe_dump(short), yaml.safe_dump({"clips": {"walk": PROMPTS}, "joints": {}})]
    keys = ("clips", "templates", "pattern") if "captions" in name else ("joints", "rest_axes")
    return [{name: text} for text in [*texts, *(text for key in keys for text in hostile_yaml(key))]]


def option_seeds(config: str) -> list[dict]:
    text = (ROOT / "configs" / config).read_text()
    return [{"options.yaml": text}] + [
        {"options.yaml": hostile, "evilmod.py": evil_module()}
        for key in ("model", "steps")
        for hostile in hostile_yaml(key)
    ]


def word_seeds() -> dict[str, list[dict]]:
    """Command lines of each script, its own first."""
    lines = {
        "inference_words": ["--prompt", "a person walks", "--samples", "2", "--seconds", "1.5", "--temperature", "0.9",
                            "--top_k", "5", "--foot-lock", "--overwrite", "true", "--workers", "1", "--save", "npz"],
        "train_words": ["--steps", "5", "--learning-rate", "1e-3", "--model.width", "32", "--model.levels", "[8,5]",
                        "--data", "d", "--out", "o"],
        "export_words": ["--view", "mesh", "--size", "64", "--camera", "fixed", "--title", "walk"],
    }  # fmt: skip
    return {
        kind: [{"words.txt": "\n".join(words)} for words in (own, *(line for line in lines.values() if line != own))]
        for kind, own in lines.items()
    }


def torch_seeds() -> list[dict]:
    tensors = {
        "module.a": torch.ones(3),
        "b": torch.arange(4.0).view(2, 2).T,
        "c": torch.zeros(2, dtype=torch.bfloat16),
    }
    content = {"net": tensors, "step": 5}
    seeds = [saved_torch(content), saved_torch(content, _use_new_zipfile_serialization=False)]
    seeds += [saved_torch({"net": torch.zeros(1).expand(10**11)}), saved_torch({"net": RunsCode()})]
    seeds += [saved_torch({"net": {"a": torch.zeros(1).expand(10**11)}}), pickle.dumps({"net": RunsCode()})]
    return [{"file.pth": seed} for seed in seeds]


def saved_torch(content: object, **settings) -> bytes:
    torch.save(content, file := io.BytesIO(), **settings)
    return file.getvalue()


def model_folder(folder: Path) -> None:
    """A text-to-motion model of debug size: generator and tokenizer."""
    tokenizer = HumanVQVAE(VQVAEConfig(levels=[4, 4], code_dim=8, width=8, down_t=2, depth=1))
    tokenizer.save_pretrained(folder / "tokenizer")
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "text_dim": 384, "text_length": 64, "max_tokens": 12}
    config = LLaMAConfig(
        tokenizer.codebook_size, text_encoder="minilm", tokenizer=fingerprint(folder / "tokenizer"), **shape
    )
    LLaMAHF(config).save_pretrained(folder)


def large_configs(folder: Path, values: dict[str, object]) -> None:
    """Copies of the first seed whose config asks for much more than the weights hold."""
    for number, (name, value) in enumerate(values.items(), 1):
        shutil.copytree(folder / "00", copy := folder / f"{number:02d}")
        config = json.loads((copy / "config.json").read_text()) | {name: value}
        (copy / "config.json").write_text(json.dumps(config))


def data_folder(folder: Path, clips: list[np.ndarray]) -> None:
    for part in (VECTORS, Path("texts"), Path("split"), STATISTICS):
        (folder / part).mkdir(parents=True)
    for number, clip in enumerate(clips):
        np.save(folder / VECTORS / f"clip{number}.npy", Clip(clip, "").features())
        text = f"{PROMPTS[0]}#a/DET person/NOUN#0.0#0.0\nhe waves#he/PRON#0.0#0.4\njumps\n"
        (folder / "texts" / f"clip{number}.txt").write_text(text)
    for split in ("train", "val", "test"):
        (folder / "split" / f"{split}.txt").write_text("clip0\nclip1\n")
    for name, value in (("mean", 0.5), ("std", 2.0)):
        np.save(folder / STATISTICS / f"{name}.npy", np.full(272, value, np.float32))


def token_folder(folder: Path, static: Path) -> None:
    tokenizer = static / "model" / "tokenizer"
    made = tokenize(MotionFolder(static / "data"), tokenizer, HumanVQVAE.from_pretrained(tokenizer), "train")
    shutil.copytree(made, folder / "tokens" / "train")
    shutil.rmtree(static / "data" / "tokens")


def state_folder(folder: Path) -> None:
    tensors = {"weight": torch.ones(4, 3), "step": torch.tensor(5)}
    for step in (9, 10):
        save_state(Accelerator(cpu=True), folder, ABOUT | {"step": step}, lambda part: save_tensors(tensors, part))


def results_folder(folder: Path, clip: np.ndarray) -> None:
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "walk.npz", **motion_arrays(clip), prompt=PROMPTS[0], seed=3)
    entry = {"name": "walk", "prompt": PROMPTS[0], "text": PROMPTS[0], "seed": 3, "seconds": 0.667, "checkpoint": "x",
             "files": ["walk.npz"], "failed": {}}  # fmt: skip
    (folder / "results.json").write_text(json.dumps([entry], indent=1))


def chat_folder(folder: Path) -> None:
    """A chat model with code of its own."""
    folder.mkdir(parents=True)
    names = {"AutoConfig": "modeling_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.EvilModel"}
    tokenizer = {"AutoTokenizer": ["modeling_evil.EvilTokenizer", None]}
    config = {"model_type": "evil", "architectures": ["EvilModel"], "auto_map": names | tokenizer}
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": "EvilTokenizer", "auto_map": tokenizer}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    code = "from transformers import PretrainedConfig\nclass EvilConfig(PretrainedConfig):\n    model_type = 'evil'\n"
    (folder / "modeling_evil.py").write_text(
        evil_module() + code + "class EvilModel: pass\nclass EvilTokenizer: pass\n"
    )


def bvh_folder(folder: Path, clips: list[np.ndarray]) -> None:
    """Two captioned files for prepare_data.py, with the map of their joints."""
    folder.mkdir(parents=True)
    for number, clip in enumerate(clips):
        write_bvh(folder / "mocap" / f"walk{number}.bvh", clip)
        (folder / "mocap" / f"walk{number}.txt").write_text("a person walks to the left\nhe walks\n")
    names = {name: name for name in yaml.safe_load((ROOT / "configs/data/bandai_skeleton.yaml").read_text())["joints"]}
    (folder / "skeleton.yaml").write_text(yaml.safe_dump({"joints": names}))
