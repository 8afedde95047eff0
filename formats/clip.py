"""Read a motion file of any supported format: .npz (this project, AMASS, Kimodo, HY-Motion), BVH, glTF, .npy.

Every motion becomes ``smplx_85`` at 30 frames per second, y up, so that any readable file can be drawn and exported.
"""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from formats.amass import amass_to_smplx85
from formats.generators import hymotion_to_smplx85, kimodo_amass_to_smplx85, kimodo_to_smplx85
from formats.import_options import ImportOptions, check_length
from formats.joints import FEATURE_WIDTHS, JOINT_COUNTS, clip_of_features, clip_of_joints
from formats.motion_import import SUFFIXES, import_motion
from formats.skeleton_map import SkeletonMap
from motion.body_shape import rest_joints
from motion.clip import Clip
from motion.features272 import FEATURES, check_features, features_to_smplx85
from motion.plausibility import check_plausible
from motion.resample import FPS, check_fps, resample_positions, resample_rotations
from motion.retarget import UNITS
from motion.skeleton import forward_kinematics
from motion.smplx import (
    SMPLX85,
    SMPLX85_WIDTH,
    SMPLX322_WIDTH,
    motion_to_smplx85,
    smplx85_to_motion,
    smplx322_to_85,
)
from utils.errors import InputError, shown
from utils.reading.arrays import read_npy, read_npz
from utils.reading.files import naming

Arrays = dict[str, np.ndarray]


def _ours(arrays: Arrays, options: ImportOptions, notes: list[str]) -> np.ndarray:
    return arrays["smplx_85"]


def _amass(arrays: Arrays, options: ImportOptions, notes: list[str]) -> np.ndarray:
    return amass_to_smplx85(arrays, options.up, UNITS[options.units or "m"], notes)


class NpzFormat(NamedTuple):
    """A kind of ``.npz`` file, which is recognized by its keys."""

    keys: str  # words; of alternatives separated by "|", one must be there
    read: Callable[[Arrays, ImportOptions, list[str]], np.ndarray]  # to (T, 85) at the file's frame rate
    fps: float | None  # frame rate of a file that does not state it


NPZ_FORMATS = (  # the first whose keys are in the file is read
    NpzFormat("smplx_85", _ours, FPS),
    NpzFormat("local_rot_mats root_positions", kimodo_to_smplx85, FPS),
    NpzFormat("Rh poses trans", hymotion_to_smplx85, FPS),
    NpzFormat("poses trans|transl", _amass, None),
    NpzFormat("root_orient pose_body trans mocap_time_length", kimodo_amass_to_smplx85, None),
    NpzFormat("root_orient pose_body trans|transl", _amass, None),  # the input of GMR
    NpzFormat("global_orient body_pose trans|transl", _amass, None),  # parameters of the smplx package
)
MAX_RIGHTS = 400  # characters of a license
FPS_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps")
OTHER_KEYS = ("prompt", "license", "betas", "surface_model_type", "posed_joints", *FPS_KEYS)  # read if they are there
NPZ_KEYS = {key for kind in NPZ_FORMATS for key in kind.keys.replace("|", " ").split()} | set(OTHER_KEYS)
PICKLES = {  # suffix -> Python code that converts sys.argv[1] to sys.argv[2]
    ".pkl": "np.savez(sys.argv[2], **np.load(sys.argv[1], allow_pickle=True, encoding='latin1'))",
    ".pt": "import torch; np.savez(sys.argv[2], **torch.load(sys.argv[1], map_location='cpu', weights_only=True))",
}
PICKLES |= {".pickle": PICKLES[".pkl"], ".pth": PICKLES[".pt"]}


def read_clip(path: str | Path, skeleton: Path | None = None, options: ImportOptions | None = None) -> Clip:
    """Read a motion file.

    Args:
        path: ``.npz`` (one of ``NPZ_FORMATS``), ``.bvh``, ``.glb``, ``.gltf``, ``.vrma`` or ``.fbx`` with an animation,
            or ``.npy``: 272 features, smplx_85 or smplx_322 at 30 fps, features of HumanML3D (263 columns) or joints
            (T, 22, 3) at 20 fps, features of KIT-ML (251) or joints (T, 21, 3) at 12.5 fps.
        skeleton: YAML file that maps the joints of a BVH or glTF file; None finds them by name and hierarchy.
        options: Up axis, units, frame rate and animation of the file; values that are not given are inferred.

    Returns:
        The validated clip, titled with its prompt or the file's name.

    Raises:
        InputError: the file is missing, is not a motion file, or holds unusable values.
    """
    path = Path(path)
    options = options or ImportOptions()
    readers = {
        ".npz": lambda path: _read_npz(path, options),
        ".npy": lambda path: _read_npy(path, options),
        **dict.fromkeys(SUFFIXES, lambda path: _read_skeletal(path, skeleton, options)),
    }
    if path.suffix.lower() in PICKLES:
        raise _pickle_refusal(path)
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is not a motion file; give {', '.join(readers)}")
    with naming(path):
        return readers[path.suffix.lower()](path)


def _pickle_refusal(path: Path) -> InputError:
    """Return the error of a pickle, with the command that converts a dictionary of arrays to ``.npz``."""
    given = path if len(str(path)) <= 60 else Path(path.name)
    files = " ".join(shlex.quote(shown(file, 60)) for file in (given, given.with_suffix(".npz")))
    return InputError(
        f"{shown(path, 100)} is a pickle, which may run code when it is opened, and is not read; where you trust it, "
        f'run: python -c "import sys, numpy as np; {PICKLES[path.suffix.lower()]}" {files} (nested '
        "parameters: docs/sharing.md)"
    )


def _read_npz(path: Path, options: ImportOptions) -> Clip:
    arrays = {name: _double(array) for name, array in read_npz(path, NPZ_KEYS).items()}
    title = str(arrays["prompt"]) if "prompt" in arrays else path.stem
    rights = str(arrays["license"])[:MAX_RIGHTS] if "license" in arrays else ""
    kind = next((kind for kind in NPZ_FORMATS if _has(arrays, kind.keys)), None)
    if kind is None:
        raise InputError(
            "it holds neither smplx_85 (ours) nor poses (or root_orient and pose_body) and trans (AMASS, HY-Motion), "
            "nor local_rot_mats and root_positions (Kimodo); give a motion"
        )
    ours = kind.read is _ours
    rates = [arrays[key] for key in (("fps",) if ours else FPS_KEYS) if key in arrays]
    fps = options.fps or next(iter(rates), kind.fps)
    if fps is None:
        raise InputError("it has no mocap_framerate; give the frames per second of the capture with --fps")
    notes: list[str] = []
    clip = _at_our_fps(Clip(kind.read(arrays, options, notes), title, tuple(notes), rights=rights), fps)
    return clip if ours else _plausible(clip, options)


def _has(arrays: Arrays, keys: str) -> bool:
    """Whether the arrays have the keys of a ``NpzFormat``."""
    return all(any(key in arrays for key in words.split("|")) for words in keys.split())


def _plausible(clip: Clip, options: ImportOptions) -> Clip:
    """Return a clip of foreign origin after the plausibility check."""
    if not options.force:
        check_plausible(*smplx85_to_motion(clip.smplx85.astype(np.float64)))
    return clip


def _read_npy(path: Path, options: ImportOptions) -> Clip:
    data = _double(read_npy(path))
    if data.dtype.kind in "fiu" and data.ndim in (3, 4) and data.shape[-1] == 3 and data.shape[-2] in JOINT_COUNTS:
        return _plausible(_at_our_fps(*clip_of_joints(data, path.stem, options)), options)
    if data.ndim != 2 or data.dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds no (frames, width) array of numbers; give features, smplx_85, smplx_322 or joints (T, 22, 3)"
        )
    if data.shape[1] in FEATURE_WIDTHS:
        return _plausible(_at_our_fps(*clip_of_features(data, path.stem, options)), options)
    if data.shape[1] == FEATURES:
        check_features(data, str(path))
        return Clip(features_to_smplx85(data.astype(np.float64)), path.stem)
    if data.shape[1] == SMPLX322_WIDTH:
        clip = Clip(_pelvis_of_322(smplx322_to_85(data)), path.stem)
        return _plausible(_at_our_fps(clip, options.fps or FPS), options)
    if data.shape[1] == SMPLX85_WIDTH:
        return Clip(data, path.stem)
    raise InputError(
        f"{path} has {data.shape[1]} values per frame; motion has {FEATURES} (features), {SMPLX85_WIDTH} or "
        f"{SMPLX322_WIDTH} (SMPL-X parameters), 263 (HumanML3D) or 251 (KIT-ML)"
    )


def _double(array: np.ndarray) -> np.ndarray:
    """Floats as float64: conversions of file formats are computed in double precision."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _pelvis_of_322(smplx85: np.ndarray) -> np.ndarray:
    """Replace SMPL-X's ``transl`` (the model's origin, as Motion-X stores it) with the pelvis in (T, 85).

    Arrays from ``smplx85_to_322`` hold the pelvis itself; the reading that puts the feet nearer to the floor is used.
    """
    rest_pelvis = rest_joints(smplx85[0, SMPLX85["betas"]])[0]
    floor = np.percentile(forward_kinematics(*smplx85_to_motion(smplx85))[..., 1].min(axis=1), 5)
    smplx85 = smplx85.copy()
    if abs(floor + rest_pelvis[1]) < abs(floor):
        smplx85[:, SMPLX85["translation"]] += rest_pelvis
    return smplx85


def _read_skeletal(path: Path, skeleton: Path | None, options: ImportOptions) -> Clip:
    motion = import_motion(path, FPS, SkeletonMap.from_yaml(skeleton) if skeleton else None, options)
    smplx85 = motion_to_smplx85(motion.rotations.astype(np.float64), motion.pelvis)
    return Clip(smplx85, options.animation or path.stem, tuple(motion.notes))


def _at_our_fps(clip: Clip, fps: np.ndarray | float) -> Clip:
    """Resample a clip of ``fps`` frames per second to 30: rotations by slerp, the pelvis linearly."""
    try:
        fps = float(fps)
    except (TypeError, ValueError) as error:
        raise InputError(f"its frame rate is {fps!r}; give one number") from error
    check_fps(fps)
    frames = len(clip.smplx85)
    check_length(frames, fps)
    if fps == FPS or frames < 2:
        return clip
    rotations, pelvis = smplx85_to_motion(clip.smplx85)
    rotations, pelvis = resample_rotations(rotations, fps, FPS), resample_positions(pelvis, fps, FPS)
    return replace(clip, smplx85=motion_to_smplx85(rotations, pelvis, clip.smplx85[0, SMPLX85["betas"]]))
