"""Output folder of inference_batch.py: NAME.npz for each motion, its videos and other files, results.json, overviews.

An npz is complete if it can be read and was generated from the same prompt, seed, length, constraints and settings. All
other files are drawn from it, and are current if they are not older than it.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from motion.resample import FPS
from motion.skeleton import JOINTS
from utils.errors import InputError
from utils.files import atomic_write
from utils.locks import FolderInUse, exclusive_file, shared_folder
from utils.prompts import Prompt, PromptItem
from utils.reading.arrays import read_npz
from utils.reading.texts import parse_json
from visualize.body import body_from_options
from visualize.export import motion_arrays
from visualize.options import FILES, FORMATS, VIDEOS, VIEWS
from visualize.page import check_own_gallery, write_results_gallery
from visualize.renderers import Renderers
from visualize.results import RESULTS, read_results
from visualize.strips import check_own_sheet, write_results_sheet

OVERVIEWS = {"sheet": (check_own_sheet, write_results_sheet), "html": (check_own_gallery, write_results_gallery)}
COLUMNS = {"smplx_85": (85,), "joints": (JOINTS, 3), "features": (272,)}  # of the arrays with a row per frame


@contextmanager
def output_folder_in_use(path: Path, formats: Sequence[str]) -> Iterator[FolderInUse]:
    """Mark an output folder as in use, and remove leftovers of killed runs.

    Raises:
        InputError: its results.json, or an overview to be written, is of another program.
    """
    with shared_folder(path) as folder:
        read_results(path)
        for name, (check, _) in OVERVIEWS.items():
            if name in formats:
                check(path)
        yield folder


def check_writable(path: Path) -> None:
    """Create a folder if it is missing.

    Raises:
        InputError: the folder cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into the folder {path}: {error.strerror or error}; choose a writable --out-dir"
        ) from error


class OutputFolder:
    """The motions of one checkpoint and one set of settings in a folder, with their files and the list of results.

    Args:
        folder: the folder; see ``output_folder_in_use``.
        formats: formats of ``FORMATS`` to write; NAME.npz is written in any case.
        views: views of ``VIEWS`` to draw in videos; NAME.mp4 shows the mesh, NAME_skeleton.mp4 the skeleton.
        checkpoint_id: name and fingerprint of the checkpoint.
        settings: settings that determine a motion besides prompt, seed and length, as one string.
        rights: license of the motions, in one line; the npz and files drawn from it state it.

    Attributes:
        finished: motions that were found complete or have been saved.
    """

    def __init__(
        self,
        folder: FolderInUse,
        formats: Sequence[str],
        views: Sequence[str],
        checkpoint_id: str,
        settings: str,
        rights: str = "",
    ):
        self.folder, self.path, self.formats, self.views = folder, folder.path, formats, views
        self.checkpoint_id, self.settings, self.rights = checkpoint_id, settings, rights
        self.finished: list[PromptItem] = []

    def motion_file(self, item: PromptItem) -> Path:
        """Return the path of an item's npz."""
        return self.path / f"{item.name}.npz"

    def is_complete(self, item: PromptItem) -> bool:
        """Whether the item's npz is undamaged and of the same prompt, seed, length, constraints and settings."""
        try:
            saved = read_npz(self.motion_file(item))
            made_from = str(saved["prompt"]), int(saved["seed"]), str(saved["settings"])
            asked = None if np.isnan(saved["asked_seconds"]) else float(saved["asked_seconds"])
            frames = len(saved["features"])
            whole = all(saved[key].shape == (frames, *columns) for key, columns in COLUMNS.items())
            complete = whole and (*made_from, asked) == (item.prompt, item.seed, self.settings, item.seconds)
            complete = complete and str(saved.get("constraints", "null")) == json.dumps(item.constraints)
        except (InputError, KeyError, TypeError, ValueError):
            return False
        if complete:
            self.finished.append(item)
        return complete

    def save(
        self,
        item: PromptItem,
        smplx85: np.ndarray,
        features: np.ndarray,
        tokens: np.ndarray,
        text: str,
        errors: Sequence[dict[str, Any]] = (),
        sentences: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Write the item's npz and remove files that were drawn from an earlier motion of this name.

        Args:
            item: prompt, seed, name and constraints of the motion.
            smplx85: (T, 85) body parameters.
            features: (T, 272) float32, not normalized.
            tokens: (n,) int64 motion tokens.
            text: the prompt as the generator read it; differs from ``item.prompt`` if it was rewritten.
            errors: distances from its constraints (``control.report``).
            sentences: the known caption closest to each sentence, if the checkpoint lists captions (``models.known``).

        Raises:
            InputError: the npz cannot be written, or the folder was removed.
        """
        self.folder.check()
        constrained = {"constraints": json.dumps(item.constraints), "constraint_errors": json.dumps(list(errors))}
        with atomic_write(self.motion_file(item)) as file:
            np.savez_compressed(
                file,
                **motion_arrays(smplx85),
                features=features,
                tokens=tokens,
                prompt=item.prompt,
                text=text,
                seed=item.seed,
                checkpoint=self.checkpoint_id,
                settings=self.settings,
                asked_seconds=np.nan if item.seconds is None else item.seconds,
                **({} if item.constraints is None else constrained),
                **({"sentences": json.dumps(list(sentences))} if sentences else {}),
                **({"license": self.rights} if self.rights else {}),
            )
        self.finished.append(item)
        for file in self._files_of(item, FORMATS, VIEWS):
            if file.is_file():
                file.unlink()

    def draw_missing(self, item: PromptItem, renderers: Renderers) -> int:
        """Queue the item's missing and outdated files for drawing, and return the number of current ones."""
        source = self.motion_file(item)
        files = self._files_of(item, self.formats, self.views)
        try:
            written = source.stat().st_mtime_ns
        except OSError as error:
            raise InputError(f"{source} was removed after it was written; run the same command again") from error
        missing = [file for file in files if not (file.is_file() and file.stat().st_mtime_ns >= written)]
        for file in missing:
            renderers.draw(source, file, files[file])
        return len(files) - len(missing)

    def write_results(self, items: Sequence[PromptItem], failures: dict[str, str]) -> Path:
        """Add the items to results.json, or replace their entries; entries of other runs are kept.

        Args:
            items: motions whose npz is in the folder.
            failures: reason for each file that could not be drawn, by file name.

        Raises:
            InputError: results.json was written by another program or cannot be written, or a motion was removed.
        """
        self.folder.check()
        path = self.path / RESULTS
        with exclusive_file(path):
            results = {entry["name"]: entry for entry in read_results(self.path)}
            results |= {item.name: self._result_of(item, failures) for item in items}
            with atomic_write(path) as file:
                file.write_text(json.dumps(list(results.values()), indent=1, ensure_ascii=False), encoding="utf-8")
        return path

    def write_overviews(self, body_model: str | None, smplx_path: Path | None) -> list[Path]:
        """Write contact_sheet.png and gallery.html, of those to be saved, with the motions of results.json.

        Args:
            body_model: Body to draw, and ``smplx_path`` its file; as in ``body_from_options``.
        """
        writers = [write for name, (_, write) in OVERVIEWS.items() if name in self.formats]
        body = body_from_options(body_model, smplx_path) if writers else None
        return [write(self.path, body) for write in writers]

    def _result_of(self, item: PromptItem, failures: dict[str, str]) -> dict:
        """Return the entry of results.json for a saved motion."""
        keys = ("smplx_85", "tokens", "checkpoint", "settings", "text", "constraint_errors", "sentences")
        saved = read_npz(self.motion_file(item), keys)
        frames, checkpoint, text = len(saved["smplx_85"]), str(saved["checkpoint"]), str(saved["text"])
        settings = parse_json(str(saved["settings"]))
        constrained = {}
        if item.constraints is not None:
            errors = parse_json(str(saved["constraint_errors"]))
            constrained = {"constraints": item.constraints, "constraint_errors": errors}
        files = [self.motion_file(item), *self._files_of(item, self.formats, self.views)]
        return {
            "name": item.name,
            "prompt": item.prompt,
            "text": text,
            "seed": item.seed,
            "frames": frames,
            "seconds": round(frames / FPS, 3),
            "end": end_of(item, len(saved["tokens"]), settings),
            "checkpoint": checkpoint,
            "settings": settings,
            **constrained,
            **({"sentences": parse_json(str(saved["sentences"]))} if "sentences" in saved else {}),
            "files": [file.name for file in files if file.name not in failures and file.is_file()],
            "failed": {file.name: failures[file.name] for file in files if file.name in failures},
        }

    def _files_of(self, item: PromptItem, formats: Sequence[str], views: Sequence[str]) -> dict[Path, str]:
        """Return the item's files other than its npz, each with its view."""
        videos = {
            self.path / f"{item.name}{'_skeleton' if view == 'skeleton' else ''}.{suffix}": view
            for view in views
            for suffix in formats
            if suffix in VIDEOS
        }
        return videos | {self.path / f"{item.name}.{suffix}": "mesh" for suffix in formats if suffix in FILES}


def end_of(item: PromptItem, tokens: int, settings: dict[str, Any]) -> str | None:
    """Return why a motion ends where it does.

    Returns:
        "length": it has the length that was asked for; "limit": it has the largest number of tokens of the checkpoint;
        "itself": the generator ended it. None for several sentences, each of which ends in its own way.
    """
    constraints = item.constraints if isinstance(item.constraints, dict) else {}
    if item.seconds is not None or constraints.get("length") is not None:
        return "length"
    if len(Prompt.parse(item.prompt).sentences) > 1:
        return None
    return "limit" if tokens >= settings["max_tokens"] else "itself"
