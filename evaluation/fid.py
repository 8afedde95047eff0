"""Fréchet distance (FID) between two sets of embeddings or features.

FID (Heusel et al., 2017) is the squared distance between two Gaussians: |m1 - m2|^2 + tr(C1 + C2) - 2 tr((C1 C2)^1/2).
The last trace is the sum of the square roots of the eigenvalues of C1^1/2 C2 C1^1/2. With C = R^T R, these are the
singular values of R1 R2^T, which exist for singular covariances, too. No matrix root is taken; all is in float64.

Raw FID and FID of L2-normalized embeddings are different metrics. A report names the one that it uses.
"""

from typing import Any, NamedTuple

import numpy as np

from utils.errors import InputError


class Gaussian(NamedTuple):
    """Mean and covariance of a set of vectors."""

    mean: np.ndarray  # (D,)
    root: np.ndarray  # (min(N, D), D) upper triangular R; R^T R is the covariance

    @property
    def covariance(self) -> np.ndarray:
        """The (D, D) covariance with N - 1 in the denominator."""
        return self.root.T @ self.root


def fit_gaussian(vectors: np.ndarray) -> Gaussian:
    """Return mean and covariance of (N, D) vectors.

    Raises:
        InputError: There are fewer than two vectors, or a value is not finite.
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise InputError(f"FID of embeddings of shape {vectors.shape} is not defined; give at least two vectors")
    values = vectors.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("the embeddings hold NaN or infinite values; check the motions that they are made of")
    mean = values.mean(axis=0)
    root: Any = np.linalg.qr((values - mean) / np.sqrt(len(values) - 1), mode="r")
    return Gaussian(mean, root)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return the Fréchet distance of two Gaussians.

    Raises:
        InputError: Their widths differ.
    """
    if len(first.mean) != len(second.mean):
        raise InputError(
            f"embeddings of width {len(first.mean)} and {len(second.mean)} have no FID; embed both sets with the same "
            "evaluator"
        )
    traces = (first.root**2).sum() + (second.root**2).sum()
    cross = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    return float(((first.mean - second.mean) ** 2).sum() + traces - 2 * cross)


def fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the raw FID of (N, D) and (M, D) embeddings, as T2M, T2M-GPT, MoMask, MotionStreamer and MotionMillion."""
    return frechet_distance(fit_gaussian(real), fit_gaussian(generated))


def unit_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the FID of embeddings (N, D) and (M, D) divided by their L2 norms, as Motius."""
    return fid(unit(real), unit(generated))


def feature_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the FID of feature vectors (N, D) and (M, D), standardized by mean and deviation of the real ones."""
    mean, deviation = real.mean(axis=0, dtype=np.float64), real.std(axis=0, dtype=np.float64) + 1e-10
    return fid((real - mean) / deviation, (generated - mean) / deviation)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., D) divided by their L2 norm, in float64; zero vectors stay zero."""
    values = vectors.astype(np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
