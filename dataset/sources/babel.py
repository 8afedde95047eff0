"""Labels of BABEL (Punnakkal et al., CVPR 2021) as captions of sequences of AMASS.

``train.json``, ``val.json``, ``test.json`` and the larger ``extra_train.json``, ``extra_val.json`` map sequence ids to

    {"feat_p": "CMU/CMU/86/86_08_poses.npz", "dur": 76.73,
     "seq_ann": {"labels": [{"raw_label": ..., "proc_label": ..., "act_cat": [...]}, ...]},
     "frame_ann": {"labels": [{"raw_label": ..., "start_t": 2.1, "end_t": 2.8, ...}, ...]}}

where an annotation may be null; the extra files have lists ``seq_anns`` and ``frame_anns``. The labels of the test
split are not published (null).
"""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dataset.caption_table import caption_line
from dataset.converting import Converted, Cut, Plan, Task
from dataset.sources.humanml3d_index import SequenceKey, by_sequence
from dataset.splits import MIRRORED, SPLITS
from utils.errors import InputError, shown
from utils.reading.files import MB, refusing
from utils.reading.texts import read_json

FILES = {name: name.removeprefix("extra_") for name in ("train", "val", "test", "extra_train", "extra_val")}
TRANSITION = "transition"  # label of the frames between two actions


def plan(folder: Path, names: dict[str, Path], convert: Callable[[Task], Converted], mirrored: bool) -> Plan:
    """Return a task per labelled sequence.

    Args:
        folder: BABEL's JSON files.
        names: Files of AMASS by clip id.
        convert: Conversion of a task.
        mirrored: Whether training clips get a mirrored copy.

    Raises:
        InputError: the folder has no file of BABEL, or one is unusable.
    """
    files = {name: folder / f"{name}.json" for name in FILES if (folder / f"{name}.json").is_file()}
    if not files:
        raise InputError(
            f"{folder} has none of {', '.join(f'{name}.json' for name in FILES)}; give the folder of BABEL"
        )
    sequences = by_sequence(names.values())
    ids = {file: name for name, file in names.items()}
    lines: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    left_out: dict[str, str] = {}
    for part, file in files.items():
        for sid, sequence in read_sequences(file).items():
            with refusing(file, "labels of BABEL"):
                path = _path(sequence, sid)
                found = sequences.get(SequenceKey.of(path))
                labels = list(caption_lines(sequence, sid))
            if found is None or not labels:
                reason = "it has no labels" if found else "it is not in the source"
                left_out[str(path)] = f"{file}: sequence {sid} ({shown(path)}): {reason}"
                continue
            name = ids[found]
            if name not in lines:
                splits[FILES[part]].append(name)
            lines[name] = list(dict.fromkeys([*lines.get(name, []), *labels]))
    tasks = []
    trained = set(splits["train"])
    for name, captions in lines.items():
        copies = [Cut(name + MIRRORED, mirrored=True)] if mirrored and name in trained else []
        splits["train"] += [copy.clip_id for copy in copies]
        tasks.append(Task(name, names[name], (Cut(name), *copies), tuple(captions)))
    return Plan(tasks, convert, splits, left_out)


def read_sequences(file: Path) -> dict[str, dict[str, Any]]:
    """Return the sequences of a file of BABEL by id.

    Raises:
        InputError: the file is unusable.
    """
    values = read_json(file, most=1024 * MB)
    if not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise InputError(f"{shown(file, 200)} is no table of sequences; give a file of BABEL")
    return values


def caption_lines(sequence: dict[str, Any], sid: str) -> Iterator[str]:
    """Yield the labels of a sequence as caption lines: those of frames with their times, without transitions.

    Raises:
        InputError: the labels have another form.
    """
    for key in ("seq_ann", "seq_anns", "frame_ann", "frame_anns"):
        annotations = sequence.get(key)
        for annotation in annotations if isinstance(annotations, list) else [annotations] if annotations else []:
            try:
                for label in annotation["labels"]:
                    text = label.get("raw_label") or label.get("proc_label")
                    if not text or text.strip() == TRANSITION or label.get("proc_label") == TRANSITION:
                        continue
                    span = (float(label["start_t"]), float(label["end_t"])) if key.startswith("frame") else None
                    if span is None or 0 <= span[0] < span[1]:
                        yield caption_line(text, span)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{key} of sequence {shown(sid, 40)} is not of the form of BABEL") from error


def _path(sequence: dict[str, Any], sid: str) -> PurePosixPath:
    if not isinstance(sequence.get("feat_p"), str):
        raise InputError(f"sequence {shown(sid, 40)} has no feat_p, the file of AMASS")
    return PurePosixPath(sequence["feat_p"])
