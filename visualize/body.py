"""Body models, which map ``smplx_85`` poses to joints and mesh vertices.

Two bodies share one interface: the wooden mannequin of the package ``mannequin-x`` (Apache-2.0), and SMPL-X, which
needs a licensed model file. Metres, y up. The translation of ``smplx_85`` is the position of the pelvis joint, so
bodies of every shape follow the same path, and callers never add or subtract the rest position of the pelvis.

Poses are expected to be validated (``motion.clip.smplx85_of``).
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.sparse
from einops import rearrange

from motion.skeleton import JOINTS
from motion.smplx import SMPLX85, SMPLX85_WIDTH
from utils.errors import InputError, reason_of
from visualize.camera import standing_height
from visualize.options import smplx_file

BODIES = ("mannequin", "smplx")
CHUNK = 64  # frames posed at once, which bounds the memory for long clips

WOOD, BALLS = (0.93, 0.70, 0.46), (0.60, 0.37, 0.20)  # colours of limbs and ball joints of the mannequin, RGB in 0..1
PLASTER = (0.80, 0.80, 0.83)  # colour of SMPL-X


class Body(Protocol):
    """Interface of a body model."""

    faces: np.ndarray  # (F, 3) int32, counter-clockwise seen from outside
    colors: np.ndarray  # (V, 3) float32, RGB in 0..1
    weights: np.ndarray  # (V, 22) float32 skinning weights; rows sum to 1
    rest_pelvis: np.ndarray  # (3,) metres: pelvis joint of the zero shape in the model's own frame

    def joints(self, smplx85: np.ndarray) -> np.ndarray:
        """Return the (T, 22, 3) float32 joint positions of (T, 85) poses in metres."""

    def vertices(self, smplx85: np.ndarray) -> np.ndarray:
        """Return the (T, V, 3) float32 vertices of (T, 85) poses in metres."""


def load_body(name: str = "mannequin", model_path: str | Path | None = None) -> Body:
    """Load a body model.

    Args:
        name: ``mannequin``, or ``smplx``, which needs ``model_path``.
        model_path: ``SMPLX_NEUTRAL.npz`` or its folder, from https://smpl-x.is.tue.mpg.de.

    Raises:
        InputError: the name is unknown, or the SMPL-X file or package is missing or unusable.
    """
    if name == "mannequin":
        return MannequinBody()
    if name == "smplx":
        return SMPLXBody(model_path)
    raise InputError(f"unknown body model {name!r}; choose one of {', '.join(BODIES)}")


def body_from_options(body_model: str | None, smplx_path: Path | None) -> Body:
    """Load the body of the options --body-model and --smplx-path; the path alone selects SMPL-X."""
    return load_body(body_model or ("smplx" if smplx_path else "mannequin"), smplx_path)


def face_colors(body: Body) -> np.ndarray:
    """Return the colours (F, 3, 3) of the corners of the faces of a body; a face has that of its first vertex."""
    return np.repeat(body.colors[body.faces[:, :1]], 3, axis=1)


def iterate_vertices(body: Body, smplx85: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the (V, 3) vertices of each frame, posing ``CHUNK`` frames at once."""
    for start in range(0, len(smplx85), CHUNK):
        yield from body.vertices(smplx85[start : start + CHUNK])


def floor_height(body: Body, smplx85: np.ndarray) -> float:
    """Return the height in metres at which the soles stand over the clip (``standing_height``).

    Motion is grounded by its lowest joint, but the soles are one or two centimetres below the foot joints, depending on
    the body.
    """
    return standing_height([vertices[:, 1].min() for vertices in iterate_vertices(body, smplx85)])


def _body_weights(weights: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    """Merge (V, J) skinning weights to (V, 22): fingers and face are attached rigidly to wrists and head."""
    merged = np.array(weights, dtype=np.float32)
    for joint in range(merged.shape[1] - 1, JOINTS - 1, -1):  # children come after their parents
        merged[:, parents[joint]] += merged[:, joint]
    return merged[:, :JOINTS]


def _constant_betas(smplx85: np.ndarray) -> np.ndarray:
    """Return the (10,) betas of (T, 85) poses; raise InputError if they change over time."""
    betas = smplx85[:, SMPLX85["betas"]]
    if not np.allclose(betas, betas[0], atol=1e-5):
        raise InputError("the body shape (betas) changes within the motion; give every frame the same 10 values")
    return betas[0]


class MannequinBody:
    """The wooden mannequin: 24,256 vertices, driven by SMPL-X rotations and shape.

    ``Mannequin.vertices`` gathers four transforms per vertex and frame. Here the same linear blend skinning is one
    sparse matrix product: vertex = sum_j w_j (R_j (x - b_j) + t_j), linear in the (R_j, t_j) of all joints and frames.
    It relies on private fields of mannequin-x 0.3.0.
    """

    def __init__(self):
        from mannequin import Mannequin

        self._mannequin = Mannequin("wooden")
        self.faces = self._mannequin.faces.astype(np.int32)
        self.rest_pelvis = self._mannequin.joint_transforms(self._mannequin.rest_pose())[0, :3, 3].astype(np.float32)
        self.colors = self._part_colors()
        dense = np.zeros((len(self.colors), len(self._mannequin.parents)), np.float32)
        np.add.at(
            dense, (np.arange(len(dense))[:, None], self._mannequin._skin_joint_indices), self._mannequin._skin_weights
        )
        self.weights = _body_weights(dense, self._mannequin.parents)
        self._skin = self._skinning_matrix()

    def joints(self, smplx85: np.ndarray) -> np.ndarray:
        """Return the (T, 22, 3) float32 joint positions of (T, 85) poses in metres."""
        return self._transforms(smplx85)[:, :JOINTS, :3, 3].astype(np.float32)

    def vertices(self, smplx85: np.ndarray) -> np.ndarray:
        """Return the (T, V, 3) float32 vertices of (T, 85) poses in metres."""
        transforms = self._transforms(smplx85)[..., :3, :].astype(np.float32)  # (T, J, 3, 4)
        moved = self._skin @ rearrange(transforms, "t j row column -> (j column) (t row)")  # (V, T*3)
        return np.ascontiguousarray(rearrange(moved, "v (t row) -> t v row", row=3))

    def _transforms(self, smplx85: np.ndarray) -> np.ndarray:
        """Return world transforms (T, J, 4, 4) of all joints, with the pelvis at the translation."""
        frames, rotations = len(smplx85), smplx85[:, SMPLX85["axis_angle"]].reshape(-1, JOINTS, 3)
        self._set_shape(_constant_betas(smplx85))
        pose = self._mannequin.rest_pose(batch_dims=(frames,), dtype=np.float64)
        pose["pelvis_rotation"], pose["body_pose"] = rotations[:, 0], rotations[:, 1:]
        transforms = self._mannequin.joint_transforms(pose)
        transforms[..., :3, 3] += (smplx85[:, SMPLX85["translation"]] - transforms[:, 0, :3, 3])[:, None]
        return transforms

    def _set_shape(self, betas: np.ndarray) -> None:
        if not np.allclose(betas, self._mannequin.shape):
            self._mannequin.reshape(betas)
            self._skin = self._skinning_matrix()

    def _skinning_matrix(self) -> scipy.sparse.csr_array:
        """Return the (V, J*4) matrix of w_j (x - b_j) and w_j of each vertex, for its four joints."""
        identity, weights = self._mannequin._identity, self._mannequin._skin_weights  # (V, 4)
        joints = self._mannequin._skin_joint_indices  # (V, 4)
        local = identity["skin_vertices"][:, None] - identity["skin_bind_positions"][joints]  # (V, 4, 3)
        entries = np.concatenate((local, np.ones_like(local[..., :1])), axis=-1) * weights[..., None]  # (V, 4, 4)
        columns = joints[..., None] * 4 + np.arange(4)
        rows = np.repeat(np.arange(len(local)), 16)
        shape = (len(local), len(self._mannequin.parents) * 4)
        matrix = scipy.sparse.csr_array((entries.ravel().astype(np.float32), (rows, columns.ravel())), shape=shape)
        matrix.eliminate_zeros()
        return matrix

    def _part_colors(self) -> np.ndarray:
        colors = np.tile(np.float32(WOOD), (self._mannequin.num_vertices, 1))
        parts = self._mannequin._weights
        starts, counts = parts.skin_part_vertex_starts, parts.skin_part_vertex_counts
        for name, start, count in zip(parts.skin_part_names, starts, counts, strict=True):
            if name.startswith("joint"):
                colors[start : start + count] = BALLS
        return colors


class SMPLXBody:
    """SMPL-X (Pavlakos et al., CVPR 2019), posed by the ``smplx`` package with the user's model file.

    Only plain arrays are loaded (``allow_pickle=False``), so a model file cannot run code. The hands are the relaxed
    mean hands, as on the mannequin; face and expression are neutral.
    """

    ARRAYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")

    def __init__(self, model_path: str | Path | None):
        try:
            import smplx.lbs
            import torch
        except ImportError as error:
            raise InputError("the package smplx is missing; run `pip install smplx`, or use the mannequin") from error
        self._torch, self._lbs = torch, smplx.lbs.lbs
        arrays = self._load(model_path)
        self.faces = arrays["f"].astype(np.int32)
        self.colors = np.tile(np.float32(PLASTER), (len(arrays["v_template"]), 1))
        self._parents = torch.as_tensor(arrays["kintree_table"][0].astype(np.int64))
        self._parents[0] = -1
        posedirs = arrays["posedirs"].reshape(-1, arrays["posedirs"].shape[-1]).T  # (P, V*3)
        names = ("v_template", "shapedirs", "J_regressor", "weights")
        self.weights = _body_weights(arrays["weights"], self._parents.tolist())
        self._model = {name: torch.as_tensor(arrays[name].astype(np.float32)) for name in names}
        self._model["shapedirs"] = self._model["shapedirs"][..., :10]
        self._model["posedirs"] = torch.as_tensor(np.ascontiguousarray(posedirs, dtype=np.float32))
        self._hands = np.concatenate((arrays["hands_meanl"], arrays["hands_meanr"])).reshape(-1)  # (90,)
        rest = np.zeros((1, SMPLX85_WIDTH))
        self.rest_pelvis = self._pose(rest)[1][0, 0].numpy()

    def joints(self, smplx85: np.ndarray) -> np.ndarray:
        """Return the (T, 22, 3) float32 joint positions of (T, 85) poses in metres."""
        return self._posed_at_translation(smplx85)[1]

    def vertices(self, smplx85: np.ndarray) -> np.ndarray:
        """Return the (T, V, 3) float32 vertices of (T, 85) poses in metres."""
        return self._posed_at_translation(smplx85)[0]

    def _posed_at_translation(self, smplx85: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (T, V, 3) and joints (T, 22, 3), with the pelvis at the translation."""
        vertices, joints = (part.numpy() for part in self._pose(smplx85))
        shift = (smplx85[:, SMPLX85["translation"]] - joints[:, 0]).astype(np.float32)[:, None]  # (T, 1, 3)
        return vertices + shift, joints[:, :JOINTS] + shift

    def _pose(self, smplx85: np.ndarray):
        """Return vertices (T, V, 3) and joints (T, 55, 3) in the model's own frame, as tensors."""
        frames, torch = len(smplx85), self._torch
        betas = np.tile(_constant_betas(smplx85), (frames, 1))
        face = np.zeros((frames, 9))  # jaw and two eyes
        hands = np.tile(self._hands, (frames, 1))
        pose = np.concatenate((smplx85[:, SMPLX85["axis_angle"]], face, hands), axis=1)  # (T, 55*3)
        with torch.no_grad():
            return self._lbs(
                torch.as_tensor(betas, dtype=torch.float32),
                torch.as_tensor(pose, dtype=torch.float32),
                self._model["v_template"],
                self._model["shapedirs"],
                self._model["posedirs"],
                self._model["J_regressor"],
                self._parents,
                self._model["weights"],
            )

    def _load(self, model_path: str | Path | None) -> dict[str, np.ndarray]:
        path = smplx_file(model_path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in (*self.ARRAYS, "hands_meanl", "hands_meanr")}
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} is no readable SMPL-X model ({reason_of(error)}); give SMPLX_NEUTRAL.npz of v1.1"
            ) from error
        joints = len(arrays["kintree_table"][0])
        if joints != 55 or arrays["weights"].shape != (len(arrays["v_template"]), joints):
            raise InputError(f"{path} has {joints} joints, but SMPL-X has 55; give SMPLX_NEUTRAL.npz")
        return arrays
