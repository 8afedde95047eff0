"""States of a training run for resuming: folders of safetensors that all processes write and read together.

    states/step-00001000/   shard-*.safetensors    weights, EMA and optimizer, one shard per process
                            random-*.safetensors   state of the random number generators of each process
                            run.json               step, model configuration, size and sha256 of each file

A folder is renamed to its final name once all its files are on disk. Sharded tensors are stored with
``torch.distributed.checkpoint``, which reshards them for any number of processes. In a run on several machines, all
must see the same run folder.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from utils.errors import InputError, reason_of, shown
from utils.reading.files import is_inside, refusing
from utils.reading.texts import read_json

DESCRIPTION = "run.json"
DESCRIPTION_KINDS = {
    "step": (int,), "config": (dict,), "order": (dict,), "best": (int, float), "is_best": (bool,), "files": (dict,)
}  # fmt: skip


def save_state(accelerator: Accelerator, folder: Path, description: dict, write: Callable[[Path], None]) -> Path:
    """Write the state of all processes into ``folder/step-<description["step"]>``.

    Args:
        description: JSON values for run.json, equal in all processes.
        write: Writes the part of one process into the folder that it is given.

    Returns:
        The folder of the state.

    Raises:
        InputError: the state cannot be written; earlier states are kept.
    """
    target = folder / f"step-{description['step']:08d}"
    temporary = folder / f".{target.name}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    failures = _attempt_in_all_processes(lambda: temporary.mkdir(parents=True, exist_ok=True))
    if not failures:
        failures = _attempt_in_all_processes(lambda: write(temporary))
    if not failures:
        digests: dict[str, list] = {}
        failures = _attempt_in_all_processes(lambda: digests.update(_digests(accelerator, temporary)))
        description = description | {"files": dict(gather_object(list(digests.items())))}
    if not failures and accelerator.is_main_process:
        failures = _attempt(lambda: _finish(temporary, target, description))
    failures = gather_object(failures)
    if failures:
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"cannot save the state of the run to {target} ({failures[0]}); earlier states are kept: "
            "free some space, then continue with --resume"
        )
    return target


def prune_states(newest: Path, keep: int) -> None:
    """Keep a state and those before it, ``keep`` in total; remove all others, damaged and unfinished ones included."""
    found = states(newest.parent)
    kept = found[found.index(newest) :][:keep]
    for path in [*(path for path in found if path not in kept), *newest.parent.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)


def states(folder: Path) -> list[Path]:
    """Return the states in a folder, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest_state(accelerator: Accelerator, folder: Path) -> Path:
    """Return the newest undamaged state; damaged ones that are skipped are reported.

    Raises:
        InputError: there is no undamaged state.
    """
    accelerator.wait_for_everyone()
    found = states(folder)
    for path in found:
        failures = _attempt_in_all_processes(partial(_verify, accelerator, path))
        if not failures:
            return path
        accelerator.print(f"{path} is damaged ({failures[0]}) and is skipped; trying the state before it")
    if found:
        raise InputError(f"every state in {folder} is damaged; start a new run without --resume in another --out")
    raise InputError(f"there is no state in {folder} to resume from; run without --resume")


def read_description(path: Path) -> dict:
    """Return the description of a state as given to ``save_state``, with the size and sha256 of each file.

    Raises:
        InputError: the description cannot be read or is incomplete.
    """
    description = read_json(path / DESCRIPTION, finite=False)  # without validation, the best score is infinite
    with refusing(path / DESCRIPTION, "the description of a state", "resume from an earlier state"):
        for name, kinds in DESCRIPTION_KINDS.items():
            if type(description[name]) not in kinds:
                raise InputError(f"{name} is {shown(description[name], 60)}")
        outside = [name for name in description["files"] if not is_inside(name)]
        if outside:
            raise InputError(f"the file {shown(outside[0], 60)} is not in its folder")
    return description


def save_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write tensors that are sharded over the processes, or equal in all; all processes must call it."""
    with warnings.catch_warnings(action="ignore"):  # a single process is warned that it saves alone
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Load the values written by ``save_tensors`` into tensors, in place, with any number of processes.

    Raises:
        ValueError: names or shapes differ from those on disk.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        raise ValueError(_reason(error)) from error


def _finish(temporary: Path, target: Path, description: dict) -> None:
    """Write the description and give the state its final name."""
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))
    shutil.rmtree(target, ignore_errors=True)  # a damaged state that the run was resumed from before
    os.replace(temporary, target)


def _digests(accelerator: Accelerator, folder: Path) -> dict[str, list]:
    """Return the size and sha256 of each file in this process's share of a folder."""
    digests = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DESCRIPTION)
    for path in files[accelerator.process_index :: accelerator.num_processes]:
        with open(path, "rb") as file:
            digests[str(path.relative_to(folder))] = [
                path.stat().st_size,
                hashlib.file_digest(file, "sha256").hexdigest(),
            ]
    return digests


def _verify(accelerator: Accelerator, path: Path) -> None:
    """Compare this process's share of the files with the recorded sizes and digests.

    Raises:
        OSError, ValueError: they differ.
    """
    try:
        expected = read_description(path)["files"]
    except InputError as error:
        raise ValueError(f"{DESCRIPTION} cannot be read") from error
    missing = [name for name in expected if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    for name, digest in _digests(accelerator, path).items():
        if digest != expected.get(name):
            raise ValueError(f"the checksum of {name} does not match")


def _attempt(action: Callable[[], None]) -> list[str]:
    """Run an action; returns the reason if it failed, as a list of at most one."""
    try:
        action()
        return []
    except (OSError, ValueError, SafetensorError, CheckpointException) as error:
        return [_reason(error)]


def _attempt_in_all_processes(action: Callable[[], None]) -> list[str]:
    """Run an action in every process; returns the reasons of all failures, the same list in all processes."""
    return gather_object(_attempt(action))


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):  # holds an error and its traceback per process
        error = next(iter(error.failures.values()))[0]
    return reason_of(error) if isinstance(error, Exception) else type(error).__name__
