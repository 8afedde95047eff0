"""Motion on its source skeleton: joints, hierarchy, local rotations and positions."""

from dataclasses import dataclass, field, replace

import numpy as np

SAMPLES = 256  # frames from which constants of a clip are computed


@dataclass
class SourceMotion:
    """A clip of J joints in file order (parents first) and T frames, in the file's own length unit and axes."""

    names: list[str]
    parents: list[int]
    offsets: np.ndarray  # (J, 3)
    rotations: np.ndarray  # (T, J, 3, 3) local
    positions: np.ndarray  # (T, J, 3) local, relative to the parent
    fps: float
    tips: dict[int, np.ndarray] = field(default_factory=dict)  # joint -> (3) end site, relative to the joint

    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """Return world rotations (T, J, 3, 3) and positions (T, J, 3)."""
        rotations, positions = self.rotations.copy(), self.positions.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                rotations[:, joint] = rotations[:, parent] @ self.rotations[:, joint]
                offset = rotations[:, parent] @ self.positions[:, joint, :, None]
                positions[:, joint] = positions[:, parent] + offset[..., 0]
        return rotations, positions

    def joints(self, indices: list[int]) -> "SourceMotion":
        """Return the clip reduced to these joints, which must include the ancestors of each."""
        kept = {joint: number for number, joint in enumerate(indices)}
        return SourceMotion(
            [self.names[joint] for joint in indices],
            [kept.get(self.parents[joint], -1) for joint in indices],
            self.offsets[indices],
            self.rotations[:, indices],
            self.positions[:, indices],
            self.fps,
            {kept[joint]: tip for joint, tip in self.tips.items() if joint in kept},
        )

    def frames(self, first: int) -> "SourceMotion":
        """Return the clip from frame ``first`` on."""
        return replace(self, rotations=self.rotations[first:], positions=self.positions[first:])

    def first(self, frames: int) -> "SourceMotion":
        """Return the first frames of the clip."""
        return replace(self, rotations=self.rotations[:frames], positions=self.positions[:frames])

    def zero_pose(self) -> np.ndarray:
        """Return positions (J, 3) of the joints with identity rotations; bone lengths are means over the clip."""
        local = self.positions[sample_frames(len(self.positions))].mean(axis=0)
        places = np.zeros((len(self.names), 3))
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                places[joint] = places[parent] + local[joint]
        return places

    def children(self, joint: int) -> list[int]:
        return [child for child, parent in enumerate(self.parents) if parent == joint]

    def ancestors(self, joint: int) -> list[int]:
        """Return the joint, its parent, and so on up to the root."""
        path = []
        while joint >= 0:
            path.append(joint)
            joint = self.parents[joint]
        return path


def sample_frames(frames: int) -> np.ndarray:
    """Return up to ``SAMPLES`` evenly spaced frame numbers."""
    return np.unique(np.linspace(0, frames - 1, min(frames, SAMPLES)).round().astype(int))
