"""Queue of visitors, generation in turn, and finished motions."""

import asyncio
import json
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.pipeline import TextToMotion
from motion.clip import Clip
from motion.foot_lock import lock_feet
from serving.options import Options
from serving.places import Busy, Places, keep, share_of
from serving.requests import Frames, Start
from utils.errors import InputError
from utils.language import is_foreign
from visualize.body import Body, floor_height
from visualize.page import pack_motion

KEPT_RESULTS = 64  # motions that can be downloaded; the oldest are dropped


class MotionRequest(Protocol):
    """A request for motions: new ones, or edits of finished ones."""

    @property
    def title(self) -> str:
        """Title of the motions."""

    @property
    def sentences(self) -> Sequence[str]:
        """Sentences that the generator follows."""

    @property
    def foot_lock(self) -> bool:
        """Whether foot sliding is removed from the finished motions."""

    def starts(self) -> dict[str, Start]:
        """Return the name of each motion and the function that starts its generation."""

    def errors(self, smplx85: np.ndarray) -> list[dict[str, Any]]:
        """Return how far a motion (T, 85) is from each constraint."""


@dataclass(eq=False)
class Visitor:
    """A visitor in the queue, compared by identity."""

    address: str
    served: bool = False
    """Whether motion is generated for the visitor; once true, it stays true."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a visitor leaves the queue."""


class Result(NamedTuple):
    """The finished motions of a request."""

    address: str
    motions: dict[str, Clip]
    """Motions by name."""


class MotionService:
    """Generates motions for several visitors in turn, and keeps finished ones for download.

    One thread runs the model. Each visitor has at most one chunk of frames in its queue, so that all visitors advance
    at the same rate.
    """

    def __init__(self, model: TextToMotion, body: Body, options: Options):
        self.model, self.body, self.options = model, body, options
        self.thread = ThreadPoolExecutor(1)
        self.places = Places(
            options.capacity,
            options.per_address,
            full="too many visitors are being served; try again in a minute",
            used="motions for your network address are already being generated; wait until one is done",
        )
        self.queue: list[Visitor] = []  # in order of arrival
        self.results: OrderedDict[str, Result] = OrderedDict()  # by token, the oldest first
        self.examples: dict[str, Result] = {}  # by token; never dropped

    def close(self) -> None:
        """Cancel all work; the current chunk is finished."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    async def stream(self, request: MotionRequest, address: str) -> AsyncIterator[bytes]:
        """Yield lines of JSON: {"waiting": n}, chunks of frames, and {"done": token, ...}; or {"error": sentence}.

        A line with "far", "cut" or "foreign" lists sentences that are far from all captions that the model knows, that
        are longer than the text encoder reads, or that are not in English. A chunk with "whole" replaces the frames of
        its variation.
        """
        try:
            self.places.take(address)
        except Busy as error:
            yield _line(error=str(error))
            return
        visitor, motions = Visitor(address), []
        self.queue.append(visitor)
        try:
            self._admit()
            while not visitor.served:
                yield _line(waiting=self._ahead(visitor))
                await visitor.changed.wait()
                visitor.changed.clear()
            starts = request.starts()
            motions, notes = await run_in(self.thread, self._start, starts, request.sentences)
            if notes:
                yield _line(**notes)
            chunks: list[list[np.ndarray]] = [[] for _ in motions]
            unfinished = dict(enumerate(motions))
            while unfinished:
                for number, motion in list(unfinished.items()):
                    smplx85, line = await run_in(self.thread, self._next, number, motion, not chunks[number])
                    if smplx85 is None:
                        del unfinished[number]
                    else:
                        chunks[number].append(smplx85)
                        yield line
            token = secrets.token_urlsafe(16)
            results = {
                name: Clip(np.concatenate(parts), request.title, rights=self.model.rights)
                for name, parts in zip(starts, chunks, strict=True)
            }
            for number, name in enumerate(results if request.foot_lock else ()):
                results[name], line = await run_in(self.thread, self._locked, number, results[name])
                yield line
            errors = [await run_in(self.thread, request.errors, clip.smplx85) for clip in results.values()]
            self._keep(token, Result(address, results))
            yield _line(done=token, names=list(results), errors=errors)
        except InputError as error:
            yield _line(error=str(error))
        finally:  # also if the visitor has left
            for motion in motions:
                self.thread.submit(motion.close)
            self.queue.remove(visitor)
            self.places.release(address)
            self._admit()
            for other in self.queue:
                other.changed.set()

    def _admit(self) -> None:
        """Serve waiting visitors in order of arrival; an address takes all running places only if there is only one."""
        served = Counter(visitor.address for visitor in self.queue if visitor.served)
        share = share_of(self.options.running, self.options.per_address)
        for visitor in self.queue:
            free = served.total() < self.options.running and served[visitor.address] < share
            if free and not visitor.served:
                visitor.served = True
                served[visitor.address] += 1

    def _ahead(self, visitor: Visitor) -> int:
        """Return the position of a waiting visitor in the queue, from 1."""
        return [other for other in self.queue if not other.served].index(visitor) + 1

    def _start(
        self, starts: dict[str, Start], sentences: Sequence[str]
    ) -> tuple[list[Iterator[Frames]], dict[str, list]]:
        """Start motions; returns them, and the sentences that may not be followed, by reason. Runs in the thread."""
        motions = [start(self.model) for start in starts.values()]
        notes = {
            "far": [each.to_dict() for each in self.model.closest(sentences) if each.is_far],
            "cut": self.model.text_encoder.too_long(sentences),
            "foreign": list(filter(is_foreign, sentences)),
        }
        return motions, {reason: found for reason, found in notes.items() if found}

    def _next(self, number: int, motion: Iterator[Frames], first: bool) -> tuple[np.ndarray | None, bytes]:
        """Generate the next frames of a variation and pack them for the browser; runs in the thread.

        Returns:
            (T, 85) poses, or None at the end of the motion, and the line. The line of the first frames includes the
            height of the floor.
        """
        chunk = next(motion, None)
        if chunk is None:
            return None, b""
        smplx85 = chunk.smplx85.astype(np.float64)
        packed = pack_motion(smplx85, floor_height(self.body, smplx85)) if first else pack_motion(smplx85)
        return chunk.smplx85, _line(variation=number, part=chunk.part, **packed)

    def _locked(self, number: int, clip: Clip) -> tuple[Clip, bytes]:
        """Return a variation without foot sliding, and its line for the browser; runs in the thread."""
        locked = lock_feet(clip)
        line = _line(variation=number, whole=True, **pack_motion(locked, floor_height(self.body, locked)))
        return replace(clip, smplx85=locked.astype(np.float32)), line

    async def make_example(self, request: MotionRequest) -> list[dict]:
        """Return the parsed lines of an answer whose motions stay available; none if they cannot be generated."""
        lines = [json.loads(line) async for line in self.stream(request, "")]
        token = lines[-1].get("done")
        if token is None:
            return []
        self.examples[token] = self.results.pop(token)
        return lines

    def _keep(self, token: str, result: Result) -> None:
        keep(self.results, token, result, lambda kept: len(kept.motions), KEPT_RESULTS)

    def motion(self, token: str, name: str) -> Clip | None:
        """Return a finished motion, or None if it is unknown or no longer kept."""
        return self.motions(token).get(name)

    def motions(self, token: str) -> dict[str, Clip]:
        """Return the finished motions of a request by name; none if it is unknown or they are no longer kept."""
        result = self.results.get(token) or self.examples.get(token)
        return result.motions if result else {}


async def run_in(thread: Executor, function: Callable, *arguments: object) -> Any:
    """Run a function in a thread and return its result."""
    return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)


def _line(**content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"
