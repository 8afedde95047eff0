"""CLIP and Flan-T5: parity with their libraries, search of the weights, training and inference by command line;
cached features; prompt rewriting with a chat model."""

import io
import json
import shutil
import warnings

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel, T5Tokenizer

from models import text_weights
from models.llama import LLaMAHF
from models.pipeline import TextToMotion
from models.rewrite import rewrite_prompts, sentence_of
from models.text_encoder import load_text_encoder
from models.text_features import CaptionFeatures
from tests.conftest import ROOT
from tests.encoders import CAPTIONS, cache_on_hub, edit_json, make_chat, make_clip, make_t5
from utils.checkpoint import WEIGHTS
from utils.errors import InputError

T2M = ("--config", ROOT / "configs" / "t2m" / "debug.yaml", "--precision", "float32")


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    return make_t5(tmp_path_factory.mktemp("t5") / "weights")


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors")


@pytest.fixture(params=["flan-t5-small", "clip"])
def encoder(request):
    return load_text_encoder(request.param, path=path_of(request, request.param))


def path_of(request, name):
    return request.getfixturevalue("clip_file" if name == "clip" else "t5_folder")


# --- Features


@torch.no_grad()
def test_t5_equals_transformers(t5_folder):
    encoder = load_text_encoder("flan-t5-small", path=t5_folder)
    model, tokenizer = T5EncoderModel.from_pretrained(t5_folder), T5Tokenizer.from_pretrained(t5_folder)
    features, mask = encoder.encode(CAPTIONS)
    assert features.dtype == torch.float32 and (encoder.dim, encoder.max_length) == (512, 150)
    for caption, row, valid in zip(CAPTIONS, features, mask, strict=True):
        inputs = tokenizer(caption, return_tensors="pt")
        assert inputs["input_ids"][0, -1] == tokenizer.eos_token_id
        torch.testing.assert_close(row[valid], model(**inputs).last_hidden_state[0], atol=1e-5, rtol=0)
        assert row[~valid].eq(0).all()


@torch.no_grad()
def test_clip_equals_open_clip(clip_file):
    encoder = load_text_encoder("clip", path=clip_file)
    model = open_clip.CLIP(
        embed_dim=512,
        vision_cfg={"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        text_cfg={"layers": 2, "width": 64, "heads": 1},
        quick_gelu=True,
    )
    model.load_state_dict(load_file(clip_file))
    texts = [*CAPTIONS, "walk  on " * 60, "A  Person\nJUMPS"]
    expected = model.eval().encode_text(open_clip.tokenize(texts))
    with pytest.warns(UserWarning, match="1 of 7 captions have more than 75 word pieces"):
        features, mask = encoder.encode(texts)
    torch.testing.assert_close(features[:, 0], expected, atol=1e-5, rtol=0)
    assert mask.shape == (7, 1) and mask.all() and features.dtype == torch.float32


def test_features_do_not_depend_on_the_batch(encoder, monkeypatch):
    captions = [f"{caption} {'and then again ' * repeat}" for repeat in range(3) for caption in CAPTIONS]
    monkeypatch.setattr(encoder, "batch_size", 4)
    features, mask = encoder.encode(captions)
    for row, caption in enumerate(captions):
        torch.testing.assert_close(features[row, mask[row]], encoder.encode([caption])[0][0], rtol=0, atol=1e-4)


@torch.no_grad()
def test_long_captions_are_truncated_after_encoding(t5_folder):
    """As in the reference: the first 150 states of up to 512 word pieces."""
    encoder = load_text_encoder("flan-t5-small", path=t5_folder)
    text = "walks forward and " * 30
    model, tokenizer = T5EncoderModel.from_pretrained(t5_folder), T5Tokenizer.from_pretrained(t5_folder)
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
    assert 150 < inputs["input_ids"].shape[1] <= 512
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features, mask = encoder.encode([text, "walks"])
    assert features.shape == (2, 150, 512) and mask[0].all()
    torch.testing.assert_close(features[0], model(**inputs).last_hidden_state[0, :150], atol=1e-5, rtol=0)
    with pytest.warns(UserWarning, match="more than 511"):
        encoder.encode([text * 5])


@pytest.mark.parametrize("pooling", ["cls", "mean", "sum"])
def test_pooling_of_the_states(t5_folder, pooling):
    states, mask = load_text_encoder("flan-t5-small", path=t5_folder).encode(CAPTIONS)
    encoder = load_text_encoder(f"flan-t5-small:{pooling}", path=t5_folder)
    features, one = encoder.encode(CAPTIONS)
    assert features.shape == (len(CAPTIONS), 1, 512) and one.all() and encoder.max_length == 1
    total = (states * mask[..., None]).sum(dim=1)
    expected = {"cls": states[:, 0], "sum": total, "mean": total / mask.sum(dim=1, keepdim=True)}[pooling]
    torch.testing.assert_close(features[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["flan-t5-xl:max", "clip:mean", "minilm:sum", "flan-t5-huge", "flan-t5-xl:"])
def test_unknown_encoders_and_poolings_are_refused(name):
    with pytest.raises(InputError, match="unknown text encoder"):
        load_text_encoder(name)


# --- Search and loading of the weights


def test_weights_are_searched_in_checkpoints_then_in_the_cache_then_on_the_hub(
    t5_folder, clip_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    asked = []
    download = text_weights.snapshot_download

    def offline(hub_id, local_files_only, **settings):
        asked.append(local_files_only)
        return download(hub_id, local_files_only=True, **settings)

    monkeypatch.setattr(text_weights, "snapshot_download", offline)
    for name, hub_id, size, source in (
        ("flan-t5-small", "google/flan-t5-small", "0.3 GB", t5_folder),
        ("clip", "timm/vit_base_patch32_clip_224.openai", "0.6 GB", clip_file.parent),
    ):
        with pytest.raises(InputError) as caught:
            load_text_encoder(name)
        for words in (hub_id, size, f"checkpoints/{name}", "hf download"):
            assert words in str(caught.value)
        assert asked == [True, False]  # the network last
        cache_on_hub(cache, hub_id, source)
        assert load_text_encoder(name).name == name
        assert asked == [True, False, True]
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / name).symlink_to(source, target_is_directory=True)
        assert load_text_encoder(name).name == name and len(asked) == 3
        asked.clear()


def test_invalid_t5_weights_are_refused(t5_folder, tmp_path):
    def error(folder, name="flan-t5-small"):
        with pytest.raises(InputError) as caught:
            load_text_encoder(name, path=folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def copy(name):
        return shutil.copytree(t5_folder, tmp_path / name)

    assert "does not hold config.json" in error(tmp_path)
    assert "t5 of width 512 where a t5 of width 2048 is needed" in error(t5_folder, "flan-t5-xl")
    folder = copy("half")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])
    assert "model.safetensors: its tensors need" in error(folder)
    folder = copy("less")
    weights = load_file(folder / WEIGHTS)
    save_file(
        {name: value for name, value in weights.items() if "block.1" not in name}, folder / WEIGHTS, {"format": "pt"}
    )
    assert "holds no weights for encoder.block.1" in error(folder)
    folder = copy("bert")
    edit_json(folder / "config.json", model_type="bert", hidden_size=512)
    assert "holds a bert" in error(folder)
    folder = copy("pieces")
    (folder / "spiece.model").write_text("no model")
    assert "cannot be read" in error(folder)


def test_invalid_clip_weights_are_refused(clip_file, tmp_path):
    def error(file):
        with pytest.raises(InputError) as caught:
            load_text_encoder("clip", path=file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not hold open_clip_model.safetensors" in error(tmp_path)
    assert "CLIP of width 64 for 77 word pieces where 512" in error(
        make_clip(tmp_path / "narrow.safetensors", width=64)
    )
    (tmp_path / "half.safetensors").write_bytes(clip_file.read_bytes()[:5000])
    assert "half.safetensors: its header should have" in error(tmp_path / "half.safetensors")
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "other.pt")
    assert "CLIP text encoder in open_clip's layout" in error(tmp_path / "other.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    assert "of a TorchScript program, which is not run" in error(tmp_path / "program.pt")
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in load_file(clip_file).items()}}, tmp_path / "as.pt"
    )
    plain, wrapped = (
        load_text_encoder("clip", path=path).encode(CAPTIONS)[0] for path in (clip_file, tmp_path / "as.pt")
    )
    torch.testing.assert_close(wrapped, plain, atol=0, rtol=0)


# --- Cached features


def test_cached_features_equal_those_of_the_encoder(encoder, tmp_path):
    expected, mask = CaptionFeatures(encoder)(CAPTIONS)
    cached = CaptionFeatures(encoder, tmp_path, CAPTIONS[:3])
    features, cached_mask = cached(CAPTIONS)  # the last two are not cached
    assert torch.equal(cached_mask, mask)
    torch.testing.assert_close(features, expected, atol=2e-3, rtol=2e-3)
    again = CaptionFeatures(encoder, tmp_path)
    assert set(again.cached) == set(CAPTIONS[:3]) and torch.equal(again(CAPTIONS[:3])[0], cached(CAPTIONS[:3])[0])


def test_interrupted_encoding_resumes_to_the_same_files(encoder, tmp_path, monkeypatch):
    captions = [f"{caption}, {number} times" for number in range(5) for caption in CAPTIONS]
    monkeypatch.setattr(CaptionFeatures, "CAPTIONS_PER_FILE", 4)
    CaptionFeatures(encoder, tmp_path / "whole", captions)
    encode, calls = encoder.encode, []

    def interrupted(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(encoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        CaptionFeatures(encoder, tmp_path / "part", captions)
    CaptionFeatures(encoder, tmp_path / "part", captions)
    assert len(calls) == 1 + 7  # only the interrupted file is encoded again
    whole, part = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*/*")} for name in ("whole", "part")
    )
    assert part == whole and len(whole) == 7
    (damaged,) = list((tmp_path / "part").glob("*/*"))[:1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{damaged}: .*; remove that file"):
        CaptionFeatures(encoder, tmp_path / "part")


def test_processes_share_the_encoding(encoder, tmp_path):
    alone, _ = CaptionFeatures(encoder, tmp_path / "alone", CAPTIONS)(CAPTIONS)
    first = []

    def other_process():
        first.extend((tmp_path / "shared").glob("*/*"))
        CaptionFeatures(encoder, tmp_path / "shared", CAPTIONS, process=1, processes=2)

    shared = CaptionFeatures(encoder, tmp_path / "shared", CAPTIONS, process=0, processes=2, wait=other_process)
    assert len(first) == 1 and len(shared.files) == 2 and shared.cached.keys() == set(CAPTIONS)
    torch.testing.assert_close(shared(CAPTIONS)[0], alone, atol=2e-3, rtol=2e-3)


def test_each_encoder_and_its_weights_have_their_own_cache(t5_folder, tmp_path):
    names = set()
    for folder in (t5_folder, make_t5(tmp_path / "other", seed=1)):
        for name in ("flan-t5-small", "flan-t5-small:mean"):
            CaptionFeatures(load_text_encoder(name, path=folder), tmp_path / "features", CAPTIONS[:1])
            names = {path.name for path in (tmp_path / "features").iterdir()}
    assert len(names) == 4


# --- By command line


@pytest.mark.parametrize("name", ["flan-t5-small", "clip", "flan-t5-small:mean"])
def test_training_and_inference_with_each_encoder(
    request, name, data_folder, tokenizer_run, tmp_path, run_here, refused
):
    weights, run, out = path_of(request, name), tmp_path / "run", tmp_path / "out"
    cached = "false" if name == "clip" else "true"
    training = ("train_t2m.py", *T2M, "--data", data_folder, "--tokenizer", tokenizer_run, "--out", run,
                "--text-encoder", name, "--text-encoder-path", weights, "--cache-text-features", cached)  # fmt: skip
    run_here(*training, "--steps", 6, "--validate_every", 3)
    config = LLaMAHF.from_pretrained(run).config
    assert (config.text_encoder, config.text_dim) == (name, 512)
    features = list((data_folder / "text_features").glob(f"{name.replace(':', '-')}-*/*.safetensors"))
    assert len(features) == (cached == "true")
    before = (run / WEIGHTS).read_bytes()
    run_here(*training, "--steps", 9, "--validate_every", 3, "--resume", "true")
    assert (run / WEIGHTS).read_bytes() != before

    inference = ("inference_batch.py", "--checkpoint", run, "--prompt", CAPTIONS[0], "--save", "npz", "--seconds", "1")
    run_here(*inference, "--text-encoder-path", weights, "--out-dir", out)
    (made,) = out.glob("*.npz")
    with np.load(made, allow_pickle=False) as saved:
        assert saved["features"].shape == (32, 272) and np.isfinite(saved["features"]).all()
        assert str(saved["prompt"]) == str(saved["text"]) == CAPTIONS[0]
        tokens = saved["tokens"]
    model = TextToMotion.from_pretrained(run, text_encoder_path=weights)
    assert np.array_equal(model.generate([CAPTIONS[0]], [0], seconds=[1.0])[0].tokens, tokens)

    other = path_of(request, "clip" if name != "clip" else "flan-t5-small")
    error = refused(*inference, "--text-encoder-path", other, "--out-dir", tmp_path / "none")
    assert f"the checkpoint {run} cannot be used" in error and not list((tmp_path / "none").glob("*"))


def test_a_generator_refuses_another_encoder(clip_file, t2m_run, tmp_path):
    model = TextToMotion.from_pretrained(t2m_run)
    with pytest.raises(InputError, match="trained with minilm features of width 384, not with clip of width 512"):
        TextToMotion(model.generator, model.tokenizer, load_text_encoder("clip", path=clip_file), "test")


# --- Rewriting


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    return make_chat(tmp_path_factory.mktemp("chat") / "model", "Here it is: { a person strolls }")


def test_prompts_are_rewritten(chat_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rewritten = rewrite_prompts(str(chat_folder), ["walks", "ambles", "walks"], torch.device("cpu"))
    assert rewritten == {"walks": "a person strolls", "ambles": "a person strolls"}
    sequence = rewrite_prompts(str(chat_folder), ["walks | jumps"], torch.device("cpu"))
    assert sequence == {"walks | jumps": "a person strolls | a person strolls"}  # each sentence separately
    assert rewrite_prompts(None, ["walks"], torch.device("cpu")) == {}


def test_a_reply_without_a_sentence_keeps_the_prompt(tmp_path):
    folder = make_chat(tmp_path / "model", "I can not help you")
    with pytest.warns(UserWarning, match="the prompt 'walks' is used as it is: rewriting failed"):
        assert rewrite_prompts(str(folder), ["walks"], torch.device("cpu")) == {"walks": "walks"}


@pytest.mark.parametrize(
    "reply, sentence",
    [
        ("{A person walks.}", "A person walks."),
        ("<think>{no} maybe</think>\n{ A person\n walks. }", "A person walks."),
        ("{A person walks. | A person runs.}", "A person walks. A person runs."),
        ("{}", None),
        ("A person walks.", None),
        ("{" + "x" * 2000 + "}", None),
    ],
)
def test_extraction_of_the_sentence_from_a_reply(reply, sentence):
    if sentence is None:
        with pytest.raises(InputError):
            sentence_of(reply)
    else:
        assert sentence_of(reply) == sentence


def test_models_without_a_chat_template_are_refused(chat_folder, tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        rewrite_prompts(str(tmp_path / "none"), ["walks"], torch.device("cpu"))
    mute = shutil.copytree(chat_folder, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        rewrite_prompts(str(mute), ["walks"], torch.device("cpu"))


def test_code_in_the_folder_of_a_chat_model_does_not_run(tmp_path, monkeypatch):
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Words", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": names}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Words", "auto_map": names}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'EXECUTED')!r}, 'w')")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(InputError, match="cannot be loaded"):
        rewrite_prompts(str(tmp_path), ["walks"], torch.device("cpu"))
    assert not (tmp_path / "EXECUTED").exists()


def test_the_rewritten_text_is_saved_with_the_prompt(chat_folder, t2m_run, tmp_path, run_here):
    command = ("inference_batch.py", "--checkpoint", t2m_run, "--save", "npz", "--seconds", "1", "--out-dir", tmp_path)
    rewriting = (*command, "--prompt", "it ambles", "--rewrite-model", chat_folder)
    run_here(*rewriting)
    (entry,) = json.loads((tmp_path / "results.json").read_text())
    assert (entry["prompt"], entry["text"]) == ("it ambles", "a person strolls")
    with np.load(tmp_path / entry["files"][0], allow_pickle=False) as saved:
        assert (str(saved["prompt"]), str(saved["text"])) == ("it ambles", "a person strolls")
        tokens = saved["tokens"]
    model = TextToMotion.from_pretrained(t2m_run)
    assert np.array_equal(model.generate(["a person strolls"], [0], seconds=[1.0])[0].tokens, tokens)
    assert "1 of 1 motions are in" in run_here(*rewriting)
    assert "1 motion generated" in run_here(*command, "--prompt", "it ambles")  # another motion
