"""Reconstruction loss of the motion tokenizer: feature error plus terms computed on the motion itself."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.vqvae_config import MotionLossConfig
from motion.features272 import ROOT, local_joints, local_joints_fk, recover_root

POINTWISE: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class MotionLoss:
    """Weighted sum of the loss terms of a batch; call it with the normalized reconstruction and target."""

    def __init__(self, config: MotionLossConfig):
        self.config = config
        self._pointwise = POINTWISE[config.kind]

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        mean: Tensor,
        std: Tensor,
        lengths: Tensor,
        frames: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch in float32.

        Args:
            prediction, target: (B, T, 272) normalized features.
            mean, std: (272) statistics of the features.
            lengths: (B,) valid frames of each row.
            frames: ``frame_counts`` to average over, by default those of this batch. With the counts of a larger batch,
                the losses of its micro-batches add up to its loss.

        Returns:
            The weighted sum, and each unweighted term by name.
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
            predicted_joints, target_joints = (
                10 * torch.cat((local_joints(features), local_joints_fk(features)), dim=-1)  # (B, T, 22, 6)
                for features in (prediction, target)
            )
            for name, order in (("joints", 0), ("velocity", 1), ("acceleration", 2)):
                if getattr(weights, name):
                    predicted, real = predicted_joints.diff(n=order, dim=1), target_joints.diff(n=order, dim=1)
                    terms[name] = self._mean(predicted, real, valid[:, order:], counts[order])
        if weights.path:
            predicted, real = (
                torch.cat([part.flatten(2) for part in recover_root(features)], dim=-1)
                for features in (prediction, target)
            )
            terms["path"] = self._mean(predicted, real, valid, counts[0])
        total = sum((getattr(weights, name) * term for name, term in terms.items()), start=target.new_zeros(()))
        return total, terms

    def _mean(self, prediction: Tensor, target: Tensor, valid: Tensor, count: Tensor) -> Tensor:
        """Average over the last axes, sum over the valid frames (B, T), and divide by ``count`` ()."""
        error = self._pointwise(prediction, target, reduction="none").flatten(2).mean(-1)
        return (error * valid).sum() / count.clamp(min=1)


def frame_counts(lengths: Tensor) -> Tensor:
    """Return the numbers of frames, of first and of second differences in rows of ``lengths`` (B,), as (3,)."""
    return torch.stack([(lengths - order).clamp(min=0).sum() for order in range(3)])
