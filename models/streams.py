"""Streams of motions that are decoded together while each is read at its own pace.

When a stream needs a token, the generator makes a step, which computes the next token of every stream. Tokens are kept
until they are read, at most those of one motion per stream, and become frames when they are read. A batch starts no
thread: one thread of the caller starts, reads and closes all of its streams.
"""

from collections import deque
from collections.abc import Iterator
from itertools import count

from models.frames import FrameStream
from models.generate import REFILL, Request, decode_steps
from models.llama import LLaMAHF
from models.motion import MotionChunk, RootTracker
from models.sampling import resolve_guidance
from models.sampling_options import Sampling


class StreamBatch:
    """Streams that share the steps of a generator. Streams with other sampling settings make steps of their own.

    Args:
        model: In eval mode.
        motions: Largest number of motions at a time; further ones begin when others end.
    """

    def __init__(self, model: LLaMAHF, motions: int) -> None:
        self.model = model
        self.slots = motions * REFILL // (REFILL - 1)  # 1 / REFILL of them stay free, so that no sentence waits
        self.decodings: dict[Sampling, _Decoding] = {}

    def start(self, request: Request, sampling: Sampling) -> "TokenStream":
        """Return the stream of a request, which is decoded from the next step on.

        Raises:
            InputError: the request or the sampling does not fit the model.
        """
        request.validate(self.model.config)
        sampling = resolve_guidance(self.model, sampling)
        self.decodings = {key: each for key, each in self.decodings.items() if not each.is_over}
        if sampling not in self.decodings:
            self.decodings[sampling] = _Decoding(self.model, sampling, self.slots)
        stream = TokenStream(self.decodings[sampling], request)
        self.decodings[sampling].waiting.append(stream)
        return stream


class TokenStream:
    """The tokens of one motion: an iterator of (number of the sentence, token)."""

    def __init__(self, decoding: "_Decoding", request: Request) -> None:
        self.decoding, self.request = decoding, request
        self.unread: deque[tuple[int, int]] = deque()
        self.is_ended = False

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self

    def __next__(self) -> tuple[int, int]:
        while not self.unread:
            if self.is_ended:
                raise StopIteration
            self.decoding.step()
        return self.unread.popleft()

    def close(self) -> None:
        """End the motion; its row leaves the batch."""
        self.is_ended = True
        self.unread.clear()
        self.decoding.drop(self)


class _Decoding:
    """One run of ``decode_steps``: streams of the same sampling settings, until none is left."""

    def __init__(self, model: LLaMAHF, sampling: Sampling, slots: int) -> None:
        self.waiting: deque[TokenStream] = deque()
        self.running: dict[int, TokenStream] = {}  # by the number of the request
        self.error: Exception | None = None
        self.steps = decode_steps(model, self._requests(), sampling, slots, read_every=1)

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.running

    def _requests(self) -> Iterator[Request | None]:
        for number in count():
            while not self.waiting:
                yield None
            self.running[number] = self.waiting.popleft()
            yield self.running[number].request

    def step(self) -> None:
        """Compute the next token of every stream; an error ends all streams, and is raised when they are read."""
        if self.error is not None:
            raise self.error
        try:
            new_tokens = next(self.steps)
        except Exception as error:
            self.error = error
            self.waiting.clear()
            self.running.clear()
            raise
        for number, part, token in new_tokens:
            stream = self.running.get(number)
            if stream is None:  # it was closed
                continue
            if token is None:
                stream.is_ended = True
                del self.running[number]
            else:
                stream.unread.append((part, token))
        self._end_if_over()

    def drop(self, stream: TokenStream) -> None:
        """Remove a stream; nothing happens if it has ended."""
        stream.request.is_dropped = True
        self.waiting = deque(each for each in self.waiting if each is not stream)
        self.running = {number: each for number, each in self.running.items() if each is not stream}
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self.is_over:
            self.steps.close()  # releases the cache


class MotionStream:
    """The frames of one motion, token by token: an iterator of ``MotionChunk``.

    Args:
        frames: At the beginning of the motion.
        context: Tokens of the initial motion, whose frames are the first chunk.
        tokens: The further tokens.
    """

    def __init__(self, frames: FrameStream, context: list[int], tokens: TokenStream) -> None:
        self.frames, self.context, self.tokens = frames, context, tokens
        self.root = RootTracker()

    def __iter__(self) -> Iterator[MotionChunk]:
        return self

    def __next__(self) -> MotionChunk:
        if self.context:
            part, new, self.context = -1, self.context, []
        else:
            part, token = next(self.tokens)
            new = [token]
        features = self.frames.next(new)  # (n * stride, 272)
        return MotionChunk.of(part, new, features, *self.root.place(features))

    def close(self) -> None:
        """End the motion."""
        self.context = []
        self.tokens.close()
