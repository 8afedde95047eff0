"""Generation speed, compared with the public algorithm, with Hugging Face, and with the limit of the machine.

    python -m benchmarks.generate

A 44M model with random weights generates 50 tokens per prompt, greedily, for texts of 6 to 40 features. Each line of
the tables is measured in a process of its own. The processes of one number of rows take turns, so that other load on
the machine meets all of them, and each line is the median of its turns. The limit of one row is the time to read the
weights from memory per token; that of 32 rows is the arithmetic at the speed of the fastest matrix product in that
precision. Further measurements: prompts of very different length, and the shipped checkpoint.
"""

import utils.interrupt  # noqa: F401

# isort: split

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
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
    """Model size in the table of models/llama_config.py."""
    tokens: PositiveInt = 50
    """Number of tokens per prompt."""
    repeats: PositiveInt = 5
    """Number of turns of each measurement; the median counts."""
    checkpoint: Path = Path("checkpoints/demo")
    """Folder of the text-to-motion model for the end-to-end measurements."""


Generate = Callable[[int], Any]  # generates a number of tokens for every prompt


class Case(NamedTuple):
    """A line of the tables."""

    name: str
    rows: int
    precision: str
    prepare: Callable[..., Generate]
    arguments: tuple[Any, ...]


class Place(NamedTuple):
    """Device and precision that a model is made in."""

    device: torch.device
    dtype: torch.dtype

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Make new tensors here unless they ask for another device or precision."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with self.device:
                yield
        finally:
            torch.set_default_dtype(before)


ON_CPU = Place(torch.device("cpu"), torch.float32)


class Measured(NamedTuple):
    """Cost of generating the tokens of all prompts."""

    seconds: float
    first_token: float  # seconds to the first token
    memory: float  # peak memory in GB


def config_of(size: str, max_tokens: int) -> LLaMAConfig:
    """Return the configuration of a size, for texts of at most ``LONGEST`` features."""
    return LLaMAConfig(
        codebook_size=64_000,
        text_dim=TEXT_DIM,
        text_encoder="random",
        text_length=LONGEST,
        max_tokens=max_tokens,
        **SIZES[size],
    )


def make_model(size: str, max_tokens: int, place: Place = ON_CPU) -> LLaMAHF:
    """Return a model with the same random weights in every process."""
    torch.manual_seed(0)
    with place.in_use():
        return LLaMAHF(config_of(size, max_tokens)).eval()


def make_requests(count: int, tokens: list[int]) -> list[Request]:
    """Return requests of exactly ``tokens`` tokens each, with texts of evenly spread length in a fixed random order."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.linspace(SHORTEST, LONGEST, count).round().long()[torch.randperm(count, generator=generator)]
    texts = [torch.randn(length, TEXT_DIM, generator=generator) for length in lengths.tolist()]
    return [Request([Part(text, n, n)]) for text, n in zip(texts, tokens, strict=True)]


def peak_memory() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def bandwidth() -> float:
    """Return the GB/s at which all cores together read memory."""
    numbers = torch.ones(100_000_000)
    return numbers.nbytes / min(seconds_of(numbers.sum, 5)) / 1e9


# --- three implementations


def reference(options: Options, place: Place = ON_CPU) -> Generate:
    """Return the public algorithm: one prompt at a time, no cache, logits of every position."""
    model, [request] = make_model(options.size, options.tokens, place), make_requests(1, [options.tokens])
    text = request.parts[0].text[None].to(place.device)
    mask = torch.ones(text.shape[:2], dtype=torch.bool, device=place.device)

    @torch.inference_mode()
    def generate(tokens: int) -> None:
        generated: list[int] = []
        for _ in range(tokens):
            tokens_so_far = torch.tensor([generated], dtype=torch.long, device=place.device)
            hidden = model.hidden_states(text, mask, tokens_so_far)
            generated.append(int(model.lm_head(hidden)[0, -1, : model.config.end_id].argmax()))

    return generate


def hugging_face(options: Options, rows: int, precision: str, place: Place = ON_CPU) -> Generate:
    """Return LlamaForCausalLM.generate of the same shape; texts are given as embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = config_of(options.size, options.tokens)
    shape = LlamaConfig(
        vocab_size=config.vocab_size - 1,
        hidden_size=config.n_embd,
        intermediate_size=config.mlp_hidden,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        max_position_embeddings=config.block_size,
    )
    with place.in_use():
        model = LlamaForCausalLM(shape).eval().to(PRECISIONS[precision])
    lengths = torch.tensor([len(request.parts[0].text) for request in make_requests(rows, [1] * rows)])
    mask = (torch.arange(int(lengths.max())) >= lengths.max() - lengths[:, None]).long()  # padded on the left
    texts = torch.randn(*mask.shape, config.n_embd, dtype=PRECISIONS[precision]).to(place.device)
    mask = mask.to(place.device)

    def generate(tokens: int) -> None:
        settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        model.generate(inputs_embeds=texts, attention_mask=mask, **settings)

    return generate


def ours(options: Options, rows: int, precision: str, quantize: str, compiled: bool, place: Place = ON_CPU) -> Generate:
    model = optimize(make_model(options.size, options.tokens, place), PRECISIONS[precision], quantize, compiled)
    requests = make_requests(rows, [options.tokens] * rows)

    def generate(tokens: int) -> None:
        steps = decode_steps(model, requests, GREEDY, slots=rows)
        for _ in islice(steps, tokens):
            pass
        if tokens == options.tokens:
            next(steps, None)  # the end, where the model keeps its cache for the next call

    return generate


def prepared(options: Options, case: Case) -> None:
    """Prepare a case in this process, and warm up."""
    global generate
    generate = case.prepare(options, *case.arguments)
    generate(options.tokens)


def turn(tokens: int) -> Measured:
    """Measure one turn of the case of this process."""
    started = time.perf_counter()
    generate(tokens)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    generate(1)
    return Measured(seconds, time.perf_counter() - started, peak_memory())


def in_turns(options: Options, cases: list[Case]) -> list[Measured]:
    """Return the medians of cases whose processes take turns."""
    with ExitStack() as stack:
        pools = [stack.enter_context(worker_pool(1)) for _ in cases]
        for pool, case in zip(pools, cases, strict=True):
            pool.submit(prepared, options, case).result()
        turns = [[pool.submit(turn, options.tokens).result() for pool in pools] for _ in range(options.repeats)]
    return [Measured(*np.median(each, axis=0)) for each in np.array(turns).swapaxes(0, 1)]


# --- many prompts


def waiting(options: Options, prompts: int = 256) -> dict[str, float]:
    """Return the requested tokens per second for prompts of 1 to 10 s at 7.5 tokens/s, 32 at a time, in bf16.

    The ways are "fixed" batches, and continuous batching "in order" or with the "longest first", which is the order of
    ``TextToMotion`` if lengths are given. They take turns.
    """
    model = optimize(make_model(options.size, 75), torch.bfloat16)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(8, 76, (prompts,), generator=generator).tolist()
    requests = make_requests(len(tokens), tokens)
    fixed = make_requests(len(tokens), tokens)
    for first in range(0, len(fixed), 32):  # all rows of a batch continue until its longest motion is finished
        longest = max(tokens[first : first + 32])
        for request in fixed[first : first + 32]:
            request.parts[0].min_tokens = request.parts[0].max_tokens = longest
    ways = {
        "fixed": [fixed[first : first + 32] for first in range(0, len(fixed), 32)],
        "in order": [requests],
        "longest first": [sorted(requests, key=lambda request: -request.max_tokens)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + options.repeats):
        for way, batches in ways.items():
            started = time.perf_counter()
            for batch in batches:
                list(decode_steps(model, batch, GREEDY, slots=32))
            seconds[way].append(time.perf_counter() - started)
    return {way: sum(tokens) / float(np.median(each[1:])) for way, each in seconds.items()}


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
    seconds = float(np.median(seconds_of(lambda: model.generate(prompts, list(range(32))), options.repeats)))
    generated = sum(len(motion.features) for motion in motions) / FPS

    length = model.max_frames / FPS
    list(model.stream(prompts[0], seconds=1.0))
    turns = []
    for _ in range(options.repeats):
        times = [time.perf_counter()]
        for chunk in model.stream(prompts[0], seconds=length):
            assert chunk.smplx85.size  # computed on access
            times.append(time.perf_counter())
        turns.append(1000 * np.diff(times))  # ms per token; the first includes the text
    each = np.median(turns, axis=0)
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


def cases_of(rows: int) -> list[Case]:
    """Return the cases that are compared with each other."""
    cases = [Case("public algorithm, float32", 1, "float32", reference, ())] if rows == 1 else []
    for precision in ("float32", "bf16"):
        cases.append(Case(f"Hugging Face, {precision}", rows, precision, hugging_face, (rows, precision)))
        cases.append(Case(f"ours, {precision}", rows, precision, ours, (rows, precision, "none", False)))
    cases.append(Case("ours, int8", rows, "int8", ours, (rows, "bf16", "int8", False)))
    cases.append(Case("ours, bf16, compiled", rows, "bf16", ours, (rows, "bf16", "none", True)))
    cases.append(Case("ours, int8, compiled", rows, "int8", ours, (rows, "bf16", "int8", True)))
    return cases


def main(options: Options) -> None:
    read = alone(bandwidth)
    rates = {name: alone(gemm_rate, torch.device("cpu"), PRECISIONS[name]) / 1e9 for name in ("float32", "bf16")}
    print(
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}; memory is read at {read:.0f} GB/s, ", end=""
    )
    print(", ".join(f"{precision} products {rate:.0f} GFLOPS" for precision, rate in rates.items()), end="\n\n")
    model = make_model(options.size, options.tokens)
    weights = sum(parameter.numel() for parameter in model.transformer.h.parameters()) + model.lm_head.weight.numel()
    speeds = "tokens/s | speedup over public | motions/s | s of motion/s"
    print(f"| | rows | {speeds} | first token, ms | memory, GB | % of limit |")
    print("|---|---|---|---|---|---|---|---|---|")
    public = None
    for rows in (1, 32):
        cases = cases_of(rows)
        for case, measured in zip(cases, in_turns(options, cases), strict=True):
            speed = rows * options.tokens / measured.seconds
            public = public or speed
            bytes_each = {"float32": 4, "bf16": 2, "int8": 1}[case.precision]
            rate = rates["float32" if case.precision == "float32" else "bf16"]
            share = weights * bytes_each * speed / read / 1e9 if rows == 1 else 2 * weights * speed / rate / 1e9
            print(
                f"| {case.name} | {rows} | {speed:,.0f} | {speed / public:.1f} | {rows / measured.seconds:.1f} "
                f"| {speed * FRAMES_PER_TOKEN / FPS:,.0f} | {1000 * measured.first_token:.0f} | {measured.memory:.2f} "
                f"| {100 * share:.0f} % |",
                flush=True,
            )
    fixed, in_order, longest = alone(waiting, options).values()
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
