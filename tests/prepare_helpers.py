"""Help for the tests of prepare_data.py: conversion in this process, and files in the form of AMASS."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import prepare_data
from dataset import converting
from motion.skeleton import JOINT_INDEX

STANDING = (np.pi / 2, 0.0, 0.0)  # root of a standing person in a file with z up


@contextmanager
def threads(workers: int, *arguments: object) -> Iterator[ThreadPoolExecutor]:
    """Stands for ``worker_pool``, whose processes take seconds to start."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def prepare(monkeypatch, kind: str, source: Path, out: Path, **options) -> None:
    """Convert a source in this process."""
    monkeypatch.setattr(converting, "worker_pool", threads)
    prepare_data.main(prepare_data.COMMANDS[kind](source, out, **options))


def write_amass(file: Path, fps: float, seconds: float, **changes: object) -> np.ndarray:
    """Write a file in the form of AMASS, SMPL+H, in which the left elbow turns by 0.1 rad per second; returns times."""
    times = np.arange(int(round(seconds * fps)) + 1) / fps
    poses = np.zeros((len(times), 156))
    poses[:, :3] = STANDING
    poses[:, 3 * JOINT_INDEX["left_elbow"] + 1] = -0.1 * times
    trans = np.stack((0.1 * np.sin(2 * np.pi * times), 0.5 * times, np.full(len(times), 1.1)), axis=1)
    arrays = {"poses": poses, "trans": trans, "betas": np.zeros(16), "gender": np.array("male"),
              "mocap_framerate": np.array(float(fps))}  # fmt: skip
    arrays |= changes
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return times
