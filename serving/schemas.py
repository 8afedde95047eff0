"""Bodies of requests and answers, from which the OpenAPI document is made.

Types and fixed limits are checked here; those that depend on options and on the model, in requests.py and edits.py.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from motion.resample import FPS
from utils.errors import InputError
from utils.prompts import BAR, MAX_SEED

COLDEST = 0.01  # lowest temperature above 0 (greedy)
WARMEST = 2
MAX_GUIDANCE = 10
CONSTRAINTS = {  # an example
    "path": {"points": [[0, 0], [0, 2], [1, 3]]},
    "pins": [{"joint": "left_hand", "time": 2, "position": [None, 1.2, None]}],
}


FOOT_LOCK = "Whether foot sliding is removed from the finished motions."
NAMES = "Names of the motions to edit; null edits all."


def split_text(value: object) -> object:
    """Split a text into its sentences; return other values as they are."""
    return value.split(BAR) if isinstance(value, str) else value


Sentences = Annotated[list[str], BeforeValidator(split_text, json_schema_input_type=str | list[str])]


class Body(BaseModel):
    """Body of a request: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class GenerateBody(Body):
    """Motions for sentences."""

    prompts: Sentences = Field(
        description=f"Sentences that one continuous motion follows: a list, or one text with {BAR} between them."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the first variation; others follow by 1.")
    variations: int = Field(1, ge=1, description="Number of motions of these sentences.")
    temperature: float | None = Field(None, ge=0, le=WARMEST, description="0 is greedy.")
    guidance: float | None = Field(None, ge=0, le=MAX_GUIDANCE, description="Weight of the sentence; 1 is none.")
    seconds: float | list[float | None] | None = Field(
        None, description="Length of each sentence, or of all; null lets the generator decide."
    )
    constraints: dict[str, Any] | None = Field(
        None, description="Keyframes, pins, waypoints and a path as in docs/control.md.", examples=[CONSTRAINTS]
    )
    foot_lock: bool = Field(False, description=FOOT_LOCK)


class RedoBody(Body):
    """A span of finished motions made anew."""

    motion: str = Field(description="Token of the finished motions.")
    names: list[str] | None = Field(None, description=NAMES)
    start: float = Field(alias="from", ge=0, description="Seconds.")
    to: float = Field(ge=0, description="Seconds.")
    prompt: str = Field(description=f"Sentence for the span, or several with {BAR} between them.")
    seed: int = Field(0, ge=0, le=MAX_SEED)


class LoopBody(Body):
    """Finished motions made seamless."""

    motion: str = Field(description="Token of the finished motions.")
    names: list[str] | None = Field(None, description=NAMES)
    travel: bool = Field(True, description="Whether the loop goes on its way, or stays in place.")
    foot_lock: bool = Field(False, description=FOOT_LOCK)


class Problem(BaseModel):
    """Answer to every request that is refused."""

    error: str = Field(description="One sentence that states the problem and its remedy.")
    code: str = Field(examples=["invalid", "full", "too_many"])


class Motion(BaseModel):
    """A finished motion."""

    name: str
    frames: int = Field(description=f"At {FPS} frames per second.")
    seconds: float
    files: dict[str, str] = Field(description="Paths of its files by format.")
    errors: list[dict[str, Any]] = Field(description="Distance from each constraint in metres.")


class Motions(BaseModel):
    """The finished motions of a request."""

    motion: str = Field(description="Token of the motions.")
    motions: list[Motion]
    stopped: bool = Field(description="Whether the motions were stopped before their end.")
    far: list[dict[str, Any]] = Field([], description="Sentences that are far from all captions that the model knows.")
    cut: list[str] = Field([], description="Sentences that are longer than the text encoder reads.")
    foreign: list[str] = Field([], description="Sentences that are not in English.")


class Progress(BaseModel):
    """A video in preparation."""

    ahead: int = Field(description="Number of videos that are drawn before it.")
    percent: int = Field(description="Share of its frames that are drawn.")


class Character(BaseModel):
    """A character that was checked and is kept."""

    character: str = Field(description="Token of the character.")
    bones: int
    vertices: int
    scale: float = Field(description="Units of the file per metre of motion.")
    axes: list[list[float]] = Field(description="(3, 3); its columns are left, up and forward of the character.")


class Format(BaseModel):
    """A format of downloads."""

    kind: str = Field(description="Suffix of the file.")
    media_type: str
    content: str


class PathLimits(BaseModel):
    """Limits of a path."""

    points: int
    metres: float


class Limits(BaseModel):
    """Limits of requests."""

    sentences: int
    characters: int = Field(description="Of all sentences.")
    variations: int
    seconds: float = Field(description="Of the motion of a sentence.")
    constraints: int = Field(description="All kinds together.")
    path: PathLimits
    body_bytes: int = Field(description="Of a request in JSON.")
    character_bytes: int = Field(description="Of a character.")
    places: int = Field(description="Visitors served or waiting.")
    places_per_address: int
    jobs_per_minute: int = Field(description="Of a network address.")


class Health(BaseModel):
    """State of the server."""

    status: str = "ok"


Known = TypeVar("Known", bound=Body)


def checked(kind: type[Known], data: object) -> Known:
    """Return the body of a request from JSON data; raises InputError with one sentence."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(sentence_of(error.errors())) from error


def sentence_of(errors: Sequence[Any]) -> str:
    """Return the first of the errors of pydantic as one sentence."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{place}: {message}" if place else "the request is not a JSON object"
