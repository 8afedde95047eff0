"""Conditions on a motion, written as sentences: "moves forward faster than 0.8 m/s".

    QUANTITY COMPARISON NUMBER UNIT [WHEN]     right wrist above the head by more than 10 cm for longer than 1 s
    STATE [WHEN]                               both feet off the floor for longer than 0.2 s
    CONDITION then CONDITION                   turns left by more than 45 degrees then moves forward faster than 1 m/s
    QUANTITY COMPARISON in PROMPT              moves slower than in "a person walks"

``PHRASES`` lists the quantities and states; a row is all that a new one needs. COMPARISON is one of ``ABOVE`` and
``BELOW``, whichever word fits, and WHEN one of ``WHENS``. "and" joins conditions within a stage of a sequence.

    condition = parse_condition("pelvis below 0.5 m at the end")
    condition.holds(condition.value(Performance.of(joints)))
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from evaluation import quantities
from evaluation.quantities import PAIRS, PLURALS, SINGLE, Performance, standing_height
from motion.resample import FPS
from utils.errors import InputError, shown

ABOVE = ("faster", "more", "farther", "further", "longer", "higher", "over", "above", "at least")
BELOW = ("slower", "less", "fewer", "nearer", "closer", "shorter", "lower", "under", "below", "at most")
UNITS = {  # unit of a quantity -> units that a condition may use, with their factors
    "m": {"m": 1.0, "cm": 0.01, "mm": 0.001},
    "m/s": {"m/s": 1.0, "cm/s": 0.01, "km/h": 1 / 3.6},
    "degrees": {"degrees": 1.0, "degree": 1.0, "°": 1.0},
    "s": {"s": 1.0, "seconds": 1.0, "second": 1.0},
    "steps": {"steps": 1.0, "step": 1.0},
    "times": {"times": 1.0},
}
END = 0.2  # seconds of "at the start" and "at the end"
MAX_LENGTH = 300  # characters of a condition
MAX_STAGES = 4
TINY = 1e-9  # difference of the limits of "more than" and "at least"
STAGE_BOUNDS = 24  # times at which a stage of a sequence may end
SHORTEST_STAGE = 5  # frames between two of them

_PART = rf"(?:(?:the|a|an|either|both|left|right) ){{0,2}}(?:{'|'.join([*SINGLE, *PAIRS, *PLURALS])})"
SLOTS = {  # {name} in a phrase -> pattern of its words
    "part": _PART,
    "other": _PART,
    "limb": rf"(?:(?:the|a|an|either|both|left|right) ){{0,2}}(?:{'|'.join([*PAIRS, *PLURALS])})",
    "hinge": r"(?:(?:the|a|an|either|both|left|right) ){0,2}(?:elbows?|knees?|hips?)",
    "direction": "forward|backward|left|right",
    "way": "forward|backward",
    "side": "left|right",
    "relation": "above|below|in front of|behind|left of|right of",
    "axis": "left and right|up and down|forward and backward",
    "state": "upright|horizontal|upside down",
    "face": "up|down",
    "verb": "rises?|sinks?",
    "relative": "relative to the pelvis",
}
ARGUMENTS = {"limb": "part", "hinge": "part"}  # slot -> argument of the function, where they differ
_COMPARISON = rf"(?:by )?(?P<word>{'|'.join(ABOVE + BELOW)})(?: than)?"
_LIMIT = re.compile(rf"(?P<phrase>.*?) ?\b{_COMPARISON} (?P<number>-?\d+(?:\.\d+)?) ?(?P<unit>[^\d\s]\S*)?(?P<rest>.*)")
_IN_PROMPT = re.compile(rf"(?P<phrase>.*?) {_COMPARISON} in (?P<prompt>[^ ].*)", re.IGNORECASE)


class Phrase(NamedTuple):
    """A quantity or a state."""

    text: str
    """Words, with slots of ``SLOTS``; a part in brackets may be left out."""
    function: Callable[..., np.ndarray]
    """Takes a ``Performance`` and the words of the slots; returns (T,) or (T, J) values, booleans for a state."""
    unit: str = ""
    """Unit of ``UNITS``; none for a state."""
    when: str = "at some time"
    """Default of WHEN."""
    limit: float | None = None
    """Limit of a quantity that is given without a comparison, above which the condition holds."""


PHRASES = (
    Phrase("moves", quantities.ground_speed, "m/s", "on average"),
    Phrase("moves {direction}", quantities.speed_along, "m/s", "on average"),
    Phrase("strays from {direction}", quantities.stray, "degrees", "at its peak"),
    Phrase("travels {direction}", quantities.travelled, "m", "in total"),
    Phrase("distance from the start", quantities.distance_from_start, "m", "in total"),
    Phrase("stays in place", quantities.stays, when="all the time"),
    Phrase("takes", quantities.steps, "steps", "in total"),
    Phrase("turns [{side}]", quantities.turned, "degrees", "in total"),
    Phrase("flips {way}", quantities.flipped, "degrees", "at its peak"),
    Phrase("cartwheels [{side}]", quantities.wheeled, "degrees", "at its peak"),
    Phrase("torso tilts", quantities.tilt, "degrees"),
    Phrase("torso leans {direction}", quantities.lean, "degrees"),
    Phrase("torso {state}", quantities.torso_is),
    Phrase("chest faces {face}", quantities.chest_faces),
    Phrase("joints move", quantities.mean_joint_speed, "m/s", "on average"),
    Phrase("lasts", quantities.duration, "s", "in total"),
    Phrase("{part}", quantities.height, "m"),
    Phrase("{part} {relation} {other}", quantities.offset, "m", limit=0.0),
    Phrase("distance from {part} to {other}", quantities.distance, "m"),
    Phrase("{part} {verb} [{relative}]", quantities.risen, "m", "at its peak"),
    Phrase("{limb} moves?", quantities.part_speed, "m/s"),
    Phrase("{limb} swings? {axis}", quantities.swings, "times", "in total"),
    Phrase("{hinge} bends?", quantities.bend, "degrees"),
    Phrase("{part} on the floor", quantities.touches),
    Phrase("{part} off the floor", quantities.in_air),
)


# --- When: how the values of the frames become one number. ``sign`` is -1 where smaller values are better.

When = Callable[[np.ndarray, int], float]


def _extreme(values: np.ndarray, sign: int) -> float:
    return float(sign * (sign * values).max())


WHENS: dict[str, When] = {
    "at some time": _extreme,  # the best frame
    "all the time": lambda values, sign: _extreme(values, -sign),  # the worst frame
    "at its peak": lambda values, sign: float(values.max()),
    "in total": lambda values, sign: float(values[-1]),
    "on average": lambda values, sign: float(values.mean()),
    "most of the time": lambda values, sign: float(np.median(values)),
    "at the start": lambda values, sign: float(values[: round(END * FPS)].mean()),
    "at the end": lambda values, sign: float(values[-round(END * FPS) :].mean()),
}
_WHEN = re.compile(rf"(?P<phrase>.*?) ?\b(?P<when>{'|'.join(WHENS)}|never)")
_RUN = re.compile(r"(?P<phrase>.*?) ?\bfor (?P<word>longer|more|shorter|less) than (?P<number>\d+(?:\.\d+)?) ?s")


def longest_run(holds: np.ndarray) -> float:
    """Return the seconds of the longest stretch of True in (T,) booleans."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], holds.astype(int), [0]))))
    return float(np.diff(edges)[::2].max(initial=0) / FPS)


# --- Conditions


class Run(NamedTuple):
    """A limit in seconds for the longest stretch of frames in which a comparison or a state holds."""

    sign: int
    """1 if it must be longer, -1 if shorter."""
    seconds: float


@dataclass(frozen=True)
class Condition:
    """A comparison of a number, measured on a motion, with a limit."""

    text: str
    value: Callable[[Performance], float]
    sign: int
    """1 if the number must be above the limit, -1 if below."""
    limit: float
    unit: str
    """Unit of number and limit."""
    other: str | None = None
    """Prompt whose mean number is the limit, in place of ``limit``."""

    def holds(self, value: float, limit: float | None = None) -> bool:
        return self.sign * value > self.sign * (self.limit if limit is None else limit)

    def worst(self, values: list[float]) -> float:
        """Return the number that is farthest on the wrong side, or nearest to it."""
        return min(values, key=lambda value: self.sign * value)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        InputError: it is no condition; the message names the word or the part that is not understood.
    """
    text = " ".join(text.split())
    try:
        if not 0 < len(text) <= MAX_LENGTH:
            raise InputError(f"it has {len(text)} characters; write a sentence of 1 to {MAX_LENGTH}")
        if compared := _IN_PROMPT.fullmatch(text):
            return _compared(text, compared)
        plain = text.lower()
        stages = [[_parse_one(one) for one in _split(stage, "and")] for stage in _split(plain, "then")]
        if len(stages) > MAX_STAGES:
            raise InputError(f"it has {len(stages)} stages; give at most {MAX_STAGES}")
        if len(stages) == len(stages[0]) == 1:
            return stages[0][0]
        return Condition(text, partial(_stages_in_order, stages=stages), 1, len(stages) - 0.5, "stages")
    except InputError as error:
        raise InputError(f"the condition {shown(text)!r} is not understood: {error}") from error


def _split(text: str, word: str) -> list[str]:
    """Split at "then" or "and", but not within an axis such as "left and right"."""
    within = r"(?!(?<=left and )right|(?<=up and )down|(?<=forward and )backward)"
    return [part.strip(" ,") for part in re.split(rf" {word} {within}", text)]


def _compared(text: str, match: re.Match) -> Condition:
    condition = _parse_one(f"{match['phrase']} {match['word']} than 0 {_find(match['phrase'].lower())[0].unit}")
    return replace(condition, text=text, other=match["prompt"].strip("'\""))


def _parse_one(text: str) -> Condition:
    """Read a condition of one stage."""
    rest, when, run = _take_when(text)
    phrase, words, sign, limit = _take_comparison(rest)
    values = partial(_values, phrase=phrase, words=words, sign=sign)
    if run is None and (when or phrase.when) == "at some time" and not phrase.unit:
        run = Run(1, 0.0)
    if run is not None:
        return Condition(text, lambda motion: longest_run(sign * values(motion) > sign * limit), *run, "s")
    reduce = WHENS[when or phrase.when]
    return Condition(text, lambda motion: reduce(values(motion), sign), sign, limit, phrase.unit)


def _take_when(text: str) -> tuple[str, str, Run | None]:
    """Split off WHEN; returns the rest, and the key of ``WHENS`` or the run that a condition ends with, if any."""
    if found := _RUN.fullmatch(text):
        return found["phrase"], "", Run(1 if found["word"] in ABOVE else -1, float(found["number"]))
    if not (found := _WHEN.fullmatch(text)):
        return text, "", None
    if found["when"] == "never":
        return found["phrase"], "", Run(-1, 0.5 / FPS)
    return found["phrase"], found["when"], None


def _take_comparison(text: str) -> tuple[Phrase, dict[str, str], int, float]:
    """Return the phrase of a text with its words, and the sign and the limit of the comparison."""
    found = _LIMIT.fullmatch(text)
    if found and not found["rest"]:
        phrase, words = _find(found["phrase"])
        sign = 1 if found["word"] in ABOVE else -1
        inclusive = found["word"] in ("at least", "at most")
        return phrase, words, sign, _limit_of(phrase, words, found) - sign * inclusive * TINY
    phrase, words = _find(text)
    if phrase.unit and phrase.limit is None:
        raise InputError(f"a limit is missing, such as: {text} more than 1 {phrase.unit}")
    return phrase, words, 1, phrase.limit if phrase.limit is not None else 0.5


def _values(motion: Performance, phrase: Phrase, words: dict[str, str], sign: int) -> np.ndarray:
    """Return the (T,) values of a phrase; of both joints the worse one counts, of either the better one."""
    values = phrase.function(motion, **words).astype(float)
    if not len(values):
        values = np.zeros(1)  # a speed in a motion of one frame
    if values.ndim == 1:
        return values
    part = words["part"].split()
    both = "both" in part or part[-1] in PLURALS
    return sign * (sign * values).min(axis=1) if both else sign * (sign * values).max(axis=1)


def _limit_of(phrase: Phrase, words: dict[str, str], found: re.Match) -> float:
    number, unit = float(found["number"]), found["unit"]
    if not phrase.unit:
        raise InputError(
            f"{found['phrase']!r} is a state without a limit; leave it out, or give a time: for longer than 1 s"
        )
    if unit == "%" and phrase.function is quantities.height:
        return number / 100 * standing_height(words["part"])
    factor = UNITS[phrase.unit].get(unit or "")
    if factor is None:
        known = ", ".join([*UNITS[phrase.unit], *(["%"] if phrase.function is quantities.height else [])])
        problem = f"the unit {shown(unit, 20)} does not fit" if unit else "the number has no unit"
        raise InputError(f"{problem}; give {known}")
    return number * factor


def _stages_in_order(motion: Performance, stages: list[list[Condition]]) -> float:
    """Return how many stages hold one after the other, for the best division of the motion into as many parts."""
    length = len(motion.joints)
    step = max(SHORTEST_STAGE, -(-length // STAGE_BOUNDS))
    bounds = [*range(step, length, step), length]

    @cache
    def holds(number: int, start: int, end: int) -> bool:
        part = motion.part(start, end)
        return all(condition.holds(condition.value(part)) for condition in stages[number])

    best = {0: 0}  # end of the stages so far -> most of them that hold
    for number in range(len(stages)):
        ends = bounds if number < len(stages) - 1 else [length]
        best = {
            end: max(count + holds(number, start, end) for start, count in best.items() if start < end)
            for end in ends
            if any(start < end for start in best)
        }
    return float(best.get(length, 0))


# --- Phrases


@cache
def _pattern(text: str) -> re.Pattern:
    text = re.sub(r" \[(.+?)\]", r"(?: \1)?", text)
    return re.compile(re.sub(r"\{(\w+)\}", lambda slot: f"(?P<{slot[1]}>{SLOTS[slot[1]]})", text))


def _find(text: str) -> tuple[Phrase, dict[str, str]]:
    """Return the phrase that a text is, and the words of its slots.

    Raises:
        InputError: there is no such phrase.
    """
    for phrase in PHRASES:
        if found := _pattern(phrase.text).fullmatch(text):
            return phrase, {ARGUMENTS.get(slot, slot): word for slot, word in found.groupdict().items() if word}
    words = [word for word in text.split() if not re.match(r"-?\d", word)]
    unknown = next((word for word in words if word not in _vocabulary()), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, _vocabulary(), 3)
        known = near or dict.fromkeys(phrase.text.split()[0] for phrase in PHRASES if phrase.text[0] != "{")
        raise InputError(
            f"the word {shown(unknown, 30)!r} is unknown; use {', '.join(known)} ...; --list-conditions lists all"
        )
    near = difflib.get_close_matches(text, [phrase.text for phrase in PHRASES], 3, cutoff=0.3)
    raise InputError(
        f"there is no phrase {shown(text, 60)!r}; use {' or '.join(near) or 'another'}; --list-conditions lists all"
    )


@cache
def _vocabulary() -> frozenset[str]:
    phrases = " ".join(phrase.text for phrase in PHRASES)
    others = " ".join([*SLOTS.values(), *WHENS, *ABOVE, *BELOW, *(unit for row in UNITS.values() for unit in row)])
    plain = re.sub(r"(\w+)\?", r"\1 ", f"{phrases} {others}")  # "rises?" is rise or rises
    words = re.findall(r"[a-z/]+", re.sub(r"\{\w+\}", " ", plain))
    return frozenset([*words, *(word.removesuffix("s") for word in words), "by", "than", "for", "never", "in", "then"])


def describe_phrases() -> str:
    """Return a Markdown table of all phrases, and lists of the words for their slots, for comparisons and for times."""
    rows = []
    for phrase in PHRASES:
        meaning = (phrase.function.__doc__ or "").strip().split("\n\n")[0].rstrip(".")
        rows.append(f"| {phrase.text.replace('?', '')} | {phrase.unit or 'state'} | {phrase.when} | {meaning} |")
    table = ["| phrase | unit | when, by default | meaning |", "|---|---|---|---|", *rows]
    limbs = f"{', '.join(PAIRS)}, each with left, right, a (either) or both"
    words = {
        "{part}, {other}": f"{', '.join(SINGLE)}, or a limb",
        "{limb}": limbs,
        "{hinge}": "elbow, knee, hip, as a limb",
        **{
            f"{{{slot}}}": pattern.replace("?", "").replace("|", ", ")
            for slot, pattern in SLOTS.items()
            if "(" not in pattern
        },
        "comparison": ", ".join(ABOVE + BELOW),
        "when": ", ".join([*WHENS, "never", "for longer than 0.5 s", "for less than 0.5 s"]),
    }
    return "\n".join([*table, "", *(f"- {name}: {values}" for name, values in words.items()), "- [ ]: may be left out"])
