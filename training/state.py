"""States of a training run, to go on from: folders of safetensors that all processes write and read together.

    states/step-00001000/   shard-*.safetensors    weights, their average, optimizer: each process its part
                            random-*.safetensors   random number generators of each process
                            run.json               step, model configuration, size and sha256 of each file

A folder gets its name when all of it is on disk. Sharded tensors go through ``torch.distributed.checkpoint``, which
puts them together again for any number of processes. Several machines must see the same run folder.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from utils.errors import InputError, reason_of

ABOUT = "run.json"


def save_state(accelerator: Accelerator, folder: Path, about: dict, write: Callable[[Path], None]) -> Path:
    """Write the state of all processes into ``folder/step-<about["step"]>``; returns that folder.

    Args:
        about: Plain values that every process has alike. write: Writes a process's part into the folder it is given.

    Raises:
        InputError: it cannot be written; what was saved before stays.
    """
    target = folder / f"step-{about['step']:08d}"
    temporary = folder / f".{target.name}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    failures = _of_all(accelerator, lambda: temporary.mkdir(parents=True, exist_ok=True))
    if not failures:
        failures = _of_all(accelerator, lambda: write(temporary))
    if not failures:
        digests = {}
        failures = _of_all(accelerator, lambda: digests.update(_digests(accelerator, temporary)))
        about = about | {"files": dict(gather_object(list(digests.items())))}
    if not failures and accelerator.is_main_process:
        failures = _attempt(lambda: _finish(temporary, target, about))
    failures = gather_object(failures)
    if failures:
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"cannot save the state of the run to {target} ({failures[0]}); what was saved before is kept: "
            "free space, then go on with --resume true"
        )
    return target


def remove_other_states(saved: Path, keep: int) -> None:
    """Leave a state and those before it, ``keep`` in all: none half-written, none that was passed over as damaged."""
    found = states(saved.parent)
    kept = found[found.index(saved) :][:keep]
    for path in [*(path for path in found if path not in kept), *saved.parent.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)


def states(folder: Path) -> list[Path]:
    """The states in a folder, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest_state(accelerator: Accelerator, folder: Path) -> Path:
    """The newest state that is undamaged; those passed over are named aloud.

    Raises:
        InputError: there is none.
    """
    accelerator.wait_for_everyone()
    found = states(folder)
    for path in found:
        faults = _of_all(accelerator, lambda path=path: _check(accelerator, path))
        if not faults:
            return path
        accelerator.print(f"{path} is damaged ({faults[0]}) and left alone; looking for the one before")
    if found:
        raise InputError(f"every state in {folder} is damaged; start again without --resume in another --out")
    raise InputError(f"there is no state in {folder}, so there is nothing to resume; run without --resume")


def about_state(path: Path) -> dict:
    """What ``save_state`` was told, and the files.

    Raises:
        OSError, ValueError: it cannot be read, or not all of it is there.
    """
    about = json.loads((path / ABOUT).read_text())
    if not isinstance(about, dict) or not {"step", "config", "order", "best", "is_best", "files"} <= about.keys():
        raise ValueError(f"{ABOUT} is not whole")
    return about


def save_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write tensors that are sharded over the processes, or the same in each; all processes call it."""
    with warnings.catch_warnings(action="ignore"):  # one process alone "intends to save in a single process"
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Fill tensors, in place, with what ``save_tensors`` wrote, however many processes there were.

    Raises:
        ValueError: it wrote others.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        raise ValueError(_reason(error)) from error


def _finish(temporary: Path, target: Path, about: dict) -> None:
    (temporary / ABOUT).write_text(json.dumps(about, indent=1))
    shutil.rmtree(target, ignore_errors=True)  # of a run that was here before and has been resumed from further back
    os.replace(temporary, target)


def _digests(accelerator: Accelerator, folder: Path) -> dict[str, list]:
    """Size and sha256 of this process's share of the files of a folder."""
    digests = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ABOUT)
    for path in files[accelerator.process_index :: accelerator.num_processes]:
        with open(path, "rb") as file:
            digests[str(path.relative_to(folder))] = [
                path.stat().st_size,
                hashlib.file_digest(file, "sha256").hexdigest(),
            ]
    return digests


def _check(accelerator: Accelerator, path: Path) -> None:
    """Compare this process's share of the files with what was written.

    Raises:
        OSError, ValueError: they differ.
    """
    try:
        expected = about_state(path)["files"]
    except (OSError, ValueError) as error:
        raise ValueError(f"{ABOUT} cannot be read") from error
    missing = [name for name in expected if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    for name, digest in _digests(accelerator, path).items():
        if digest != expected.get(name):
            raise ValueError(f"{name} is not what was written")


def _attempt(act: Callable[[], None]) -> list[str]:
    try:
        act()
        return []
    except (OSError, ValueError, SafetensorError, CheckpointException) as error:
        return [_reason(error)]


def _of_all(accelerator: Accelerator, act: Callable[[], None]) -> list[str]:
    """Let every process do it; the reasons of those that failed, for all to see."""
    return gather_object(_attempt(act))


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):  # holds the error of each process, with its traceback
        error = next(iter(error.failures.values()))[0]
    return reason_of(error)
