"""The reconstruction loss of the motion tokenizer: feature error plus terms that look at the motion itself."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from motion.features272 import ROOT, local_joints, local_joints_fk, recover_root
from utils.errors import InputError

POINTWISE = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


@dataclass
class MotionLossConfig:
    """Kind and weights of the terms; a weight of zero leaves the term out.

    Attributes:
        kind: l1, l2 or smooth_l1, for all terms.
        features: All 272 normalised features.
        root: The 8 normalised root features once more: they are few, and their errors add up over a clip.
        joints: Joint positions in the heading frame, in decimetres: those of the position block, and those of the
            rotations through forward kinematics.
        velocity: Change of these joint positions from frame to frame.
        acceleration: Change of that change.
        path: Root path integrated over the window: ground position in metres and heading as a matrix.
    """

    kind: str = "smooth_l1"
    features: float = 1.0
    root: float = 0.5
    joints: float = 1.0
    velocity: float = 1.0
    acceleration: float = 0.0
    path: float = 0.5

    def __post_init__(self):
        if self.kind not in POINTWISE:
            raise InputError(f"loss kind {self.kind} is unknown; use one of {', '.join(POINTWISE)}")


class MotionLoss:
    """Call it with normalised reconstruction and target; returns the weighted sum and each term."""

    def __init__(self, config: MotionLossConfig):
        self.config = config
        self.pointwise = POINTWISE[config.kind]

    def __call__(
        self,
        prediction: torch.Tensor,
        target: torch.Tensor,
        mean: torch.Tensor,
        std: torch.Tensor,
        lengths: torch.Tensor,
        frames: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch, in float32.

        Args:
            prediction, target: (B, T, 272) normalised features. mean, std: (272) of the features.
            lengths: (B,) valid frames of each row.
            frames: ``frame_counts`` of what the means go over, where this is a part of it: the parts' losses then add
                up to that of the whole. None means this batch alone.

        Returns:
            The weighted sum, and each term before its weight, by name.
        """
        weights = self.config
        prediction, target = prediction.float(), target.float()
        valid = torch.arange(target.shape[1], device=target.device) < lengths[:, None]  # (B, T)
        counts = frame_counts(lengths) if frames is None else frames
        terms = {"features": self._mean(prediction, target, valid, counts[0])}
        if weights.root:
            terms["root"] = self._mean(prediction[..., ROOT], target[..., ROOT], valid, counts[0])
        prediction, target = prediction * std + mean, target * std + mean
        if weights.joints or weights.velocity or weights.acceleration:
            ours = 10 * torch.cat((local_joints(prediction), local_joints_fk(prediction)), dim=-1)  # (B, T, 22, 6)
            real = 10 * torch.cat((local_joints(target), local_joints_fk(target)), dim=-1)
            for name, order in (("joints", 0), ("velocity", 1), ("acceleration", 2)):
                if getattr(weights, name):
                    changes = ours.diff(n=order, dim=1), real.diff(n=order, dim=1)
                    terms[name] = self._mean(*changes, valid[:, order:], counts[order])
        if weights.path:
            paths = ([part.flatten(2) for part in recover_root(features)] for features in (prediction, target))
            terms["path"] = self._mean(*(torch.cat(path, dim=-1) for path in paths), valid, counts[0])
        return sum(getattr(weights, name) * term for name, term in terms.items()), terms

    def _mean(
        self, prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, count: torch.Tensor
    ) -> torch.Tensor:
        """Sum over the valid frames (B, T), divided by ``count`` (), of the mean over all further axes."""
        error = self.pointwise(prediction, target, reduction="none").flatten(2).mean(-1)
        return (error * valid).sum() / count.clamp(min=1)


def frame_counts(lengths: torch.Tensor) -> torch.Tensor:
    """How many frames, changes from frame to frame, and changes of these, rows of ``lengths`` (B,) have: (3,)."""
    return torch.stack([(lengths - order).clamp(min=0).sum() for order in range(3)])
