"""Queue of visitors, generation for several of them at a time, and finished motions."""

import asyncio
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.pipeline import TextToMotion
from models.streams import StreamBatch
from motion.clip import Clip
from motion.foot_lock import lock_feet
from serving.errors import Refused
from serving.metrics import Metrics
from serving.options import Options
from serving.places import Places, keep, share_of
from serving.requests import Frames, Start
from utils.errors import InputError
from utils.language import is_foreign
from visualize.body import Body, floor_height
from visualize.page import pack_motion

logger = logging.getLogger(__name__)
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
    is_stopped: bool = False
    """Whether the motions shall end with the frames made so far."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a visitor leaves the queue, and when this one stops."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """Name of the request and of its finished motions."""


class Result(NamedTuple):
    """The finished motions of a request."""

    address: str
    motions: dict[str, Clip]
    """Motions by name."""


class MotionService:
    """Generates motions for several visitors at a time, and keeps finished ones for download.

    One thread runs the model. Motions without constraints are decoded together, see ``models.streams``: a step of the
    generator gives each of them its next token. Frames are made, and constrained and edited motions advance, chunk by
    chunk in turn for the visitors. Each visitor waits for at most one chunk, which it has read before the next is made.
    """

    def __init__(self, model: TextToMotion, body: Body, options: Options):
        self.model, self.body, self.options = model, body, options
        self.thread = ThreadPoolExecutor(1)
        self.batch = StreamBatch(model.generator, options.running * options.variations)
        self.places = Places(
            options.capacity,
            options.per_address,
            full="too many visitors are being served; try again in a minute",
            used="motions for your network address are already being generated; wait until one is done",
            per_minute=options.jobs_per_minute,
        )
        self.queue: list[Visitor] = []  # in order of arrival
        self.results: OrderedDict[str, Result] = OrderedDict()  # by token, the oldest first
        self.examples: dict[str, Result] = {}  # by token; never dropped
        self.is_broken = False  # whether the last motion failed, as all do after a fault of a GPU
        self.metrics = Metrics()
        self.metrics.watch("generating", lambda: sum(visitor.served for visitor in self.queue))
        self.metrics.watch("waiting", lambda: sum(not visitor.served for visitor in self.queue))

    def close(self) -> None:
        """Cancel all work; the current chunk is finished."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    async def stream(self, request: MotionRequest, address: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield {"motion": token}, {"waiting": n}, chunks of frames, and {"done": token, ...}.

        {"far": [...], "cut": [...], "foreign": [...]} lists the sentences that are far from all captions that the model
        knows, longer than the text encoder reads, or not in English; empty lists are left out. A chunk
        with "whole" replaces the frames of its motion. The work ends when the iterator is closed; ``stop`` ends it with
        the frames that were made so far.

        Raises:
            Busy: no place is free; before the first item.
            InputError: the motion cannot be generated.
            Refused: the model failed, or the request was stopped before it was served.
        """
        self.places.take(address)
        visitor, start, outcome, seen = Visitor(address), time.monotonic(), "left", False
        self.queue.append(visitor)
        try:
            self._admit()
            async with aclosing(self._generate(visitor, request)) as lines:
                async for line in lines:
                    if "rotations" in line and not seen:
                        seen = True
                        self.metrics.first_frames.observe(time.monotonic() - start)
                    yield line
            outcome, self.is_broken = "stopped" if visitor.is_stopped else "done", False
            self.metrics.seconds.observe(time.monotonic() - start)
        except InputError:
            outcome = "refused"
            raise
        except Exception as error:
            outcome, self.is_broken = "failed", True
            logger.exception("the generation failed")
            raise Refused("the generation failed on the server; try again later", 500) from error
        finally:  # also if the visitor has left
            self.metrics.jobs.labels(outcome).inc()
            self.queue.remove(visitor)
            self.places.release(address)
            self._admit()
            for other in self.queue:
                other.changed.set()

    async def _generate(self, visitor: Visitor, request: MotionRequest) -> AsyncGenerator[dict[str, Any]]:
        """Yield the lines of a visitor in the queue."""
        yield {"motion": visitor.token}
        while not visitor.served:
            if visitor.is_stopped:
                raise Refused("the request was stopped before its motion began", 409)
            yield {"waiting": self._ahead(visitor)}
            await visitor.changed.wait()
            visitor.changed.clear()
        starts = request.starts()
        motions: list[Any] = []
        try:
            notes = await run_in(self.thread, self._start, starts, request.sentences, motions)
            if notes:
                yield notes
            chunks: list[list[np.ndarray]] = [[] for _ in motions]
            unfinished = dict(enumerate(motions))
            while unfinished and not (visitor.is_stopped and all(chunks)):  # every motion has frames
                for number, motion in list(unfinished.items()):
                    smplx85, line = await run_in(self.thread, self._next, number, motion, not chunks[number])
                    if smplx85 is None:
                        del unfinished[number]
                    else:
                        chunks[number].append(smplx85)
                        self.metrics.frames.inc(len(smplx85))
                        yield line
        finally:
            with suppress(RuntimeError):  # the service is closed
                self.thread.submit(close_all, motions)
        results = {
            name: Clip(np.concatenate(parts), request.title, rights=self.model.rights)
            for name, parts in zip(starts, chunks, strict=True)
        }
        for number, name in enumerate(results if request.foot_lock else ()):
            results[name], line = await run_in(self.thread, self._locked, number, results[name])
            yield line
        errors = [await run_in(self.thread, request.errors, clip.smplx85) for clip in results.values()]
        keep(
            self.results, visitor.token, Result(visitor.address, results), lambda kept: len(kept.motions), KEPT_RESULTS
        )
        yield {"done": visitor.token, "names": list(results), "errors": errors, "stopped": bool(unfinished)}

    def stop(self, token: str) -> bool:
        """Stop a request in the queue, which keeps the frames made so far; returns False if there is none."""
        for visitor in self.queue:
            if visitor.token == token:
                visitor.is_stopped = True
                visitor.changed.set()
                return True
        return False

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
        self, starts: dict[str, Start], sentences: Sequence[str], motions: list[Iterator[Frames]]
    ) -> dict[str, list]:
        """Append the started motions to a list, and return the sentences that may not be followed, by reason.

        Runs in the thread; the list has every motion that must be closed, also if the visitor leaves meanwhile.
        """
        for start in starts.values():
            motions.append(start(self.model, self.batch))
        notes: dict[str, list] = {
            "far": [each.to_dict() for each in self.model.closest(sentences) if each.is_far],
            "cut": self.model.text_encoder.too_long(sentences),
            "foreign": list(filter(is_foreign, sentences)),
        }
        return {reason: found for reason, found in notes.items() if found}

    def _next(self, number: int, motion: Iterator[Frames], first: bool) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Generate the next frames of a variation and pack them; runs in the thread.

        Returns:
            (T, 85) poses, or None at the end of the motion, and the line. The line of the first frames includes the
            height of the floor.
        """
        chunk = next(motion, None)
        if chunk is None:
            return None, {}
        smplx85 = chunk.smplx85.astype(np.float64)
        packed = pack_motion(smplx85, floor_height(self.body, smplx85)) if first else pack_motion(smplx85)
        return chunk.smplx85, {"variation": number, "part": chunk.part, **packed}

    def _locked(self, number: int, clip: Clip) -> tuple[Clip, dict[str, Any]]:
        """Return a motion without foot sliding, and its line for the browser; runs in the thread."""
        locked = lock_feet(clip)
        line = {"variation": number, "whole": True, **pack_motion(locked, floor_height(self.body, locked))}
        return replace(clip, smplx85=locked.astype(np.float32)), line

    async def make_example(self, request: MotionRequest) -> list[dict[str, Any]]:
        """Return the items of an answer whose motions stay available; none if they cannot be generated."""
        items: list[dict[str, Any]] = []
        with suppress(InputError):
            async for item in self.stream(request, ""):
                items.append(item)
            token = items[-1]["done"]
            self.examples[token] = self.results.pop(token)
            return items
        return []

    def motion(self, token: str, name: str) -> Clip | None:
        """Return a finished motion, or None if it is unknown or no longer kept."""
        return self.motions(token).get(name)

    def motions(self, token: str) -> dict[str, Clip]:
        """Return the finished motions of a request by name; none if it is unknown or they are no longer kept."""
        result = self.results.get(token) or self.examples.get(token)
        return result.motions if result else {}


def close_all(motions: list[Any]) -> None:
    """Close the generation of motions."""
    for motion in motions:
        motion.close()


async def run_in(thread: Executor, function: Callable, *arguments: object) -> Any:
    """Run a function in a thread and return its result."""
    return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)
