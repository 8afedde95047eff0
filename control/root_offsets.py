"""Corrections of the place and the heading of the pelvis: paths, places and headings at given frames.

The trajectory of the pelvis is the sum of a smooth base and the sway of the steps. A correction moves the base, turns
body and sway by the change of its direction, and thus keeps the manner of the gait:

1. Known headings turn the whole motion about the vertical axis, gradually from one to the next.
2. The base is laid on the path, at the motion's own speed, scaled so that it ends at the end of the path.
3. Known places bend the base, gradually from one to the next.
4. What remains at known frames is at most the sway; it is removed within a second around them.
"""

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from control.targets import Targets
from control.track import PATH_STEP
from motion.features272 import heading_angle
from motion.resample import FPS
from motion.rotation import y_rotation
from motion.spread import carry, known_spans, spread

SWAY = 0.45  # metres: sigma of the filter that separates the base from the sway
SHORTEST_SWAY, LONGEST_SWAY = 5.0, 12.0  # frames: its limits
TURN = 6.0  # frames: sigma of the filter of the change of direction
SLOW = 0.15 / FPS  # metres per frame, below which the direction of a base hardly counts
CREEP = 0.05 / FPS  # metres per frame that are added to the speed of the base when distances are shared out over time
CORNER = 0.12  # sigma of the rounding of corners in metres, per squared speed in metres per second
SHARPEST, ROUNDEST = 0.2, 0.35  # metres: smallest and largest sigma of the rounding
LEVER = 0.5  # metres from the axis of the body, for the widths of turns


def place(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Move and turn a motion so that it keeps the path, the known places and the known headings.

    Args:
        rotations: (T, 22, 3, 3) local rotations, the root's in the world frame.
        pelvis: (T, 3) metres.
        targets: What is asked of the T frames.

    Returns:
        Rotations and pelvis of the same shapes. Heights do not change.
    """
    motion = rotations, pelvis
    if targets.heading_known.any():
        motion = _turn_to(*motion, targets)
    if len(targets.path) > 1:
        motion = _rebase(*motion, _along_path(_base(_plane(motion[1])), targets.path))
    if targets.root_known.any():
        motion = _rebase(*motion, _through_places(motion[1], targets))
    rotations, pelvis = motion
    if targets.heading_known.any():
        missing = _missing_heading(rotations, targets)[:, None]
        rotations = _turned(rotations, spread(targets.heading_known, missing, LEVER)[:, 0])
    exact = targets.exact_places
    if exact.any():
        pelvis = pelvis.copy()
        pelvis[:, [0, 2]] += spread(exact, targets.root - pelvis[:, [0, 2]])
    return rotations, pelvis


def _turn_to(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Turn body and trajectory toward the known headings."""
    known, missing = targets.heading_known, _missing_heading(rotations, targets)
    missing[known] = np.unwrap(missing[known])
    turn = carry(known, missing[:, None], np.arange(len(known), dtype=float))[:, 0]
    plane = _plane(pelvis)
    steps = np.diff(plane) * np.exp(0.5j * (turn[1:] + turn[:-1]))
    return _turned(rotations, turn), _moved(pelvis, plane[0] + np.append(0, np.cumsum(steps)))


def _along_path(base: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return the (T,) complex base laid on a path (P, 2), from its start to its end."""
    steps = np.abs(np.diff(base)) + CREEP
    progress = np.append(0, np.cumsum(steps)) / steps.sum()  # (T,) from 0 to 1
    sigma = _rounding((len(path) - 1) * PATH_STEP / len(steps)) / PATH_STEP
    smooth = _smooth(path[:, 1] + 1j * path[:, 0], sigma)
    return CubicSpline(np.linspace(0, 1, len(path)), smooth)(progress)


def _through_places(pelvis: np.ndarray, targets: Targets) -> np.ndarray:
    """Return the (T,) complex base that passes through the known places."""
    plane = _plane(pelvis)
    base, asked = _base(plane), targets.root[:, 1] + 1j * targets.root[:, 0]
    exact = targets.exact_places
    for first, end in known_spans(targets.root_known & ~exact):
        steps = np.abs(np.diff(asked[first - 1 : end + 1]))
        asked[first - 1 : end + 1] = _smooth(asked[first - 1 : end + 1], _rounding(steps.mean()) / steps.mean())
    missing = np.where(exact, asked - plane, asked - base)
    steps = np.abs(np.diff(base)) + CREEP
    steps[targets.root_known[1:] & targets.root_known[:-1]] = steps.mean()  # so that velocities are per frame
    clock = np.append(0, np.cumsum(steps) / steps.mean())
    offset = carry(targets.root_known, np.stack((missing.real, missing.imag), axis=1), clock)
    return base + offset[:, 0] + 1j * offset[:, 1]


def _rounding(step: float) -> float:
    """Return sigma in metres of the rounding of corners at a speed in metres per frame."""
    return float(np.clip(CORNER * (step * FPS) ** 2, SHARPEST, ROUNDEST))


def _rebase(rotations: np.ndarray, pelvis: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move a motion to another (T,) complex base; body and sway turn by the change of direction of the base."""
    plane = _plane(pelvis)
    before = _base(plane)
    change = np.gradient(base) * np.gradient(before).conj() + SLOW**2
    turn = np.unwrap(np.angle(gaussian_filter1d(change, TURN, mode="nearest")))
    return _turned(rotations, turn), _moved(pelvis, base + np.exp(1j * turn) * (plane - before))


def _base(plane: np.ndarray) -> np.ndarray:
    """Return the (T,) complex base of a trajectory; both ends stay in place."""
    speed = abs(plane[-1] - plane[0]) / len(plane)  # metres per frame
    return _smooth(plane, float(np.clip(SWAY / max(speed, 1e-9), SHORTEST_SWAY, LONGEST_SWAY)))


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth (N,) complex values by a Gaussian filter, sharpened so that it hardly shortens bends; the ends stay."""
    margin = int(8 * sigma) + 1
    padded = (
        np.pad(values, margin, mode="reflect", reflect_type="odd") if len(values) > 1 else values.repeat(2 * margin + 1)
    )
    once = gaussian_filter1d(padded, sigma)
    return (2 * once - gaussian_filter1d(once, sigma))[margin:-margin]


def _missing_heading(rotations: np.ndarray, targets: Targets) -> np.ndarray:
    """Return the (T,) angles in (-pi, pi] from the heading of each frame to the known one."""
    difference = targets.heading - heading_angle(rotations[:, 0])
    return np.arctan2(np.sin(difference), np.cos(difference))


def _plane(pelvis: np.ndarray) -> np.ndarray:
    """Return places on the floor as (T,) complex numbers z + ix, whose angle is a heading."""
    return pelvis[:, 2] + 1j * pelvis[:, 0]


def _moved(pelvis: np.ndarray, plane: np.ndarray) -> np.ndarray:
    return np.stack((plane.imag, pelvis[:, 1], plane.real), axis=1)


def _turned(rotations: np.ndarray, turn: np.ndarray) -> np.ndarray:
    rotations = rotations.copy()
    rotations[:, 0] = y_rotation(turn) @ rotations[:, 0]
    return rotations
