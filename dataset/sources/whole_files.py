"""Plan of a source each file of which is a whole clip."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dataset.caption_table import CaptionFile
from dataset.converting import Converted, Cut, Plan, Task
from dataset.splits import MIRRORED
from utils.errors import InputError


class FileOptions(Protocol):
    """Options of such a source; see ``dataset.converting.ConvertOptions`` and the options of the sources."""

    source: Path
    captions: Path | None
    captions_per_clip: int
    mirrored: bool

    def split_of(self, clip_id: str) -> str: ...


def plan_whole_files(
    files: dict[str, Path],
    root: Path,
    convert: Callable[[Task], Converted],
    options: FileOptions,
    text_of: Callable[[Path], Path | None] = lambda file: None,
) -> Plan:
    """Return a task per file, with a mirrored copy of training clips.

    Args:
        files: Files by clip id.
        root: Folder that the names of files in a caption table are relative to.
        convert: Function that converts the file of a task.
        options: Options of the source.
        text_of: Function that returns the caption file of a motion file, used if ``options.captions`` is None.

    Raises:
        InputError: the captions cannot be read.
    """
    captions = CaptionFile(options.captions, options.captions_per_clip) if options.captions else None
    tasks, left_out = [], {}
    for clip_id, file in files.items():
        text = None if captions else text_of(file)
        cuts = [Cut(clip_id, text=text)]
        if options.mirrored and options.split_of(clip_id) == "train":
            cuts.append(Cut(clip_id + MIRRORED, mirrored=True, text=text))
        try:
            lines = captions.of(file.relative_to(root).with_suffix("").as_posix()) if captions else None
            tasks.append(Task(clip_id, file, tuple(cuts), lines))
        except InputError as error:
            left_out[clip_id] = f"{file}: {error}"
    if captions:
        left_out |= captions.without_file(options.source)
    return Plan(tasks, convert, left_out=left_out)
