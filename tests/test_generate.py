"""Generation: greedy tokens of the reference, independence of the batch, guidance and limits."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.few_rows import Choice, FewRowsStep
from models.generate import Part, Request, compact_slots, decode_steps, generate
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.optimize import optimize
from models.sampling import Sampler, Sampling, sample_tokens
from tests.conftest import golden
from utils.errors import InputError

GREEDY = Sampling(temperature=0)


@pytest.fixture
def model() -> LLaMAHF:
    """Debug model with weights large enough that its motions depend on the text and differ in length."""
    torch.manual_seed(0)
    config = LLaMAConfig(
        codebook_size=8,
        text_dim=12,
        text_encoder="fake",
        text_length=10,
        max_tokens=24,
        text_dropout=0.1,
        **SIZES["debug"],
    )
    model = LLaMAHF(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_text(model: LLaMAHF, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Random features (B, L, D) and mask (B, L), right padded with NaN."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    text = torch.randn(*mask.shape, model.config.text_dim)
    return text.masked_fill(~mask[:, :, None], torch.nan), mask


def make_requests(
    text: Tensor, mask: Tensor, seeds: list[int], sampling: Sampling, lengths: list[int | None] | None = None
) -> list[Request]:
    """One request per row; ``lengths`` are exact where they are not None."""
    lengths = lengths or [None] * len(text)
    bounds = [(length or sampling.min_tokens, length or sampling.max_tokens or 24) for length in lengths]
    parts = [Part(row[kept], *bound) for row, kept, bound in zip(text, mask, bounds, strict=True)]
    return [Request([part], seed) for part, seed in zip(parts, seeds, strict=True)]


def generate_all(
    model: LLaMAHF,
    text: Tensor,
    mask: Tensor,
    seeds: list[int],
    sampling: Sampling,
    lengths: list[int | None] | None = None,
    slots: int = 32,
) -> list[list[int]]:
    """Tokens of each row of text."""
    motions = dict(generate(model, make_requests(text, mask, seeds, sampling, lengths), sampling, slots))
    return [motions[number] for number in range(len(text))]


@torch.no_grad()
def slow_generate(model: LLaMAHF, text: Tensor, mask: Tensor, seed: int, sampling: Sampling) -> list[int]:
    """Generate one row without cache or batch, guidance from two separate forward passes."""
    end_id, null = model.config.end_id, (torch.zeros(1, 1, model.config.text_dim), torch.ones(1, 1, dtype=torch.bool))
    uniforms = torch.rand(model.config.max_tokens, generator=torch.Generator().manual_seed(seed))
    tokens: list[int] = []
    for uniform in uniforms:
        so_far = torch.tensor([tokens], dtype=torch.long)
        logits = model(text, mask, so_far)[:, -1]
        if sampling.guidance != 1:
            plain = model(*null, so_far)[:, -1]
            logits = plain + sampling.guidance * (logits - plain)
        if len(tokens) < sampling.min_tokens:
            logits[:, end_id] = -math.inf
        token = int(sample_tokens(logits, uniform[None], Sampler.of(sampling, "cpu")))
        if token == end_id:
            break
        tokens.append(token)
    return tokens


# --- the reference's fixtures


def test_golden_greedy_tokens_in_one_batch(golden_generator):
    model, arrays = golden_generator, dict(np.load(golden("llama_io.npz")))
    sizes = json.loads(golden("llama_ckpt.json").read_text())
    cases, limit = sizes["greedy_cases"], sizes["sample_limit"]
    texts = [torch.from_numpy(arrays[f"greedy_{case}_feat"]) for case in cases]
    text = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.arange(text.shape[1]) < torch.tensor([len(row) for row in texts])[:, None]
    motions = generate_all(model, text, mask, [0] * len(cases), Sampling(temperature=0, max_tokens=limit))
    for case, row, motion in zip(cases, texts, motions, strict=True):
        expected, step_logits = arrays[f"greedy_{case}_tokens"], arrays[f"greedy_{case}_step_logits"]
        if step_logits[0].argmax() == model.config.end_id:
            # For an empty motion the reference returns a placeholder; ours begins with the most likely motion token.
            assert motion[0] == step_logits[0, : model.config.end_id].argmax() and len(motion) >= 1
            continue
        # The reference makes one more call to see whether the end follows; its token is dropped.
        assert motion == expected.tolist()
        logits = model(row[None], mask.new_ones(1, len(row)), torch.tensor([motion]))[0, : len(step_logits)]
        torch.testing.assert_close(logits, torch.from_numpy(step_logits), atol=1e-4, rtol=0)
        ended = bool(arrays[f"greedy_{case}_ended"])
        assert (int(logits[-1].argmax()) == model.config.end_id) == ended


# --- independence


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        GREEDY,
        Sampling(temperature=1.3, top_k=5, top_p=0.9, min_tokens=3),
        Sampling(guidance=2.5),
        Sampling(guidance=0.0),
    ],
)
def test_cached_batch_equals_uncached_single_rows(model, sampling):
    lengths, seeds = [5, 1, 10, 7, 3, 10, 2, 8], list(range(8))
    text, mask = random_text(model, lengths)
    motions = generate_all(model, text, mask, seeds, sampling)
    for row, (length, seed) in enumerate(zip(lengths, seeds, strict=True)):
        alone = slow_generate(model, text[row : row + 1, :length], mask[row : row + 1, :length], seed, sampling)
        assert motions[row] == alone
    if sampling == Sampling():
        assert len({len(motion) for motion in motions}) > 3, "rows must leave the batch at different steps"


def test_tokens_do_not_depend_on_order_or_other_rows(model):
    text, mask = random_text(model, [5, 1, 10, 7])
    seeds = [11, 12, 13, 14]
    motions = generate_all(model, text, mask, seeds, Sampling())
    for order in ([3, 1, 0, 2], [2], [1, 3], [0, 0, 2]):
        again = generate_all(model, text[order], mask[order], [seeds[row] for row in order], Sampling())
        assert again == [motions[row] for row in order]
    others = generate_all(model, text, mask, [seed + 100 for seed in seeds], Sampling())
    assert others != motions


def test_limits_of_a_row_do_not_change_other_rows(model):
    text, mask = random_text(model, [5, 1, 10])
    free = generate_all(model, text, mask, [1, 2, 3], Sampling())
    mixed = generate_all(model, text, mask, [1, 2, 3], Sampling(), lengths=[None, 24, None])
    assert mixed[0] == free[0] and mixed[2] == free[2] and len(mixed[1]) == 24


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_finished_rows_leave_the_batch(model, monkeypatch, guidance):
    text, mask = random_text(model, [5, 1, 10, 7])
    widths = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda tokens, *rest: (widths.append(len(tokens)), step(tokens, *rest))[1])
    generate_all(model, text, mask, [1, 2, 3, 4], Sampling(guidance=guidance), lengths=[2, 5, 3, 2])
    copies = 1 if guidance == 1 else 2
    assert widths == [copies * rows for rows in (4, 2, 1, 1)], "no step after a row's last token"


@pytest.mark.parametrize("ended", [[1, 0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0, 1, 0, 0]])
def test_compact_slots_moves_as_few_rows_as_possible(ended):
    remaining = [slot for slot, end in enumerate(ended) if not end]
    kept = compact_slots(remaining)
    assert sorted(kept) == remaining
    assert sum(place != slot for place, slot in enumerate(kept)) == sum(ended[: len(kept)])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("slots", [1, 3, 16])
def test_finished_rows_are_replaced_by_waiting_requests(model, slots, guidance):
    lengths = [1 + 7 * row % 10 for row in range(20)]
    text, mask = random_text(model, lengths)
    sampling, seeds = Sampling(guidance=guidance, min_tokens=3), list(range(20))
    rows = make_requests(text, mask, seeds, sampling)
    alone = [generate_all(model, text[row:][:1], mask[row:][:1], seeds[row:][:1], sampling)[0] for row in range(20)]
    assert generate_all(model, text, mask, seeds, sampling, slots=slots) == alone
    rounds = [sum(new.token is not None for new in step) for step in decode_steps(model, rows, sampling, slots)]
    assert max(rounds) <= slots
    if slots == 3:
        assert sum(rounds) > 0.8 * slots * len(rounds), "the batch stays full while requests wait"


@pytest.mark.parametrize("sampling", [Sampling(guidance=2.0), Sampling(top_p=0.9, min_tokens=3)])
def test_tokens_do_not_depend_on_how_many_steps_are_read_together(model, sampling):
    text, mask = random_text(model, [1 + 7 * row % 10 for row in range(9)])
    rows = make_requests(text, mask, list(range(9)), sampling)
    rows[1] = Request([*rows[1].parts, *rows[2].parts], seed=1, context=[0, 1, 2])  # a second sentence

    def tokens(read_every: int) -> dict[int, list[tuple[int, int | None]]]:
        motions: dict[int, list[tuple[int, int | None]]] = {}
        for step in decode_steps(model, rows, sampling, 4, read_every):
            assert step and len({new.request for new in step if new.token is not None}) <= 4
            for new in step:
                motions.setdefault(new.request, []).append((new.part, new.token))
        return motions

    expected = tokens(1)
    assert len({len(motion) for motion in expected.values()}) > 3, "rows must end at different steps"
    for read_every in (2, 5, 100):
        assert tokens(read_every) == expected


def test_requests_are_read_when_a_slot_is_free(model):
    rows, read = make_requests(*random_text(model, [3] * 12), list(range(12)), Sampling(), lengths=[4] * 12), []
    steps = decode_steps(model, (read.append(number) or row for number, row in enumerate(rows)), Sampling(), slots=4)
    next(steps)
    assert read == [0, 1, 2, 3]
    list(steps)
    assert read == list(range(12))


@torch.no_grad()
def test_a_cache_can_be_continued_by_the_compiled_step_and_by_pytorch(model):
    text, mask = random_text(model, [5, 1, 10])
    tokens = torch.randint(model.config.codebook_size, (3, 12))
    expected = model(text, mask, tokens)[:, 4:]
    step = optimize(model, torch.float32).step
    assert isinstance(step, FewRowsStep)
    cache, logits = model.new_cache(3, 22), []
    model.prefill(text, mask, tokens[:, :3], cache)
    for column in range(3, 12):
        step.choice = Choice(threads=1, rows=3 * (column % 2))
        logits.append(model.step(tokens[:, column], cache, cache.extend(3)))
    torch.testing.assert_close(torch.stack(logits, dim=1), expected, atol=1e-5, rtol=1e-5)


# --- sequences and initial motions


def slow_sequence(model: LLaMAHF, request: Request, kept: int) -> list[int]:
    """Tokens of a request without cache or batch; the context of each sentence is the last ``kept`` tokens."""
    uniforms = iter(
        torch.rand(sum(p.max_tokens for p in request.parts), generator=torch.Generator().manual_seed(request.seed))
    )
    motion, end_id = list(request.context), model.config.end_id
    for number, part in enumerate(request.parts):
        context = motion[-kept:] if number else list(motion)
        new: list[int] = []
        while len(new) < part.max_tokens and len(context) + len(new) < model.config.max_tokens:
            so_far = torch.tensor([context + new], dtype=torch.long)
            logits = model(part.text[None], torch.ones(1, len(part.text), dtype=torch.bool), so_far)[:, -1]
            if len(new) < part.min_tokens:
                logits[:, end_id] = -math.inf
            token = int(sample_tokens(logits, next(uniforms)[None], Sampler.of(Sampling(), "cpu")))
            if token == end_id:
                break
            new.append(token)
        motion += new
    return motion[len(request.context) :]


@torch.no_grad()
def test_sequences_with_context_equal_uncached_generation(model):
    text, mask = random_text(model, [5, 1, 10, 7, 3, 8])
    texts = [row[kept] for row, kept in zip(text, mask, strict=True)]
    rows = [
        Request([Part(texts[0], 1, 24), Part(texts[1], 3, 24), Part(texts[2], 1, 6)], seed=1),
        Request([Part(texts[3], 2, 24)], seed=2, context=[0, 1, 2, 3, 4]),
        Request([Part(texts[4], 5, 5), Part(texts[5], 7, 7)], seed=3, context=[7] * 18),
        Request([Part(texts[5], 1, 24), Part(texts[0], 22, 24)], seed=4),
    ]
    expected = [slow_sequence(model, row, kept=2 if row is rows[3] else 6) for row in rows]
    for slots in (1, 2, 8):
        motions = dict(generate(model, rows, Sampling(), slots))
        assert [motions[number] for number in range(4)] == expected
    steps = list(decode_steps(model, rows[:1], Sampling()))
    new_tokens = [new for step in steps for new in step if new.token is not None]
    assert [new.token for new in new_tokens] == expected[0]
    parts = [new.part for new in new_tokens]
    assert parts == sorted(parts) and parts[-1] == 2


# --- lengths, ends, streaming


def always_pick(model: LLaMAHF, first_id: int) -> LLaMAHF:
    """Make ``first_id`` and the ids after it by far the most likely tokens at every step."""
    model.transformer.ln_f.forward = torch.ones_like
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[first_id:] = 10
    return model


@pytest.mark.parametrize(
    ("sampling", "lengths", "expected"),
    [
        (Sampling(), None, [1, 1, 1]),
        (GREEDY, None, [1, 1, 1]),
        (Sampling(min_tokens=4), None, [4, 4, 4]),
        (Sampling(min_tokens=4), [None, 2, 24], [4, 2, 24]),
    ],
)
def test_end_is_not_sampled_before_min_tokens(model, sampling, lengths, expected):
    text, mask = random_text(model, [5, 1, 10])
    motions = generate_all(always_pick(model, model.config.end_id), text, mask, [1, 2, 3], sampling, lengths)
    assert [len(motion) for motion in motions] == expected


@pytest.mark.parametrize("tie_weights", [False, True])
def test_only_motion_ids_are_returned(model, tie_weights):
    model = LLaMAHF(dataclasses.replace(model.config, tie_weights=tie_weights, codebook_size=3)).eval()
    always_pick(model, model.config.end_id)
    motions = generate_all(model, *random_text(model, [5, 1]), [1, 2], Sampling(min_tokens=9))
    assert [len(motion) for motion in motions] == [9, 9]
    for motion in motions:
        assert set(motion) <= {0, 1, 2}


def test_motion_without_end_stops_at_max_tokens(model):
    with torch.no_grad():
        always_pick(model, 0).lm_head.weight[model.config.end_id] = 0
    text, mask = random_text(model, [5, 1])
    for sampling, length in ((Sampling(), model.config.max_tokens), (Sampling(max_tokens=3), 3)):
        assert [len(motion) for motion in generate_all(model, text, mask, [1, 2], sampling)] == [length] * 2


def test_steps_yield_one_token_per_request(model):
    rows = make_requests(*random_text(model, [5, 1, 10]), [1, 2, 3], Sampling())
    motions = dict(generate(model, rows, Sampling()))
    steps = list(decode_steps(model, rows, Sampling()))
    for number, motion in motions.items():
        assert [new.token for step in steps for new in step if new.request == number] == [*motion, None]
        where = [index for index, step in enumerate(steps) if any(new.request == number for new in step)]
        assert where[: len(motion)] == list(range(len(motion))), "one token per step"
    assert next(decode_steps(model, rows, Sampling())) == steps[0]


def test_bfloat16_generates_reproducibly(model):
    text, mask = random_text(model, [5, 1, 10])
    model.bfloat16()
    motions = generate_all(model, text, mask, [1, 2, 3], Sampling(top_p=0.9, guidance=2.0))
    again = generate_all(model, text, mask, [1, 2, 3], Sampling(top_p=0.9, guidance=2.0))
    assert motions == again
    assert all(1 <= len(motion) <= model.config.max_tokens for motion in motions)


# --- faults


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([]), "has no text"),
        (Request([Part(torch.zeros(2, 12), 1, 25)]), "1 to 25 tokens are requested but the model generates 1 to 24"),
        (Request([Part(torch.zeros(2, 12), 25, 25)]), "25 to 25 tokens"),
        (Request([Part(torch.zeros(2, 12), 0, 5)]), "0 to 5 tokens"),
        (Request([Part(torch.zeros(2, 12), 5, 4)]), "5 to 4 tokens"),
        (Request([Part(torch.zeros(2, 12), 1, 24)], seed=-5), "seed is -5"),
        (Request([Part(torch.zeros(0, 12), 1, 24)]), "L at least 1"),
        (Request([Part(torch.full((2, 12), torch.nan), 1, 24)]), "not finite"),
        (Request([Part(torch.zeros(2, 5), 1, 24)]), r"\(2, 5\) but the model takes \(L, 12\)"),
        (Request([Part(torch.zeros(11, 12), 1, 24)]), "11 features but the model takes at most 10"),
        (Request([Part(torch.zeros(2, 12), 1, 24)], context=[0, 8]), "no motion tokens"),
        (
            Request([Part(torch.zeros(2, 12), 5, 24)], context=[0] * 20),
            "initial motion of 20 tokens and 5 new tokens exceed the 24",
        ),
    ],
)
def test_invalid_requests_raise(model, request_, message):
    with pytest.raises(InputError, match=message):
        next(decode_steps(model, [request_], Sampling()))


def test_unusable_models_raise(model):
    text, mask = random_text(model, [5, 1])
    model.config.text_dropout = 0.0
    with pytest.raises(InputError, match="trained without text dropout"):
        generate_all(model, text, mask, [1, 2], Sampling(guidance=2.0))
    with pytest.raises(RuntimeError, match="eval"):
        generate_all(model.train(), text, mask, [1, 2], Sampling())
    torch.nn.init.constant_(model.lm_head.weight, torch.nan)
    with pytest.raises(InputError, match="weights are damaged"):
        generate_all(model.eval(), text, mask, [1, 2], Sampling())
