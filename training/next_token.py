"""Prediction of the next token: inputs and targets of training rows, and the loss on validation rows."""

import torch
from torch import Tensor

from dataset.token_rows import TokenDataset, collate
from models.llama import LLaMAHF
from models.text_features import CaptionFeatures
from training.control import RandomControl, Rows
from training.run import Run


def inputs_and_targets(model: LLaMAHF, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the input tokens and the target of each position; targets that are not trained are padding.

    They are the end of a row that does not end where its clip ends, and tokens of another clip (``context``).

    Returns:
        Tokens (B, N) and targets (B, N + 1).
    """
    tokens, is_whole, context = rows
    targets = model.next_tokens(tokens)
    cut_end = (targets == model.config.end_id) & ~is_whole[:, None]
    is_context = torch.arange(targets.shape[1], device=targets.device) < context[:, None]
    return tokens, targets.masked_fill(cut_end | is_context, model.config.pad_id)


def validate(
    run: Run, model: LLaMAHF, rows: TokenDataset | None, encode: CaptionFeatures, control: RandomControl
) -> dict[str, float]:
    """Return loss and accuracy (``mean_loss``) of the validation rows; if control is trained, also with control."""
    if rows is None:
        return {}
    scores = mean_loss(run, model, rows, encode)
    if control.share:
        always = RandomControl(1.0, control.tokenizer, control.config, vary=False)
        with_control = mean_loss(run, model, rows, encode, always)
        scores |= {f"{name}_with_control": value for name, value in with_control.items()}
    return scores


@torch.no_grad()
def mean_loss(
    run: Run, model: LLaMAHF, rows: TokenDataset, encode: CaptionFeatures, control: RandomControl | None = None
) -> dict[str, float]:
    """Return the mean cross entropy and the accuracy over all tokens of rows, whose tracks are always the same."""
    size, pad_id = run.options.batch_size, model.config.pad_id
    sums = torch.zeros(3, device=run.device)  # loss, correct predictions, predictions
    chunks = [range(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]
    for chunk, counts in run.shard(chunks):
        _, captions, *parts = collate([rows[number] for number in chunk], pad_id)
        batch = Rows(*(part.to(run.device) for part in parts))
        signals = control(batch, torch.Generator().manual_seed(chunk.start))[1] if control else None
        tokens, targets = inputs_and_targets(model, batch)
        logits = model(*encode(captions), tokens, control=signals).float()
        kept = targets != pad_id
        loss = torch.nn.functional.cross_entropy(logits[kept], targets[kept], reduction="sum")
        sums += counts * torch.stack((loss, (logits[kept].argmax(-1) == targets[kept]).sum(), kept.sum()))
    loss, correct, count = run.accelerator.reduce(sums, "sum").tolist()
    return {"loss": loss / count, "accuracy": correct / count}
