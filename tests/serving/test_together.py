"""Visitors of the web app whose motions are decoded together: each receives the frames that it receives alone."""

import asyncio

import pytest

from models.pipeline import DEFAULT_SAMPLING, TextToMotion
from models.sampling import resolve_guidance
from serving.options import Options
from serving.requests import GenerationRequest
from serving.schemas import GenerateBody, checked
from serving.service import MotionService
from tests.inference.helpers import PROMPTS, save_tiny_checkpoint
from visualize.body import load_body

ASKED = [
    {"prompts": PROMPTS[0], "seed": 3, "seconds": 1.0, "variations": 3},
    {"prompts": PROMPTS[:2], "seed": 4},
    {"prompts": PROMPTS[1], "seed": 5, "guidance": 3, "foot_lock": True},
    {"prompts": PROMPTS[0], "seed": 6, "seconds": 1.0, "constraints": {"path": {"points": [[0, 0], [0, 1]]}}},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> TextToMotion:
    return TextToMotion.from_pretrained(save_tiny_checkpoint(tmp_path_factory.mktemp("run") / "tiny"))


@pytest.fixture
def service(model):
    service = MotionService(model, load_body(), Options())
    yield service
    service.close()


async def visit(service: MotionService, number: int) -> list[dict]:
    """Return the lines of frames of a visitor."""
    body = checked(GenerateBody, ASKED[number])
    defaults = resolve_guidance(service.model.generator, DEFAULT_SAMPLING)
    request = GenerationRequest.parse(body, service.options, service.model, defaults)
    return [line async for line in service.stream(request, str(number)) if "rotations" in line]


def test_visitors_at_the_same_time_receive_the_frames_that_they_receive_alone(service):
    async def visits() -> tuple[list, list]:
        numbers = range(len(ASKED))
        return [await visit(service, number) for number in numbers], await asyncio.gather(
            *(visit(service, number) for number in numbers)
        )

    alone, together = asyncio.run(visits())
    assert all(alone) and together == alone
    assert all(each.is_over for each in service.batch.decodings.values())


def test_visitor_that_leaves_at_any_moment_leaves_no_motion_behind(service):
    async def leave(turns: int) -> None:
        task = asyncio.create_task(visit(service, 0))
        for _ in range(turns):
            await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(service.thread, lambda: None)
        assert all(each.is_over for each in service.batch.decodings.values())

    for turns in range(12):
        asyncio.run(leave(turns))
    assert not service.queue and asyncio.run(visit(service, 0))
