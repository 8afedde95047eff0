"""Prompt rewriting with a chat model before generation: plainer wording, same meaning (as in MotionMillion-Codes)."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from utils.errors import InputError, reason_of, shown
from utils.prompts import Prompt
from utils.reading.files import check_regular

INSTRUCTION = """You word descriptions of human motion for a motion generator.
Say the following description as one clear, plain sentence about a person. Keep every action, its order, direction, \
speed, body part and style; add nothing and leave nothing out.
Answer with the sentence alone, in curly brackets, for example: {{A person walks forward and waves the right hand.}}
Description: {prompt}"""
MAX_REPLY = 256  # new tokens


def rewrite_prompts(model: str | None, prompts: Sequence[str], device: torch.device) -> dict[str, str]:
    """Rewrite each sentence of each prompt. Decoding is greedy, so that a prompt is always rewritten in the same way.

    A prompt whose reply is not usable is kept unchanged, with a warning.

    Args:
        model: Folder or hub id of a chat model; None for no rewriting.

    Returns:
        A dictionary from prompts to rewritten prompts; empty without a model.

    Raises:
        InputError: a prompt is invalid, or the model cannot be loaded or is no chat model.
    """
    if model is None or not prompts:
        return {}
    parsed = {prompt: Prompt.parse(prompt) for prompt in prompts}
    chat = Chat(model, device)
    rewritten = {}
    for prompt, parsed_prompt in parsed.items():
        try:
            replies = [chat.reply(INSTRUCTION.format(prompt=sentence)) for sentence in parsed_prompt.sentences]
            rewritten[prompt] = str(Prompt.parse([sentence_of(reply) for reply in replies]))
        except (InputError, RuntimeError) as error:  # torch raises RuntimeError, for example out of memory
            warnings.warn(
                f"the prompt {prompt[:60]!r} is used as it is: rewriting failed ({reason_of(error)})", stacklevel=2
            )
            rewritten[prompt] = prompt
    return rewritten


def sentence_of(reply: str) -> str:
    """Return the sentence in the last curly brackets of a reply.

    Raises:
        InputError: there is none, or it is not a valid prompt.
    """
    found = re.findall(r"\{([^{}]*)\}", reply)
    if not found:
        raise InputError(f"no sentence in curly brackets in the reply {reply.strip()[:60]!r}")
    sentence = " ".join(found[-1].replace("|", " ").split())
    return str(Prompt.parse(sentence))


class Chat:
    """Chat model of ``transformers``, in bfloat16 on a GPU and in the precision of its files on a CPU."""

    def __init__(self, model: str, device: torch.device) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            if Path(model).is_dir():
                check_regular(Path(model), "a chat model")
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            dtype = torch.bfloat16 if device.type == "cuda" else "auto"
            loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, trust_remote_code=False)
            self.model = loaded.eval().to(device)
        except Exception as error:  # the library raises many types of errors
            raise InputError(
                f"the rewrite model {shown(model, 150)} cannot be loaded ({reason_of(error)}); check the folder or id"
            ) from error
        if self.tokenizer.chat_template is None:
            raise InputError(f"the rewrite model {shown(model)} has no chat template; give a chat (instruct) model")

    @torch.inference_mode()
    def reply(self, message: str) -> str:
        """Return the reply to a message, at most ``MAX_REPLY`` tokens."""
        conversation = [{"role": "user", "content": message}]
        inputs = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        ids = self.model.generate(**inputs, max_new_tokens=MAX_REPLY, do_sample=False)[0]
        return self.tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
