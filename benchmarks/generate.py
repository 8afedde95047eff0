"""Generation speed, compared with the public algorithm, with Hugging Face, and with the limit of the machine.

    python -m benchmarks.generate

A 44M model with random weights generates 50 tokens per prompt, greedily, for texts of 6 to 40 features. Each line of
the table is measured in a process of its own: best of three after a warm-up. The limit of one row is the time to read
the weights from memory per token; that of 32 rows is the arithmetic at the speed of the fastest matrix product in that
precision. Further measurements: prompts of very different length, and the shipped checkpoint.
"""

import utils.interrupt  # noqa: F401

# isort: split

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from benchmarks.timing import seconds_of
from models.generate import Part, Request, decode_steps
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.optimize import optimize
from models.pipeline import TextToMotion
from models.sampling import Sampling
from motion.resample import FPS
from utils.config import parse_options
from utils.device import PRECISIONS, gemm_rate
from utils.errors import exit_on_input_error
from utils.processes import worker_pool

GREEDY = Sampling(temperature=0)
TEXT_DIM, SHORTEST, LONGEST, FRAMES_PER_TOKEN = 2048, 6, 40, 2


@dataclass
class Options:
    """Options of the benchmark."""

    size: str = "44M"
    """Model size in the table of models/llama.py."""
    tokens: PositiveInt = 50
    """Number of tokens per prompt."""
    repeats: PositiveInt = 3
    """Number of repetitions of each measurement; the best counts."""
    checkpoint: Path = Path("checkpoints/demo")
    """Folder of the text-to-motion model for the end-to-end measurements."""


class Measured(NamedTuple):
    """Cost of generating the tokens of all prompts."""

    seconds: float
    first_token: float  # seconds to the first token
    memory: float  # peak memory in GB


def make_model(size: str, max_tokens: int) -> LLaMAHF:
    """Return a model with the same random weights in every process."""
    torch.manual_seed(0)
    config = LLaMAConfig(
        codebook_size=64_000,
        text_dim=TEXT_DIM,
        text_encoder="random",
        text_length=LONGEST,
        max_tokens=max_tokens,
        **SIZES[size],
    )
    return LLaMAHF(config).eval()


def make_requests(count: int, tokens: list[int]) -> list[Request]:
    """Return requests of exactly ``tokens`` tokens each, with texts of evenly spread length in a fixed random order."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.linspace(SHORTEST, LONGEST, count).round().long()[torch.randperm(count, generator=generator)]
    texts = [torch.randn(length, TEXT_DIM, generator=generator) for length in lengths.tolist()]
    return [Request([Part(text, n, n)]) for text, n in zip(texts, tokens, strict=True)]


def best(measure: Callable[[], None], repeats: int) -> float:
    """Return the seconds of the fastest of ``repeats`` calls, after a warm-up."""
    return min(seconds_of(measure, repeats))


def peak_memory() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def bandwidth() -> float:
    """Return the GB/s at which all cores together read memory."""
    numbers = torch.ones(100_000_000)
    return numbers.nbytes / best(numbers.sum, 5) / 1e9


# --- three implementations


@torch.inference_mode()
def reference(options: Options) -> Measured:
    """Measure the public algorithm: one prompt at a time, no cache, logits of every position."""
    model, requests = make_model(options.size, options.tokens), make_requests(4, [options.tokens] * 4)

    def one(request: Request, tokens: int) -> None:
        text, generated = request.parts[0].text[None], []
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        for _ in range(tokens):
            hidden = model.hidden_states(text, mask, torch.tensor([generated]).long())
            generated.append(int(model.lm_head(hidden)[0, -1, : model.config.end_id].argmax()))

    seconds = best(lambda: [one(request, options.tokens) for request in requests], 1) / len(requests)
    return Measured(seconds, best(lambda: one(requests[0], 1), options.repeats), peak_memory())


def hugging_face(options: Options, rows: int, precision: str) -> Measured:
    """Measure LlamaForCausalLM.generate of the same shape; texts are given as embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = make_model(options.size, options.tokens).config
    shape = LlamaConfig(
        vocab_size=config.vocab_size - 1,
        hidden_size=config.n_embd,
        intermediate_size=config.mlp_hidden,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        max_position_embeddings=config.block_size,
    )
    model = LlamaForCausalLM(shape).eval().to(PRECISIONS[precision])
    lengths = torch.tensor([len(request.parts[0].text) for request in make_requests(rows, [1] * rows)])
    mask = (torch.arange(int(lengths.max())) >= lengths.max() - lengths[:, None]).long()  # padded on the left
    texts = torch.randn(*mask.shape, config.n_embd, dtype=PRECISIONS[precision])

    def make(tokens: int) -> None:
        settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        model.generate(inputs_embeds=texts, attention_mask=mask, **settings)

    seconds = best(lambda: make(options.tokens), options.repeats)
    return Measured(seconds, best(lambda: make(1), options.repeats), peak_memory())


def ours(options: Options, rows: int, precision: str, quantize: str, compiled: bool) -> Measured:
    model = optimize(make_model(options.size, options.tokens), PRECISIONS[precision], quantize, compiled)
    requests = make_requests(rows, [options.tokens] * rows)
    seconds = best(lambda: list(decode_steps(model, requests, GREEDY, slots=rows)), options.repeats)
    first_token = best(lambda: next(decode_steps(model, requests, GREEDY, slots=rows)), options.repeats)
    return Measured(seconds, first_token, peak_memory())


# --- many prompts


def waiting(options: Options, way: str) -> float:
    """Return the requested tokens per second for 256 prompts of 1 to 10 s at 7.5 tokens/s, 32 at a time, in bf16.

    Args:
        way: "fixed" batches, or continuous batching "in order" or with the "longest first", which is the order of
            ``TextToMotion`` if lengths are given.
    """
    model = optimize(make_model(options.size, 75), torch.bfloat16)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(8, 76, (256,), generator=generator).tolist()
    requests = make_requests(len(tokens), tokens)
    if way == "longest first":
        requests.sort(key=lambda request: -request.max_tokens)
    if way == "fixed":  # all rows of a batch continue until its longest motion is finished
        for first in range(0, len(requests), 32):
            longest = max(tokens[first : first + 32])
            for request in requests[first : first + 32]:
                request.parts[0].min_tokens = request.parts[0].max_tokens = longest

    together = 32 if way == "fixed" else len(requests)

    def make() -> None:
        for first in range(0, len(requests), together):
            list(decode_steps(model, requests[first : first + together], GREEDY, slots=32))

    return sum(tokens) / best(make, 1)


def long_motions(options: Options) -> float:
    """Return the peak memory in GB of generating 64 motions of 10 s (150 tokens of 2 frames) at a time, in bf16."""
    model = optimize(make_model(options.size, 150), torch.bfloat16)
    list(decode_steps(model, make_requests(64, [150] * 64), GREEDY, slots=64))
    return peak_memory()


# --- the shipped checkpoint, from sentence to joints


def shipped(options: Options) -> str:
    """Describe the speed of the shipped checkpoint."""
    model = TextToMotion.from_pretrained(options.checkpoint)
    prompts = ["a person walks forward", "someone waves the left hand", "a person runs", "a person bows slowly"] * 8
    motions = model.generate(prompts, list(range(32)))
    seconds = best(lambda: model.generate(prompts, list(range(32))), options.repeats)
    generated = sum(len(motion.features) for motion in motions) / FPS

    length = model.max_frames / FPS
    list(model.stream(prompts[0], seconds=1.0))
    times = [time.perf_counter()]
    for _ in model.stream(prompts[0], seconds=length):
        times.append(time.perf_counter())
    each = 1000 * np.diff(times)  # ms per token; the first includes the text
    pace = 1000 / each[1:].mean() / model.tokens_of(1.0)
    early, late = np.median(each[1:21]), np.median(each[130:150])
    return (
        f"32 motions in {seconds:.2f} s: {32 / seconds:.0f} motions/s, "
        f"{generated / seconds:.0f} s of motion per second\n"
        f"one stream: first frames after {each[0]:.0f} ms, then {pace:.0f}x real time; "
        f"{early:.1f} ms per token from the 2nd to the 21st, {late:.1f} from the 131st to the 150th"
    )


@torch.inference_mode()
def precision_costs(options: Options) -> str:
    """Compare the logits of the shipped generator in lower precision with float32, along motions of its own."""
    exact = TextToMotion.from_pretrained(options.checkpoint)
    prompts = ["a person walks forward", "someone waves the left hand", "a person runs", "a person bows slowly"] * 8
    motions = exact.generate(prompts, list(range(32)))
    pad = exact.generator.config.pad_id
    tokens = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(motion.tokens) for motion in motions], True, pad)
    text, mask = exact.text_encoder.encode(prompts)
    kept = exact.generator.next_tokens(tokens) != pad
    expected = exact.generator(text, mask, tokens)[kept]
    lines = []
    for quantize in ("none", "int8"):
        model = TextToMotion.from_pretrained(options.checkpoint, dtype=torch.bfloat16, quantize=quantize)
        logits = model.generator(text, mask, tokens)[kept].float()
        change = float((logits - expected).norm() / expected.norm())
        same = float((logits.argmax(-1) == expected.argmax(-1)).float().mean())
        name = "bf16" if quantize == "none" else quantize
        lines.append(
            f"{name}: logits change by {100 * change:.2f} %, the most likely token is the same in {100 * same:.1f} %"
        )
    return "\n".join(lines)


def alone(measure: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a new process and return its result."""
    with worker_pool(1) as pool:
        return pool.submit(measure, *arguments).result()


def main(options: Options) -> None:
    read = alone(bandwidth)
    rates = {name: alone(gemm_rate, torch.device("cpu"), PRECISIONS[name]) / 1e9 for name in ("float32", "bf16")}
    print(
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}; memory is read at {read:.0f} GB/s, ", end=""
    )
    print(", ".join(f"{precision} products {rate:.0f} GFLOPS" for precision, rate in rates.items()), end="\n\n")
    model = make_model(options.size, options.tokens)
    weights = sum(parameter.numel() for parameter in model.transformer.h.parameters()) + model.lm_head.weight.numel()
    cases = [("public algorithm, float32", 1, "float32", reference, (options,))]
    for precision in rates:
        for rows in (1, 32):
            arguments = (options, rows, precision)
            cases.append((f"Hugging Face, {precision}", rows, precision, hugging_face, arguments))
            cases.append((f"ours, {precision}", rows, precision, ours, (*arguments, "none", False)))
    for rows in (1, 32):
        cases.append(("ours, int8", rows, "int8", ours, (options, rows, "bf16", "int8", False)))
        cases.append(("ours, bf16, compiled", rows, "bf16", ours, (options, rows, "bf16", "none", True)))
        cases.append(("ours, int8, compiled", rows, "int8", ours, (options, rows, "bf16", "int8", True)))
    speeds = "tokens/s | speedup over public | motions/s | s of motion/s"
    print(f"| | rows | {speeds} | first token, ms | memory, GB | % of limit |")
    print("|---|---|---|---|---|---|---|---|---|")
    public = None
    for name, rows, precision, measure, arguments in cases:
        measured = alone(measure, *arguments)
        speed = rows * options.tokens / measured.seconds
        public = public or speed
        bytes_each = {"float32": 4, "bf16": 2, "int8": 1}[precision]
        rate = rates["float32" if precision == "float32" else "bf16"]
        share = weights * bytes_each * speed / read / 1e9 if rows == 1 else 2 * weights * speed / rate / 1e9
        print(
            f"| {name} | {rows} | {speed:,.0f} | {speed / public:.1f} | {rows / measured.seconds:.1f} "
            f"| {speed * FRAMES_PER_TOKEN / FPS:,.0f} | {1000 * measured.first_token:.0f} | {measured.memory:.2f} "
            f"| {100 * share:.0f} % |",
            flush=True,
        )
    fixed, in_order, longest = (alone(waiting, options, way) for way in ("fixed", "in order", "longest first"))
    print(
        f"\n256 prompts of 8 to 75 tokens, 32 at a time, bf16: fixed batches {fixed:,.0f} tokens/s, continuous ", end=""
    )
    print(f"{in_order:,.0f} in order ({in_order / fixed:.2f}x), {longest:,.0f} longest first ({longest / fixed:.2f}x)")
    print(f"64 motions of 10 s at a time, bf16: {alone(long_motions, options):.2f} GB peak memory")
    print(f"\n{options.checkpoint}, float32\n{alone(shipped, options)}")
    print(alone(precision_costs, options))


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
