"""Results of prompt following as Markdown tables and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evaluation.prompts import PHYSICAL, CaseResult, ConditionResult
from evaluation.report import markdown_table


def following_table(results: Sequence[CaseResult]) -> str:
    """Return the shares per prompt and per condition as a Markdown table; empty without conditions.

    A prompt with several conditions has a row for all of them together, and a row for each.
    """
    rows = []
    for result in results:
        prompt = result.case.prompt if result.case.plain is None else f"({result.case.prompt})"
        required = "" if result.case.required is None else percent(result.case.required)
        if len(result.conditions) > 1:
            rows.append([prompt, "all conditions", percent(result.share or 0.0), "", "", required])
            prompt = required = ""
        for row in result.conditions:
            mean = _number(float(np.mean(row.values)), row)
            rows.append([prompt, _sentence(row), percent(row.share), _worst(row), mean, required])
            prompt = required = ""
    return markdown_table(["prompt", "condition", "share", "worst seed", "mean", "required"], rows) if rows else ""


def physical_table(results: Sequence[CaseResult]) -> str:
    """Return the physical measures per prompt, as means over the seeds, and their mean as a Markdown table."""
    header = ["prompt", *(f"{name}, {unit}".removesuffix(", ") for name, unit in PHYSICAL.items())]
    means = _physical_means(results)
    rows = [(result.case.prompt, result.physical) for result in results] + [("mean", means)]
    return markdown_table(
        header, [[name, *(f"{row[key]:.2f}" if key in row else "" for key in PHYSICAL)] for name, row in rows]
    )


def summary(results: Sequence[CaseResult]) -> str:
    """Return the shares of all prompts together, and the prompts below their required share, in a few lines."""
    lines = []
    plain, rephrased = _shares(results, rephrased=False), _shares(results, rephrased=True)
    if plain:
        mean = f"{100 * sum(plain) / len(plain):.1f} %"
        lines.append(
            f"{len(plain)} prompts: {mean} of the motions meet all conditions, {percent(min(plain))} of the worst"
        )
    if rephrased:
        lines.append(f"{len(rephrased)} rephrasings: {100 * sum(rephrased) / len(rephrased):.1f} %")
    for result in results:
        if result.share is not None and result.case.required is not None and result.share < result.case.required:
            lines.append(f"below the required share: {result.case.prompt} ({percent(result.share)} of "
                         f"{percent(result.case.required)})")  # fmt: skip
    means = [f"{name} {value:.2f} {PHYSICAL[name]}".strip() for name, value in _physical_means(results).items()]
    return "\n".join([*lines, f"mean of {len(results)} prompts: {', '.join(means)}"])


def _physical_means(results: Sequence[CaseResult]) -> dict[str, float]:
    rows = {name: [row.physical[name] for row in results if name in row.physical] for name in PHYSICAL}
    return {name: float(np.mean(row)) for name, row in rows.items() if row}


def to_json(results: Sequence[CaseResult]) -> dict[str, Any]:
    """Return all numbers as values of JSON."""
    shares = {"plain": _shares(results, rephrased=False), "rephrased": _shares(results, rephrased=True)}
    return {
        "mean_share": {name: float(np.mean(row)) if row else None for name, row in shares.items()},
        "prompts": [
            {
                "prompt": result.case.prompt,
                "rephrases": result.case.plain,
                "seconds": result.case.seconds,
                "share": result.share,
                "required": result.case.required,
                "conditions": [_condition_json(row) for row in result.conditions],
                "physical": result.physical,
            }
            for result in results
        ],
    }


def _condition_json(row: ConditionResult) -> dict[str, Any]:
    return {
        "condition": row.condition.text,
        "share": row.share,
        "unit": row.condition.unit,
        "limit": row.limit,
        "worst": row.worst,
        "values": row.values,
    }


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _shares(results: Iterable[CaseResult], rephrased: bool) -> list[float]:
    return [
        result.share for result in results if result.share is not None and (result.case.plain is not None) is rephrased
    ]


def _sentence(row: ConditionResult) -> str:
    limit = "" if row.condition.other is None else f" ({_number(row.limit, row)})"
    return row.condition.text + limit


def _worst(row: ConditionResult) -> str:
    return f"{_number(row.worst, row)} (seed {row.values.index(row.worst)})"


def _number(value: float, row: ConditionResult) -> str:
    return f"{value:.2f} {row.condition.unit}".strip()
