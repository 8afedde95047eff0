"""Conversion of released checkpoints: mapping of the tensors, sharded folders, offloading, and invalid input.

The converted models are compared with the reference's values in test_motion_vqvae.py, test_llama.py and
test_generate.py, whose golden models pass through the conversion.
"""

import json
import math
import pickle

import numpy as np
import pytest
import torch

from models import motionmillion, offload
from models.generate import Part, Request, Sampling, generate
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE
from models.motionmillion import Options, generator_config, tokenizer_names
from models.offload import load_offloaded
from models.pipeline import TextToMotion
from tests.conftest import converted, golden
from utils.checkpoint import CONFIG, INDEX, fingerprint
from utils.errors import InputError

KEYS = json.loads(golden("state_dict_keys.json").read_text())
TOKENIZER = "tokenizer_down2"
SHAPE = json.loads(golden(f"{TOKENIZER}_ckpt.json").read_text())
LEVELS = [4] * len(SHAPE["levels"])  # fits the tensors of TOKENIZER; in no reference configuration
CODES = math.prod(LEVELS)  # of the generators here


def weights_of(config: LLaMAConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return LLaMAHF(config).state_dict()


def generator_of(text_dim: int = 512, **changes) -> LLaMAConfig:
    shape = {
        "codebook_size": CODES,
        "text_dim": text_dim,
        "text_encoder": "clip",
        "text_length": 150,
        "max_tokens": 150,
    }
    return LLaMAConfig(**(shape | SIZES["debug"] | changes))


@pytest.fixture
def generator_file(tmp_path):
    """A file in the reference's layout: a generator of debug size on features of CLIP's width."""
    path = tmp_path / "generator.pth"
    torch.save({"trans": weights_of(generator_of())}, path)
    return path


# --- Mapping of the released checkpoints


def test_every_tensor_of_the_released_tokenizer_is_mapped(tmp_path):
    entry = KEYS["HumanVQVAE"]
    released = {name: torch.rand(shape).to(getattr(torch, dtype)) for name, shape, dtype in entry["keys"]}
    torch.save({"net": released}, tmp_path / "net.pth")
    for name, value in (("mean", np.zeros(272)), ("std", np.ones(272))):
        np.save(tmp_path / f"{name}.npy", value)
    paths = {name: tmp_path / f"{name}.npy" for name in ("mean", "std")}
    motionmillion.convert(Options(tokenizer=tmp_path / "net.pth", out=tmp_path / "out", **paths))
    model = HumanVQVAE.from_pretrained(tmp_path / "out")
    config, sizes = model.config, entry["config"]
    assert model.codebook_size == sizes["codebook_size"] and config.levels == sizes["levels"]
    assert (config.width, config.code_dim, config.depth) == (sizes["width"], sizes["code_dim"], sizes["depth"])
    norm = "none" if sizes["norm"] is None else "layer"
    assert (config.stride, config.causal, config.norm) == (2 ** sizes["down_t"], sizes["causal"], norm)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["n_params"]
    values = sorted(float(value.double().sum()) for name, value in released.items() if value.shape != (2,))
    converted_values = [value for name, value in model.state_dict().items() if name not in ("mean", "std")]
    assert (
        sorted(float(value.double().sum()) for value in converted_values) == values
    )  # each tensor is used exactly once


@pytest.mark.parametrize("name", [name for name in KEYS if name != "HumanVQVAE"])
def test_every_tensor_of_the_released_generators_is_mapped(name, tmp_path):
    """On the meta device: names and shapes, no values."""
    entry = KEYS[name]
    released = {key: torch.empty(shape, device="meta") for key, shape, _ in entry["keys"]}
    options = Options(tokenizer=tmp_path, mean=tmp_path, std=tmp_path, out=tmp_path / "out", generator=tmp_path)
    config = generator_config(released, options, "")
    motionmillion.check_shapes(released, config, tmp_path)
    sizes = entry["config"]
    assert (config.n_layer, config.n_head, config.n_embd) == (sizes["n_layer"], sizes["n_head"], sizes["n_embd"])
    assert (config.vocab_size, config.text_dim) == (sizes["vocab_size"], sizes["clip_dim"])
    assert config.text_encoder == "flan-t5-xl" and config.block_size + 1 == sizes["block_size"]
    assert (config.end_id, config.pad_id, config.mlp_hidden) == (sizes["end_id"], sizes["pad_id"], sizes["mlp_hidden"])
    with torch.device("meta"):
        model = LLaMAHF(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["n_params"]


# --- The converted folder


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize(
    "stored, asked", [("float32", "keep"), ("float32", "bf16"), ("bf16", "keep"), ("bf16", "float32")]
)
def test_sharded_weights_are_loaded_unchanged(tmp_path, monkeypatch, stored, asked, tied):
    monkeypatch.setattr(motionmillion, "SHARD_SIZE", 100_000)
    weights = {
        name: value.to(motionmillion.DTYPES[stored])
        for name, value in weights_of(generator_of(tie_weights=tied)).items()
    }
    torch.save({"trans": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "generator.pth")
    out = converted(tmp_path / "out", TOKENIZER, tmp_path / "generator.pth", levels=LEVELS, n_head=2, dtype=asked)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"tokenizer"}
    assert len(list(out.glob("*.safetensors"))) > 1 and not list(tmp_path.glob(".*"))
    model = LLaMAHF.from_pretrained(out)
    assert (model.lm_head.weight is model.transformer.wte.weight) == tied and not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name].to(motionmillion.DTYPES.get(asked, weights[name].dtype))), name
    assert model.config.tokenizer == fingerprint(out / "tokenizer")


def test_files_of_the_format_before_torch_1_6_are_read(tmp_path):
    torch.save({"trans": weights_of(generator_of())}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert LLaMAHF.from_pretrained(
        converted(tmp_path / "out", TOKENIZER, tmp_path / "old.pth", levels=LEVELS, n_head=2)
    ).config == generator_of(tokenizer=fingerprint(tmp_path / "out" / "tokenizer"))


def test_fingerprint_depends_on_every_shard(generator_file, tmp_path, monkeypatch):
    monkeypatch.setattr(motionmillion, "SHARD_SIZE", 100_000)
    first = converted(tmp_path / "first", TOKENIZER, generator_file, levels=LEVELS, n_head=2)
    again = converted(tmp_path / "again", TOKENIZER, generator_file, levels=LEVELS, n_head=2)
    weights = torch.load(generator_file, weights_only=True)["trans"]
    weights["transformer.ln_f.scale"][0] += 1
    torch.save({"trans": weights}, generator_file)
    other = converted(tmp_path / "other", TOKENIZER, generator_file, levels=LEVELS, n_head=2)
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)


def test_damaged_sharded_folders_are_refused(generator_file, tmp_path, monkeypatch):
    monkeypatch.setattr(motionmillion, "SHARD_SIZE", 100_000)
    out = converted(tmp_path / "out", TOKENIZER, generator_file, levels=LEVELS, n_head=2)
    part = sorted(out.glob("*.safetensors"))[1]
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{part}: its tensors need .*; copy or download it again"):
        LLaMAHF.from_pretrained(out)
    part.unlink()
    with pytest.raises(InputError, match=f"{part}: the file is missing"):
        LLaMAHF.from_pretrained(out)
    part.write_bytes(content)
    config = json.loads((out / CONFIG).read_text())
    (out / CONFIG).write_text(json.dumps(config | {"n_layer": 3}))
    with pytest.raises(InputError, match="the tensor transformer.h.2.* of the model is missing"):
        LLaMAHF.from_pretrained(out)
    (out / CONFIG).write_text(json.dumps(config))
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{part}: its sha256 is not that of"):
        LLaMAHF.from_pretrained(out)
    part.write_bytes(content)
    index = json.loads((out / INDEX).read_text())
    for outside in ("../other.safetensors", str(part), "..", 5):
        (out / INDEX).write_text(json.dumps(index | {"weight_map": index["weight_map"] | {"lm_head.weight": outside}}))
        with pytest.raises(InputError, match="index.json: it"):
            LLaMAHF.from_pretrained(out)
    (out / INDEX).write_text("{}")
    with pytest.raises(InputError, match="index.json: it cannot be read as an index of weights"):
        LLaMAHF.from_pretrained(out)


# --- Offloading


@pytest.mark.parametrize("split", [True, False], ids=["split", "one file"])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offloaded_layers_generate_the_same_tokens(tmp_path, split, tied, dtype, capsys):
    torch.manual_seed(0)
    config = generator_of(text_dim=48, n_layer=4, tie_weights=tied, text_dropout=0.1)
    whole = LLaMAHF(config).eval()
    torch.nn.init.normal_(whole.lm_head.weight)
    whole.to(dtype)
    if split:
        torch.save({"trans": whole.state_dict()}, tmp_path / "generator.pth")
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(motionmillion.SIZES, "four", {"n_layer": 4, "n_head": 2, "n_embd": 32})
            patch.setattr(motionmillion, "encoder_width", lambda name: 48)
            folder = converted(tmp_path / "out", TOKENIZER, tmp_path / "generator.pth", levels=LEVELS)
        edited = json.loads((folder / CONFIG).read_text()) | {"text_dropout": 0.1}
        (folder / CONFIG).write_text(json.dumps(edited))
    else:
        folder = tmp_path / "out"
        whole.save_pretrained(folder)
    layer = sum(parameter.numel() for parameter in whole.transformer.h[0].parameters()) * dtype.itemsize
    rest = sum(parameter.numel() for parameter in whole.parameters()) * dtype.itemsize - 4 * layer
    requests = [Request([Part(torch.randn(7, 48), 1, 12)], seed) for seed in range(3)]
    for layers, here in ((1, 0), (3, 2), (4, 4)):
        placed = load_offloaded(folder, torch.device("cpu"), (rest + (layers + 0.5) * layer) / 1e9, dtype)
        assert f"{here} of 4 layers on cpu" in capsys.readouterr().out
        away = [name for name, parameter in placed.named_parameters() if parameter.is_meta]
        assert {name.split(".")[2] for name in away} == {str(number) for number in range(here, 4)}
        for sampling in (Sampling(), Sampling(guidance=2.0)):
            tokens = [dict(generate(model, requests, sampling)) for model in (whole, placed)]
            assert tokens[0] == tokens[1] and len(tokens[0]) == 3
    with pytest.raises(InputError, match="^the device memory given is .* need .*; give more"):
        load_offloaded(folder, torch.device("cpu"), (rest + 0.5 * layer) / 1e9, dtype)


def test_layers_are_offloaded_to_host_memory_or_to_disk(tmp_path, monkeypatch):
    """The plan for a GPU, without one: layers go to host memory, or to disk if that is too small."""
    model = LLaMAHF(generator_of(n_layer=4))
    model.save_pretrained(tmp_path / "model")
    plans = []
    record = lambda model, places, **settings: plans.append((places, settings))  # noqa: E731
    monkeypatch.setattr(offload, "dispatch_model", record)
    monkeypatch.setattr(offload, "assign_weights", lambda *arguments, **settings: None)
    layer, whole = (
        sum(parameter.numel() for parameter in part.parameters()) * 4 for part in (model.transformer.h[0], model)
    )
    gigabytes = (whole - 1.5 * layer) / 1e9  # head, embedding and two of four layers
    for free, where in ((10**9, "cpu"), (0, "disk")):
        monkeypatch.setattr(offload, "get_max_memory", lambda free=free: {"cpu": free})
        load_offloaded(tmp_path / "model", torch.device("cuda"), gigabytes, torch.float32)
        places, settings = plans.pop()
        assert set(map(str, places.values())) == {"cuda", where} and places["transformer.h.3"] == where
        assert (settings["offload_index"] is None) == (where == "cpu")


@pytest.mark.parametrize("changes", [{"quantize": "int8", "dtype": torch.bfloat16}, {"compiled": True}])
def test_device_memory_excludes_quantized_and_compiled_layers(generator_file, tmp_path, changes):
    out = converted(tmp_path / "out", TOKENIZER, generator_file, levels=LEVELS, n_head=2)
    with pytest.raises(InputError, match="device_memory goes neither with"):
        TextToMotion.from_pretrained(out, device_memory=1.0, **changes)


# --- Invalid input


def refusals(tmp_path, generator_file):
    """Map names to invalid options and words of the error."""

    class Evil:
        def __reduce__(self):
            return print, ("this must not run",)

    def file(name, content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    def array(name, content):
        np.save(tmp_path / name, content)
        return tmp_path / name

    content = generator_file.read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pth").write_text("this is not a checkpoint")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"trans": Evil()}))
    weights = weights_of(generator_of())
    tokenizer = torch.load(golden(f"{TOKENIZER}_ckpt.pth"), weights_only=True)["net"]
    config = HumanVQVAE.from_pretrained(converted(tmp_path / "tokenizer", TOKENIZER)).config
    last, width = f"{tokenizer_names(config, patcher=False)['decoder.conv_out']}.", config.width
    other = [5] * len(LEVELS)
    longer = weights | {"transformer.h.0.attn.bias": torch.zeros(3)}
    return {
        "missing": ({"generator": tmp_path / "none.pth"}, "none.pth: the file is missing"),
        "truncated": ({"generator": tmp_path / "half.pth"}, "half.pth: it cannot be read as torch weights"),
        "text": ({"generator": tmp_path / "text.pth"}, "text.pth"),
        "code": ({"generator": file("evil.pth", {"trans": Evil()})}, "evil.pth: it holds no named tensors"),
        "code in a bare pickle": ({"generator": tmp_path / "plain.pth"}, "plain.pth: it cannot be read"),
        "tokenizer as generator": ({"generator": golden("tokenizer_ckpt.pth")}, "under 'trans' (but net)"),
        "generator as tokenizer": ({"tokenizer": generator_file}, "no named tensors under 'net' (but trans)"),
        "other architecture": ({"generator": file("other.pth", {"trans": {"weight": torch.ones(2, 2)}})}, "other.pth"),
        "a layer more": ({"generator": file("longer.pth", {"trans": longer})}, "transformer.h.0.attn.bias"),
        "a tensor less": (
            {"generator": file("less.pth", {"trans": {k: v for k, v in weights.items() if "ln_f" not in k}})},
            "transformer.ln_f.scale is missing",
        ),
        "attention in the tokenizer": (
            {"tokenizer": file("attn.pth", {"net": tokenizer | {"vqvae.encoder.model.9.qkv": torch.ones(1)}})},
            "unsupported layers such as vqvae.encoder.model.9.qkv",
        ),
        "half a tokenizer": (
            {"tokenizer": file("part.pth", {"net": {k: v for k, v in tokenizer.items() if not k.startswith(last)}})},
            f"decoder.conv_out.weight of shape (272, {width}, 3) is missing",
        ),
        "no tokenizer": ({"tokenizer": file("no.pth", {"net": {"a": torch.ones(1)}})}, "not hold the reference's tok"),
        "heads unknown": (
            {"n_head": None, "generator": file("three.pth", {"trans": weights_of(generator_of(n_layer=3))})},
            "give the number of heads with --n-head",
        ),
        "heads invalid": ({"n_head": 5}, "does not split into 5 heads"),
        "encoder invalid": ({"text_encoder": "flan-t5-xl"}, "width 512, not those of flan-t5-xl"),
        "encoder unknown": ({"text_encoder": "elmo"}, "unknown text encoder 'elmo'"),
        "width of no encoder": (
            {"generator": file("narrow.pth", {"trans": weights_of(generator_of(text_dim=100))})},
            "width 100, not those of any encoder of the reference",
        ),
        "codes invalid": ({"levels": other}, f"has {CODES} codes and the tokenizer {math.prod(other)}"),
        "levels unknown": ({"levels": None}, f"have {len(LEVELS)} dimensions and {CODES} codes; give --levels"),
        "activation": ({"activation": "tanh"}, "activation tanh is unknown"),
        "no mean": ({"mean": tmp_path / "no.npy"}, "no.npy: the file is missing; check the path"),
        "mean in words": ({"mean": tmp_path / "text.pth"}, "text.pth: it cannot be read as a NumPy array"),
        "mean of other features": ({"mean": array("263.npy", np.zeros(263))}, "263.npy: it is no array of 272"),
        "std of zero": ({"std": array("zero.npy", np.zeros(272))}, "not positive"),
        "statistics that are objects": ({"std": array("object.npy", np.array([{}] * 272))}, "object.npy"),
        "out is there": ({"out": tmp_path}, "exists already"),
    }  # fmt: skip


def test_invalid_input_is_refused_and_leaves_no_files(generator_file, tmp_path, capfd):
    for name, (invalid, words) in refusals(tmp_path, generator_file).items():
        options = {"levels": LEVELS, "n_head": 2} | invalid
        generator = options.pop("generator", generator_file)
        with pytest.raises(InputError) as caught:
            converted(options.pop("out", tmp_path / "out"), TOKENIZER, generator, **options)
        assert words in str(caught.value) and "\n" not in str(caught.value), f"{name}: {caught.value}"
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*")), name
    assert "this must not run" not in capfd.readouterr().out


def test_an_unwritable_folder_is_reported_before_reading(tmp_path):
    (tmp_path / "file").touch()
    missing = {name: tmp_path / f"{name}.npy" for name in ("tokenizer", "mean", "std")}
    with pytest.raises(InputError, match="cannot write .*/file/out: Not a directory"):
        motionmillion.convert(motionmillion.Options(**missing, out=tmp_path / "file" / "out"))


def test_a_full_disk_leaves_no_files(generator_file, tmp_path, monkeypatch):
    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(motionmillion, "save_file", full_disk)
    with pytest.raises(InputError, match="cannot write .*No space left"):
        converted(tmp_path / "out", TOKENIZER, generator_file, levels=LEVELS, n_head=2)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
