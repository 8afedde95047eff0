"""Variations of motion: speed and curves change, poses do not; rows of tokens are varied and get a track."""

import pytest
import torch
from torch import Tensor

from control.random_tracks import Frames
from control.signal import SIGNAL_WIDTH
from control.variations import bent, played_at, turn_of, varied
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from motion.features272 import LAYOUT, features_from_motion, recover_joints, recover_joints_fk, recover_root
from motion.rotation import axis_angle_to_matrix, y_rotation
from motion.skeleton import JOINTS
from training.control import RandomControl, Rows


def arc(frames: int) -> Tensor:
    """Features (frames, 272) of a smooth walk on an arc, 1 metre per second."""
    time = torch.arange(frames).float()[:, None] / 30
    rotations = axis_angle_to_matrix(0.2 * torch.sin(time * torch.linspace(1, 3, JOINTS))[..., None].expand(-1, -1, 3))
    rotations[:, 0] = y_rotation(time[:, 0] / 2)
    pelvis = torch.cat((2 - 2 * (time / 2).cos(), 0.9 + 0 * time, 2 * (time / 2).sin()), dim=-1)
    return features_from_motion(rotations, pelvis)


def test_a_motion_played_faster_is_the_same_motion_at_other_times():
    features = arc(121)
    played, lengths = played_at(features[None], torch.tensor([121]), torch.tensor([1.25]))
    assert lengths.tolist() == [97] and played.shape == (1, 97, 272)
    time = torch.arange(0, 97, 4)  # every fifth frame of the original
    torch.testing.assert_close(
        recover_joints(played)[0, time], recover_joints(features)[time * 5 // 4], atol=0.02, rtol=0
    )
    torch.testing.assert_close(recover_joints_fk(played), recover_joints(played), atol=0.01, rtol=0)
    speeds = played[0, 1:, LAYOUT["joint_velocities"]] - recover_local(played[0]).diff(dim=0)
    assert speeds.abs().max() < 2e-3


def recover_local(features: Tensor) -> Tensor:
    return features[..., LAYOUT["joint_positions"]]


def test_a_bent_way_has_the_added_curvature_and_the_same_poses():
    features = arc(121)
    result = bent(features, torch.full((121,), -0.5))  # undoes the arc of radius 2 m
    heading, pelvis = recover_root(result)
    torch.testing.assert_close(pelvis[-1, (0, 2)], torch.tensor([0.0, 4.0]), atol=0.05, rtol=0)
    assert turn_of(result)[1:].abs().max() < 1e-3
    assert torch.equal(result[:, 8:], features[:, 8:])


def test_variations_differ_between_rows_and_repeat_with_the_generator():
    features = arc(90).expand(3, -1, -1)
    lengths = torch.tensor([90, 90, 60])
    first, second = (varied(features, lengths, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert first[0].isfinite().all() and first[1][0] != first[1][1] and first[1][2] < 80


@pytest.fixture(scope="module")
def tokenizer() -> HumanVQVAE:
    torch.manual_seed(0)
    return HumanVQVAE(VQVAEConfig(levels=[5, 5], code_dim=8, width=8, depth=1)).eval()


def rows_of(pad_id: int) -> Rows:
    """Rows of 20, 12 and 1 tokens, of which the second one has a context of 6."""
    tokens = torch.full((3, 20), pad_id)
    for row, length in enumerate((20, 12, 1)):
        tokens[row, :length] = torch.arange(length)
    return Rows(tokens, torch.tensor([True, True, True]), torch.tensor([0, 6, 0]))


def test_rows_get_new_tokens_and_signals(tokenizer):
    config = LLaMAConfig(25, 8, "", 8, 22, **SIZES["debug"], control=SIGNAL_WIDTH)
    given, seed = rows_of(config.pad_id), torch.Generator().manual_seed(0)
    rows, signals = RandomControl(1.0, tokenizer, config, vary=True)(given, seed)
    lengths = (rows.tokens != config.pad_id).sum(1)
    assert signals.shape == (3, rows.tokens.shape[1] + 1, SIGNAL_WIDTH) and rows.tokens.shape[1] <= 22
    assert signals[:2].flatten(1).any(1).all() and not signals[2].any()  # a single token gets no track
    assert torch.equal(rows.tokens[2, :1], given.tokens[2, :1]) and lengths[2] == 1
    assert abs(rows.context[1] / lengths[1] - 0.5) < 0.1 and rows.is_whole[1]
    assert not torch.equal(rows.tokens[0, :12], given.tokens[0, :12]) and given.tokens[0, 19] == 19

    same, signals = RandomControl(1.0, tokenizer, config, vary=False)(given, seed)
    assert torch.equal(same.tokens, given.tokens) and signals[:2].flatten(1).any(1).all()
    _, signals = RandomControl(0.0, tokenizer, config, vary=True)(given, seed)
    assert not signals.any()


def test_a_generator_without_control_gets_its_rows_as_they_are(tokenizer):
    config = LLaMAConfig(25, 8, "", 8, 22, **SIZES["debug"])
    given = rows_of(config.pad_id)
    assert RandomControl(1.0, tokenizer, config, vary=True)(given) == (given, None)


def test_frames_recover_the_motion_of_the_features():
    features = arc(40)
    motion = Frames.of(features[None], torch.tensor([40]))
    torch.testing.assert_close(motion.joints[0], recover_joints_fk(features))
    torch.testing.assert_close(motion.root[0], motion.joints[0, :, 0, (0, 2)])
