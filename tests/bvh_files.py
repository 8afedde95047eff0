"""BVH files for tests: one written by hand, and a writer of any channel order."""

import numpy as np
from scipy.spatial.transform import Rotation

from formats.bvh import BvhClip
from motion.resample import FPS
from motion.skeleton import JOINT_NAMES, PARENTS, REST_OFFSETS

OWN_MAP = {"joints": {name: name for name in JOINT_NAMES}}  # files with our names

HAND_WRITTEN = """HIERARCHY
ROOT Hips
{
  OFFSET 0 90 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 10 0
    CHANNELS 3 Yrotation Xrotation Zrotation
    JOINT Head
    {
      OFFSET 0 50 0
      CHANNELS 4 Zposition Yposition Xposition Xrotation
      End Site
      {
        OFFSET 0 20 0
      }
    }
  }
  JOINT Leg
  {
    OFFSET 10 -5 0
    CHANNELS 0
    End Site
    {
      OFFSET 0 -40 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
1 2 3  0 0 0   0 0 0   7 60 0 0
0 0 0  90 0 0  90 90 0  0 60 0 0
"""


def write_bvh(path, clip, order="ZXY", moving=(0,)):
    """Write a clip with rotation channels in ``order``, and position channels on the joints ``moving``."""
    lines, columns = ["HIERARCHY"], []

    def visit(joint):
        lines.extend([f"{'JOINT' if columns else 'ROOT'} {clip.names[joint]}", "{"])
        lines.append("OFFSET " + " ".join(f"{value:.8f}" for value in clip.offsets[joint]))
        channels = [f"{axis}position" for axis in "XYZ" if joint in moving] + [f"{axis}rotation" for axis in order]
        lines.append(f"CHANNELS {len(channels)} {' '.join(channels)}")
        columns.extend([clip.positions[:, joint]] if joint in moving else [])
        columns.append(Rotation.from_matrix(clip.rotations[:, joint]).as_euler(order, degrees=True))
        children = [child for child, parent in enumerate(clip.parents) if parent == joint]
        for child in children:
            visit(child)
        lines.extend(["}"] if children else ["End Site", "{", "OFFSET 0 0 1", "}", "}"])

    visit(0)
    rows = np.concatenate(columns, axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / clip.fps:.9f}"]
    lines += [" ".join(f"{value:.7f}" for value in row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def own_clip(rotations, pelvis, offsets=REST_OFFSETS, fps=FPS):
    """A motion as a BVH clip on our skeleton, in metres, all axes as ours."""
    positions = np.broadcast_to(offsets, (len(pelvis), *offsets.shape)).copy()
    positions[:, 0] = pelvis
    return BvhClip(list(JOINT_NAMES), list(PARENTS), offsets, rotations, positions, fps)


def standing(frames):
    return np.tile(np.eye(3), (frames, 22, 1, 1)), np.tile([0.0, 1.0, 0.0], (frames, 1))
