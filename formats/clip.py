"""Read a motion file of any supported format: ours, AMASS, BVH, features.

Every motion becomes ``smplx_85`` at 30 frames per second, y up, so that any readable file can be drawn and exported.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from formats.amass import amass_to_smplx85
from formats.bvh import SkeletonMap, read_bvh
from formats.bvh_names import guess_skeleton
from motion.clip import Clip
from motion.features272 import FEATURES, check_features, features_to_smplx85
from motion.resample import FPS, check_fps, resample_positions, resample_rotations
from motion.smplx import (
    SMPLX85,
    SMPLX85_WIDTH,
    SMPLX322_WIDTH,
    motion_to_smplx85,
    smplx85_to_motion,
    smplx322_to_85,
)
from utils.errors import InputError, reason_of

MAX_FRAMES = 100_000  # almost an hour; a longer file is damaged or not a motion
NPZ_KEYS = ("smplx_85", "fps", "prompt", "poses", "trans", "betas", "mocap_framerate", "mocap_frame_rate")


def read_clip(path: str | Path, skeleton: Path | None = None) -> Clip:
    """Read a motion file.

    Args:
        path: ``.npz`` (ours, or AMASS), ``.bvh``, or ``.npy`` with 272 features, smplx_85 or smplx_322 at 30 fps.
        skeleton: YAML file that maps a BVH file's joints to ours; None identifies them by name.

    Returns:
        The validated clip, titled with its prompt or the file's name.

    Raises:
        InputError: the file is missing, is not a motion file, or holds unusable values.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".npy": _read_npy, ".bvh": lambda path: _read_bvh(path, skeleton)}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is no motion file; give {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path")
    try:
        return readers[path.suffix.lower()](path)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error


def _read_npz(path: Path) -> Clip:
    arrays = _load_arrays(path)
    if isinstance(arrays, np.ndarray):
        raise InputError(f"{path} is a single array, not an archive of arrays; name it .npy")
    title = str(arrays["prompt"]) if "prompt" in arrays else path.stem
    if "smplx_85" in arrays:
        return _at_our_fps(Clip(arrays["smplx_85"], title), arrays.get("fps", FPS))
    if "poses" in arrays and "trans" in arrays:
        fps = arrays.get("mocap_framerate", arrays.get("mocap_frame_rate"))
        if fps is None:
            raise InputError("it has no mocap_framerate; add the frames per second of the capture")
        return _at_our_fps(Clip(amass_to_smplx85(arrays), title), fps)
    raise InputError("it holds neither smplx_85 (ours) nor poses and trans (AMASS); give a motion")


def _read_npy(path: Path) -> Clip:
    data = _load_arrays(path)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype.kind not in "fiu":
        raise InputError(f"{path} holds no (frames, width) array of numbers; give features, smplx_85 or smplx_322")
    if data.shape[1] == FEATURES:
        check_features(data, str(path))
        return Clip(features_to_smplx85(data.astype(np.float64)), path.stem)
    if data.shape[1] == SMPLX322_WIDTH:
        return Clip(smplx322_to_85(data), path.stem)
    if data.shape[1] == SMPLX85_WIDTH:
        return Clip(data, path.stem)
    raise InputError(
        f"{path} has {data.shape[1]} values per frame; motion has {FEATURES} (features), {SMPLX85_WIDTH} or "
        f"{SMPLX322_WIDTH} (SMPL-X parameters)"
    )


def _load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Load the array of an ``.npy`` file, or the motion arrays of an ``.npz`` file; pickles are refused.

    Floats become float64: conversions of file formats are computed in double precision.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _double(loaded)
        with loaded:
            return {name: _double(loaded[name]) for name in loaded.files if name in NPZ_KEYS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is no readable NumPy file ({reason_of(error)}); write or copy it again") from error


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _read_bvh(path: Path, skeleton: Path | None) -> Clip:
    file = read_bvh(path)
    file, names = (file, SkeletonMap.from_yaml(skeleton)) if skeleton else guess_skeleton(file)
    _check_length(len(file.rotations), file.fps)
    rotations, pelvis = names.retarget(file, FPS)
    return Clip(motion_to_smplx85(rotations.astype(np.float64), pelvis), path.stem)


def _at_our_fps(clip: Clip, fps: np.ndarray | float) -> Clip:
    """Resample a clip of ``fps`` frames per second to 30: rotations by slerp, the pelvis linearly."""
    try:
        fps = float(fps)
    except (TypeError, ValueError) as error:
        raise InputError(f"its frame rate is {fps!r}; give one number") from error
    check_fps(fps)
    frames = len(clip.smplx85)
    _check_length(frames, fps)
    if fps == FPS or frames < 2:
        return clip
    rotations, pelvis = smplx85_to_motion(clip.smplx85)
    rotations, pelvis = resample_rotations(rotations, fps, FPS), resample_positions(pelvis, fps, FPS)
    return Clip(motion_to_smplx85(rotations, pelvis, clip.smplx85[0, SMPLX85["betas"]]), clip.title)


def _check_length(frames: int, fps: float) -> None:
    if frames / fps * FPS > MAX_FRAMES:
        raise InputError(f"{frames} frames at {fps:g} per second are too long for a motion; check the frame rate")
