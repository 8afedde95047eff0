"""Checks of constraints before anything is generated: contradictions, and values that no body reaches.

A value that can be reached roughly is not refused: the motion comes near it, and its error is reported.
"""

import math

import numpy as np

from control.constraints import Constraints, Pin, RootPath
from control.joints import LARGEST_DISTANCES
from control.paths import distances, lengths_along
from control.poses import Placement
from control.track_writer import TrackWriter
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINT_NAMES
from utils.errors import InputError

MAX_SPEED = 8.0  # metres per second of the root, an amateur's sprint; the demo data has 4.6 over half a second
MAX_TURN = 720.0  # degrees per second; the demo data has 591 over half a second (a dance)
JUMP = 1.0  # metres by which a jump lifts a joint above a stretched body on the floor
SLACK = 0.05  # metres that a value may be out of reach
OFF_PATH = 0.5  # metres between a path without times and other given places
FLOOR = -0.05  # metres; a pin below it is noted
START = "the start of the motion"


def check_constraints(constraints: Constraints, seconds: float | None = None) -> list[str]:
    """Check constraints for a motion of ``seconds``, or of their own length.

    Returns:
        Notes that the user should see: values that are odd and still done.

    Raises:
        InputError: constraints contradict each other, or no body can keep them; the sentence names them.
    """
    length = resolved_length(constraints, seconds)
    if constraints.end is not None and length is None:
        raise InputError("an end pose needs the length of the motion; give length in seconds")
    if length is not None:
        _check_times(constraints, length)
    writer = constraints.writer(int((length or constraints.needed_length) * FPS + 0.5) + 1)
    if constraints.path is not None:
        _check_path(constraints.path, constraints.placement, writer, length)
    for pin in constraints.pins:
        _check_height(pin)
        _check_reach(pin, writer)
    _check_speed(constraints, writer)
    _check_turns(writer)
    return [
        f"{pin.name} is {-pin.position[1]:.2f} m below the floor"
        for pin in constraints.pins
        if pin.position[1] is not None and pin.position[1] < FLOOR
    ]


def resolved_length(constraints: Constraints, seconds: float | None) -> float | None:
    """Return the length of the motion in seconds; None if neither the constraints nor ``seconds`` give it.

    Raises:
        InputError: they give different lengths.
    """
    if seconds is None or constraints.length is None:
        return constraints.length if seconds is None else seconds
    if abs(seconds - constraints.length) > 0.5 / FPS:
        raise InputError(
            f"the length of the motion is {seconds:g} s and its constraints say {constraints.length:g} s; leave one out"
        )
    return seconds


def _check_times(constraints: Constraints, length: float) -> None:
    for item in constraints.items():
        if item is not constraints.end and item.last > length + 0.5 / FPS:
            raise InputError(
                f"{item.name} is outside the motion, which ends at {length:g} s; give a time up to {length:g} s, or a "
                "longer length"
            )


def _check_path(path: RootPath, start: Placement, writer: TrackWriter, length: float | None) -> None:
    """Check the speed on a path, and that other places are near a path without times."""
    line = path.curve()
    total = lengths_along(line)[-1]
    if path.times is not None:
        for metres, before, after in zip(path.segment_lengths(), path.times, path.times[1:], strict=False):
            if metres > MAX_SPEED * (after - before) + SLACK:
                raise _too_fast(f"the path from {before:g} to {after:g} s", metres, after - before)
        return
    if length is not None and total > MAX_SPEED * length + SLACK:
        raise _too_fast("the path, within the length of the motion,", total, length)
    given = np.flatnonzero(writer.known["root"])
    if len(given):
        off = distances(line, writer.values["root"][given])
        if off.max() > OFF_PATH:
            name = writer.names[writer.owners["root"][given[off.argmax()]]]
            raise InputError(f"{name} and the path are {off.max():.2f} m apart; move one of them, or leave one out")
    if (distance := math.dist(start[:2], line[0])) > OFF_PATH:
        raise InputError(f"{START} and that of the path are {distance:.2f} m apart; move one of them")


def _too_fast(name: str, metres: float, seconds: float) -> InputError:
    return InputError(
        f"{name} covers {metres:.1f} m in {seconds:.2f} s, faster than a sprint ({MAX_SPEED:g} m/s); give more time or "
        "a shorter way"
    )


def _check_speed(constraints: Constraints, writer: TrackWriter) -> None:
    """Check the speed from each given place to the next: first of the root, then with the places of pinned joints.

    A joint is a place of the root within the length of the limbs between them.
    """
    start = constraints.placement
    places = [] if writer.known["root"][0] else [(0, start.x, start.z, 0.0, START)]
    for frame in np.flatnonzero(writer.known["root"]):
        x, z = writer.values["root"][frame]
        places.append((int(frame), x, z, 0.0, writer.names[writer.owners["root"][frame]]))
    pinned = []
    for pin in constraints.pins:
        x, _, z = pin.position
        if x is not None and z is not None:
            reach = float(LARGEST_DISTANCES[JOINT_INDEX[pin.joint], 0])
            pinned += [(writer.frame(time), x, z, reach, pin.name) for time in {pin.first, pin.last}]
    for group in (places, sorted([*places, *pinned])):
        for one, two in zip(group, group[1:], strict=False):
            metres = math.dist(one[1:3], two[1:3])
            seconds = (two[0] - one[0]) / FPS
            if one[4] != two[4] and metres - one[3] - two[3] > MAX_SPEED * seconds + SLACK:
                raise InputError(
                    f"{one[4]} and {two[4]} are {metres:.1f} m and {seconds:.2f} s apart, faster than a sprint "
                    f"({MAX_SPEED:g} m/s); give more time or a shorter way"
                )


def _check_turns(writer: TrackWriter) -> None:
    """Check the speed of turning from each given heading to the next."""
    given = np.flatnonzero(writer.known["heading"]).tolist()
    headings, owners = writer.values["heading"], writer.owners["heading"]
    for one, two in zip(given, given[1:], strict=False):
        turn = abs(math.degrees(math.remainder(headings[two] - headings[one], math.tau)))
        seconds = (two - one) / FPS
        if owners[one] != owners[two] and turn > MAX_TURN * seconds + 5:
            raise InputError(
                f"{writer.names[owners[one]]} and {writer.names[owners[two]]} turn by {turn:.0f} degrees in "
                f"{seconds:.2f} s, faster than {MAX_TURN:g} degrees per second; give more time or a smaller turn"
            )


def _check_reach(pin: Pin, writer: TrackWriter) -> None:
    """Check the distance of a pin from all other joints whose places are given at its time."""
    at = writer.span(pin.first, pin.last)
    joint = JOINT_INDEX[pin.joint]
    values, known = writer.values["joints"][at].copy(), writer.known["joints"][at].copy()  # (n, 22, 3)
    owners = writer.owners["joints"][at].copy()
    root = writer.known["root"][at]
    for axis, column in ((0, 0), (2, 1)):
        values[root, 0, axis] = writer.values["root"][at][root, column]
        known[root, 0, axis], owners[root, 0, axis] = True, writer.owners["root"][at][root]
    wanted = np.array([np.nan if value is None else value for value in pin.position])
    both = known & ~np.isnan(wanted)
    apart = np.linalg.norm(np.where(both, values - wanted, 0.0), axis=-1)  # (n, 22)
    frame, other = np.unravel_index(np.argmax(apart - LARGEST_DISTANCES[joint]), apart.shape)
    if apart[frame, other] <= LARGEST_DISTANCES[joint, other] + SLACK:
        return
    name = writer.names[owners[frame, other][both[frame, other]][0]]
    raise InputError(
        f"{pin.name} and {name} put {pin.joint} {apart[frame, other]:.2f} m from {JOINT_NAMES[other]}, farther than a "
        f"body reaches ({LARGEST_DISTANCES[joint, other]:.2f} m); move one of them"
    )


def _check_height(pin: Pin) -> None:
    height = pin.position[1]
    feet = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]
    most = float(LARGEST_DISTANCES[JOINT_INDEX[pin.joint], feet].max()) + JUMP
    if height is not None and height > most:
        raise InputError(
            f"{pin.name} is {height:.2f} m above the floor, higher than a jump lifts {pin.joint} ({most:.1f} m); "
            "give a lower position"
        )
