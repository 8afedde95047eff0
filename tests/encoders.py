"""Small text encoders and a chat model in their real file formats, with random or hand-set weights."""

import json
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

CAPTIONS = [
    "a person walks forward",
    "someone raises the right hand slowly, as an elderly person would do",
    "jumps",
    "the man runs in a circle, then he sits down and waves with both hands",
    "a dancer turns twice to the left and bows",
]


def make_t5(folder: Path, width: int = 512, seed: int = 0) -> Path:
    """Write a T5 encoder with two layers and a SentencePiece model trained on ``CAPTIONS``."""
    from transformers import T5Config, T5EncoderModel

    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    shape = {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 256}
    T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu")).save_pretrained(folder)
    return folder


def make_clip(file: Path, width: int = 512, seed: int = 0) -> Path:
    """Write a small CLIP with text vectors of ``width`` in the layout of open_clip's released files."""
    import open_clip

    torch.manual_seed(seed)
    model = open_clip.CLIP(
        embed_dim=width,
        vision_cfg={"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        text_cfg={"layers": 2, "width": 64, "heads": 1},
        quick_gelu=True,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return file


def make_chat(folder: Path, answer: str) -> Path:
    """Write a Llama without layers that replies ``answer`` to every prompt: each of its words predicts the next."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<answer>", *dict.fromkeys(answer.split()), "<end>"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}<answer>"
    fast.save_pretrained(folder)
    size = len(words)
    shape = {"hidden_size": size + size % 2, "num_attention_heads": 1, "intermediate_size": 4, "num_hidden_layers": 0}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=size, eos_token_id=size - 1, **shape))
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(*model.model.embed_tokens.weight.shape))
        model.lm_head.weight.zero_()
        chain = ["<answer>", *answer.split(), "<end>"]
        for word, following in zip(chain, chain[1:], strict=False):
            model.lm_head.weight[words.index(following), words.index(word)] = 1
    model.generation_config.eos_token_id = size - 1
    model.save_pretrained(folder)
    return folder


def cache_on_hub(cache: Path, hub_id: str, source: Path) -> None:
    """Link a folder into a Hugging Face cache as if it had been downloaded."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(source.resolve(), target_is_directory=True)


def edit_json(file: Path, **changes) -> None:
    """Replace values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
