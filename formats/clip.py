"""A motion as it is read from a file, whatever the format: ours, AMASS, BVH, features.

Everything becomes ``smplx_85`` at 30 frames per second, y up, so that whatever can be read can be drawn and exported.
"""

import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from formats.amass import amass_to_smplx85, read_arrays
from formats.bvh_import import ImportOptions, import_bvh
from formats.skeleton_map import SkeletonMap
from motion.body_shape import leg_length, rest_joints
from motion.features272 import FEATURES, check_features, features_from_motion, features_to_smplx85
from motion.plausibility import check_plausible
from motion.resample import FPS, check_fps, resample_positions, resample_rotations
from motion.retarget import UNITS
from motion.skeleton import forward_kinematics
from motion.smplx import (
    SMPLX85,
    SMPLX85_WIDTH,
    SMPLX322_WIDTH,
    check_smplx85,
    motion_to_smplx85,
    smplx85_to_motion,
    smplx322_to_85,
)
from utils.errors import InputError, reason_of

MAX_FRAMES = 100_000  # almost an hour; a file that promises more is damaged or not a motion


@dataclass
class Clip:
    """One motion at 30 frames per second."""

    smplx85: np.ndarray  # (T, 85)
    title: str  # any text
    notes: list[str] = field(default_factory=list)  # decisions of the reader that the user should know

    def features(self) -> np.ndarray:
        """(T, 272) features, not normalised; the clip is turned to face +z and put on the ground."""
        rotations, pelvis = smplx85_to_motion(self.smplx85)
        legs = leg_length(self.smplx85[0, SMPLX85["betas"]]) / leg_length(np.zeros(10))  # features have mean legs
        return features_from_motion(rotations, pelvis / legs).astype(np.float32)


def read_clip(path: str | Path, skeleton: Path | None = None, options: ImportOptions | None = None) -> Clip:
    """Read a motion file.

    Args:
        path: ``.npz`` (ours, or AMASS), ``.bvh``, or ``.npy`` with 272 features, smplx_85 or smplx_322 at 30 fps.
        skeleton: YAML file that maps a BVH file's joints to ours, where their names do not tell.

    Raises:
        InputError: the file is missing, is no motion, or holds values that cannot be used.
    """
    path = Path(path)
    options = options or ImportOptions()
    readers = {
        ".npz": lambda path: _read_npz(path, options),
        ".npy": lambda path: _read_npy(path, options),
        ".bvh": lambda path: _read_bvh(path, skeleton, options),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is no motion file; give {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path")
    try:
        clip = readers[path.suffix.lower()](path)
        return replace(clip, smplx85=check_smplx85(clip.smplx85))
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error


def _read_npz(path: Path, options: ImportOptions) -> Clip:
    arrays = _loaded(path)
    if isinstance(arrays, np.ndarray):
        raise InputError(f"{path} is a single array, not an archive of arrays; name it .npy")
    title = str(arrays["prompt"]) if "prompt" in arrays else path.stem
    if "smplx_85" in arrays:
        rate = options.fps or arrays.get("fps", FPS)
        return Clip(_at_our_fps(check_smplx85(arrays["smplx_85"]), rate), title)
    if read_arrays(arrays) is not None:
        rates = [arrays[key] for key in ("mocap_framerate", "mocap_frame_rate", "fps") if key in arrays]
        rate = options.fps or next(iter(rates), None)
        if rate is None:
            raise InputError("it has no mocap_framerate; give the frames per second of the capture with --fps")
        notes: list[str] = []
        metres = UNITS[options.units or "m"]
        smplx85 = _at_our_fps(check_smplx85(amass_to_smplx85(arrays, options.up, metres, notes)), rate)
        return _plausible(Clip(smplx85, title, notes), options)
    raise InputError(
        "it holds neither smplx_85 (ours) nor poses (or root_orient and pose_body) and trans (AMASS); give a motion"
    )


def _plausible(clip: Clip, options: ImportOptions) -> Clip:
    """Check motion that others made."""
    if not options.force:
        check_plausible(*smplx85_to_motion(clip.smplx85))
    return clip


_NPZ_KEYS = ("smplx_85", "fps", "prompt", "poses", "root_orient", "pose_body", "global_orient", "body_pose", "trans",
             "transl", "betas", "surface_model_type", "mocap_framerate", "mocap_frame_rate")  # fmt: skip


def _loaded(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an ``.npy`` file, or those of an ``.npz`` file that motion needs; never a pickle."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files if name in _NPZ_KEYS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is no readable NumPy file ({reason_of(error)}); write or copy it again") from error


def _read_npy(path: Path, options: ImportOptions) -> Clip:
    data = _loaded(path)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype.kind not in "fiu":
        raise InputError(f"{path} holds no (frames, width) array of numbers; give features, smplx_85 or smplx_322")
    if data.shape[1] == FEATURES:
        check_features(data, str(path))
        return Clip(features_to_smplx85(data.astype(np.float64)), path.stem)
    if data.shape[1] == SMPLX322_WIDTH:
        smplx85 = _pelvis_of_322(smplx322_to_85(data))
        return _plausible(Clip(_at_our_fps(smplx85, options.fps or FPS), path.stem), options)
    if data.shape[1] == SMPLX85_WIDTH:
        return Clip(data, path.stem)
    raise InputError(
        f"{path} has {data.shape[1]} values a frame; motion has {FEATURES} (features), {SMPLX85_WIDTH} or "
        f"{SMPLX322_WIDTH} (SMPL-X parameters)"
    )


def _pelvis_of_322(smplx85: np.ndarray) -> np.ndarray:
    """The same with the pelvis for SMPL-X's ``transl``, which Motion-X stores: the model's origin, not its pelvis.

    Arrays of ours hold the pelvis itself; whichever puts the feet nearer to the floor is taken.
    """
    rest_pelvis = rest_joints(smplx85[0, SMPLX85["betas"]])[0]
    floor = np.percentile(forward_kinematics(*smplx85_to_motion(smplx85))[..., 1].min(axis=1), 5)
    smplx85 = smplx85.copy()
    if abs(floor + rest_pelvis[1]) < abs(floor):
        smplx85[:, SMPLX85["translation"]] += rest_pelvis
    return smplx85


def _read_bvh(path: Path, skeleton: Path | None, options: ImportOptions) -> Clip:
    result = import_bvh(path, FPS, SkeletonMap.from_yaml(skeleton) if skeleton else None, options)
    return Clip(motion_to_smplx85(result.rotations.astype(np.float64), result.pelvis), path.stem, result.notes)


def _at_our_fps(smplx85: np.ndarray, fps: np.ndarray | float) -> np.ndarray:
    """Resample (T, 85) to 30 frames per second: rotations by slerp, the pelvis linearly."""
    try:
        fps = float(fps)
    except (TypeError, ValueError) as error:
        raise InputError(f"its frame rate is {fps!r}; give one number") from error
    check_fps(fps)
    if len(smplx85) / fps * FPS > MAX_FRAMES:
        raise InputError(f"{len(smplx85)} frames at {fps:g} per second are too long a motion; check the frame rate")
    if fps == FPS or len(smplx85) < 2:
        return smplx85
    rotations, pelvis = smplx85_to_motion(smplx85)
    pelvis = resample_positions(pelvis, fps, FPS)
    return motion_to_smplx85(resample_rotations(rotations, fps, FPS), pelvis, smplx85[0, SMPLX85["betas"]])
