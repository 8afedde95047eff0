"""Control signals: their frame of reference, targets, paths; random tracks of training; training with control."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from control import random_tracks as kinds
from control.random_tracks import Frames, random_tracks, resampled_paths, smoothed
from control.signal import (
    HORIZONS,
    PATH_AHEAD,
    SIGNAL_WIDTH,
    ControlSignal,
    body_pose,
    follow_path,
    path_length,
    path_progress,
    signal,
)
from control.track import PATH_STEP, Track
from models.llama import LLaMAHF
from motion.features272 import features_from_motion
from motion.rotation import axis_angle_to_matrix, y_rotation
from motion.skeleton import JOINTS
from training.control import token_signals

TURN, SHIFT = 2.0, torch.tensor([3.0, 0.0, -1.0])
STRIDE = 4


@pytest.fixture(scope="module")
def motion() -> Frames:
    """Three motions that sway along curves, of which the second one is shorter."""
    time = torch.arange(64.0)[None, :, None] / 30 + torch.arange(3.0)[:, None, None]  # (B, T, 1)
    angles = 0.3 * torch.sin(time * torch.linspace(1, 3, JOINTS))[..., None] * torch.tensor([1.0, 0.3, 0.2])
    rotations = axis_angle_to_matrix(angles)
    rotations[:, :, 0] = y_rotation(time[..., 0]) @ rotations[:, :, 0]
    pelvis = torch.cat((time.sin() * 2, 0.9 + 0 * time, 2 - time.cos() * 2), dim=-1)
    features = features_from_motion(rotations, pelvis)
    return Frames.of(features, torch.tensor([64, 40, 64]))


def moved(motion: Frames, track: Track) -> tuple[Frames, Track]:
    """The same in a world that is turned and shifted."""
    turn = y_rotation(torch.tensor(TURN))

    def on_floor(points: Tensor) -> Tensor:
        points = torch.stack((points[..., 0], 0 * points[..., 0], points[..., 1]), dim=-1)
        return (points @ turn.T + SHIFT)[..., (0, 2)]

    motion = motion._replace(
        root=on_floor(motion.root), heading=motion.heading + TURN, joints=motion.joints @ turn.T + SHIFT
    )
    return motion, replace(
        track,
        root=on_floor(track.root),
        heading=track.heading + TURN,
        joints=track.joints @ turn.T + SHIFT,
        path=on_floor(track.path),
    )


def row_of(track: Track, row: int) -> Track:
    return Track(**{field.name: getattr(track, field.name)[row] for field in fields(track)})


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_signals_do_not_depend_on_place_and_heading_of_the_world(motion, kind):
    track = random_tracks(motion, torch.Generator().manual_seed(0), {kind: 1.0})
    signals = token_signals(track, motion, STRIDE)
    assert signals.shape == (3, 64 // STRIDE + 1, SIGNAL_WIDTH) and (signals != 0).any()
    assert signals.isfinite().all() and signals.abs().max() < 10
    again = token_signals(*reversed(moved(motion, track)), STRIDE)
    torch.testing.assert_close(again, signals, atol=1e-3, rtol=0)


def test_particles_of_one_motion_get_the_signals_of_its_row(motion):
    track = random_tracks(motion, torch.Generator().manual_seed(1))
    frame = torch.arange(4, 64, STRIDE)
    root, heading = motion.root[:, frame - 1], motion.heading[:, frame - 1]
    progress = path_progress(track.path, root)
    expected = signal(track, frame.expand(3, -1), root, heading, progress)
    for row in range(3):
        control = ControlSignal(row_of(track, row))
        order = torch.randperm(len(frame))  # particles have no order
        particles = control(frame[order], root[row, order], heading[row, order], progress[row, order])
        torch.testing.assert_close(particles, expected[row, order])


def test_a_track_that_asks_for_nothing_gives_zeros():
    frame = torch.tensor([0, 4, 100])
    assert not signal(Track.empty(60), frame, torch.randn(3, 2), torch.randn(3)).any()
    assert not signal(Track.empty(60, (2,)), frame.expand(2, -1), torch.randn(2, 3, 2), torch.randn(2, 3)).any()


def test_a_place_ahead_is_seen_from_the_root():
    """At the origin, facing +x: a place at x = 0.4 is ahead, one at z = 0.4 to the left is at negative x."""
    ahead, left = Track.empty(20), Track.empty(20)
    for track, place in ((ahead, (0.4, 0.0)), (left, (0.0, 0.4))):
        track.root[7], track.root_known[7] = torch.tensor(place), True
    facing = torch.tensor([torch.pi / 2])
    for track, side, forward in ((ahead, 0.0, 1.0), (left, -1.0, 0.0)):
        seen = signal(track, torch.tensor([0]), torch.zeros(1, 2), facing)[0]
        horizons = seen[: 6 * len(HORIZONS)].unflatten(0, (-1, 6))
        assert horizons[:, 2].tolist() == [0, 1, 0, 0, 0]  # of the five horizons, only the second one is frame 7
        place = horizons[1, :2] / horizons[1, :2].norm()
        torch.testing.assert_close(place, torch.tensor([side, forward]), atol=1e-6, rtol=0)


def test_passed_targets_are_not_seen():
    track = Track.empty(40)
    track.joints_known[10, 20] = True
    signals = signal(track, torch.tensor([8, 10, 11, 40, 50]), torch.zeros(5, 2), torch.zeros(5))
    assert signals.any(-1).tolist() == [True, True, False, False, False]


def test_poses_are_those_of_forward_kinematics(motion):
    track = random_tracks(motion, torch.Generator().manual_seed(2), {kinds.keyframes: 1.0})
    pose, known = body_pose(track)
    floor = torch.stack((motion.root[..., 0], 0 * motion.heading, motion.root[..., 1]), dim=-1)[:, :, None]
    expected = (motion.joints - floor) @ y_rotation(-motion.heading).transpose(-1, -2)
    placed = track.joints_known.all((-1, -2))
    assert placed.any() and known[placed].all()
    torch.testing.assert_close(pose[placed], expected[placed], atol=1e-5, rtol=0)
    free = track.rotations_known.all(-1) & ~placed
    assert free.any() and pose[free][..., 1].amin(-1).abs().max() < 1e-6  # the height is not given


# --- Paths


def test_progress_along_a_path_that_crosses_itself():
    angle = torch.linspace(0, 4 * torch.pi, 2000)
    circle = torch.stack((angle.sin(), 1 - angle.cos()), dim=-1)[None]  # twice around
    path = resampled_paths(circle, torch.tensor([True]))
    torch.testing.assert_close(path.diff(dim=1).norm(dim=-1)[:, :-1], torch.full((1, path.shape[1] - 2), PATH_STEP),
                               atol=1e-3, rtol=0)  # fmt: skip
    walk = circle[:, ::50] + 0.05 * torch.randn(1, 40, 2, generator=torch.Generator().manual_seed(0))
    progress = path_progress(path, walk)
    assert (progress.diff(dim=1) >= 0).all()
    torch.testing.assert_close(progress, angle[None, ::50], atol=0.2, rtol=0)
    end = follow_path(path, circle[:, -1:], torch.full((1, 1), 12.0))
    torch.testing.assert_close(end, path_length(path)[:, None], atol=1e-3, rtol=0)


def test_points_ahead_on_a_straight_path():
    path = torch.stack((torch.zeros(61), torch.arange(61) * PATH_STEP), dim=-1)  # 3 m forward
    track = replace(Track.empty(90), path=path)
    root, heading = torch.tensor([[0.0, 0.0], [0.0, 2.9]]), torch.zeros(2)
    signals = signal(track, torch.tensor([0, 60]), root, heading, torch.tensor([0.0, 2.9]))
    points = signals[:, 6 * len(HORIZONS) :][:, : 2 * len(PATH_AHEAD)].unflatten(1, (-1, 2))
    assert not points[..., 0].any()
    torch.testing.assert_close(points[0, :, 1], torch.full((5,), 0.8))  # as far as asked, on the compressed scale
    assert (points[1, :, 1].diff() < 0).all()  # the end, seen on longer and longer scales


def test_smoothed_ways_keep_their_ends(motion):
    smooth = smoothed(motion.root, motion.lengths, sigma=6.0)
    for row, length in enumerate(motion.lengths):
        torch.testing.assert_close(smooth[row, 0], motion.root[row, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(smooth[row, length - 1], motion.root[row, length - 1], atol=1e-5, rtol=0)
        assert (smooth[row, length:] == smooth[row, length - 1]).all()
    sway = 0.05 * torch.sin(torch.arange(64.0) * 2)[None, :, None]
    assert (smoothed(motion.root + sway, motion.lengths, 6.0) - smooth)[0, 20:40].abs().max() < 0.005


# --- Random tracks


def test_random_tracks_give_values_of_the_motion_inside_its_length(motion):
    generator = torch.Generator().manual_seed(0)
    beyond = torch.arange(64) >= motion.lengths[:, None]  # (B, T)
    seen = dict.fromkeys(("root_known", "heading_known", "joints_known", "rotations_known"), 0)
    for _ in range(20):
        track = random_tracks(motion, generator)
        for name in seen:
            known = getattr(track, name)
            assert not known[beyond].any()
            seen[name] += int(known.any())
        assert torch.equal(track.joints[track.joints_known], motion.joints[track.joints_known])
        assert torch.equal(track.rotations[track.rotations_known], motion.rotations[track.rotations_known])
        away = (track.root - motion.root)[track.root_known].norm(dim=-1)
        assert not len(away) or away.max() < 0.5  # smoothed paths
    assert min(seen.values()) > 5


def test_equal_generators_draw_equal_tracks(motion):
    first, second = (random_tracks(motion, torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(getattr(first, field.name), getattr(second, field.name)) for field in fields(Track))


# --- Training


def test_training_with_control(data_folder, tokenizer_run, t2m_run, run_here, tmp_path):
    """From scratch, and of control alone."""
    options = ("--config", "configs/t2m/debug.yaml", "--precision", "float32", "--draw", 0, "--steps", 2,
               "--validate-every", 2, "--control", 0.9, "--accumulate", 2, "--data", data_folder)  # fmt: skip
    printed = run_here("train_t2m.py", *options, "--tokenizer", tokenizer_run, "--out", tmp_path / "scratch")
    assert "loss_with_control" in printed
    model = LLaMAHF.from_pretrained(tmp_path / "scratch")
    assert model.config.control == SIGNAL_WIDTH and model.control_proj.c_proj.weight.any()

    run_here("train_t2m.py", *options, "--init", t2m_run, "--only-control", "--out", tmp_path / "tuned")
    model, initial = LLaMAHF.from_pretrained(tmp_path / "tuned"), LLaMAHF.from_pretrained(t2m_run)
    assert model.control_proj.c_proj.weight.any()
    for name, value in initial.named_parameters():
        assert torch.equal(model.get_parameter(name), value), name
