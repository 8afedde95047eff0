"""Prompts said anew by a chat model before generation, as MotionMillion-Codes offers: plainer wording, same meaning."""

import re
import warnings
from collections.abc import Sequence

import torch

from utils.errors import InputError
from utils.prompts import check_prompt, parts_of

INSTRUCTION = """You word descriptions of human motion for a motion generator.
Say the following description as one clear, plain sentence about a person. Keep every action, its order, direction, \
speed, body part and style; add nothing and leave nothing out.
Answer with the sentence alone, in curly brackets, for example: {{A person walks forward and waves the right hand.}}
Description: {prompt}"""
MAX_REPLY = 256  # word pieces


def rewrite_prompts(model: str | None, prompts: Sequence[str], device: torch.device) -> dict[str, str]:
    """Prompt -> what the chat model ``model`` (a folder or hub id) makes of its sentences; {} if there is none.

    A prompt whose reply cannot be used stays as it is, with a warning. The likeliest reply is taken: the same prompt
    always gets the same.

    Raises:
        InputError: the model cannot be loaded or is no chat model.
    """
    if model is None or not prompts:
        return {}
    chat = Chat(model, device)
    rewritten = {}
    for prompt in dict.fromkeys(prompts):
        try:
            parts = [sentence_of(chat.reply(INSTRUCTION.format(prompt=part))) for part in parts_of(prompt)]
            rewritten[prompt] = " | ".join(parts)
        except (InputError, RuntimeError) as error:  # torch raises RuntimeError, out of memory among others
            reason = str(error).splitlines()[0]
            warnings.warn(f"the prompt {prompt[:60]!r} is used as it is: rewriting failed ({reason})", stacklevel=2)
            rewritten[prompt] = prompt
    return rewritten


def sentence_of(reply: str) -> str:
    """The sentence in the last curly brackets of a reply.

    Raises:
        InputError: there is none, or it is no prompt.
    """
    found = re.findall(r"\{([^{}]*)\}", reply)
    if not found:
        raise InputError(f"no sentence in curly brackets in the reply {reply.strip()[:60]!r}")
    sentence = " ".join(found[-1].replace("|", " ").split())
    check_prompt(sentence)
    return sentence


class Chat:
    """A chat model of ``transformers``, in bfloat16 on a GPU and in the precision of its files on the CPU."""

    def __init__(self, model: str, device: torch.device):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model)
            dtype = torch.bfloat16 if device.type == "cuda" else "auto"
            self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval().to(device)
        except Exception as error:  # the library raises many kinds
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the rewrite model {model} cannot be loaded ({reason}); check the folder or id"
            ) from error
        if self.tokenizer.chat_template is None:
            raise InputError(f"the rewrite model {model} has no chat template; give a chat (instruct) model")

    @torch.inference_mode()
    def reply(self, message: str) -> str:
        conversation = [{"role": "user", "content": message}]
        inputs = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        ids = self.model.generate(**inputs, max_new_tokens=MAX_REPLY, do_sample=False)[0]
        return self.tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
