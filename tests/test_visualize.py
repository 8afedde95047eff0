"""Bodies, camera, renderers and video files."""

import resource
from concurrent.futures import ThreadPoolExecutor

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from mannequin import Mannequin

from motion.clip import Clip, smplx85_of
from motion.skeleton import JOINT_INDEX, PARENTS, REST_OFFSETS
from motion.smplx import smplx85_to_322, smplx322_to_85
from tests.export_helpers import export
from utils.errors import InputError
from visualize.body import BALLS, face_colors, floor_height, load_body
from visualize.camera import place_camera
from visualize.export import write_npz
from visualize.mesh import Painter, render_mesh
from visualize.mesh_kernels import EMPTY, rasterise
from visualize.skeleton import plot_3d_motion, render_skeleton
from visualize.skin import simplified, skin_of
from visualize.smplx import process_smplx_data, render_body, render_mesh_video, visualize_smplx_85
from visualize.video import Title, font_for, wrap_title, write_gif, write_mp4, write_video

SIZE = (160, 128)
HOSTILE = (
    "",
    " ",
    "../../etc/passwd\x00",
    "line\nbreak\r\ttab",
    "x" * 10_000,
    "word " * 3_000,
    "😀 🏃",
    "<script>alert(1)",
    "$\\frac{1}{",
    "مرحبا بالعالم",
    "走る人",
    "\ud800 lone surrogate",
    "\u202eright to left",
    "%(title)s {0} %d",
)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def standing(body) -> np.ndarray:
    """One frame of the rest pose, with the soles of the mannequin on the floor."""
    data = np.zeros((1, 85))
    data[:, 73] = body.rest_pelvis[1] - Mannequin().vertices(Mannequin().rest_pose())[..., 1].min()
    return data


@pytest.fixture(scope="module")
def walking(standing) -> np.ndarray:
    """Eight frames of walking toward +z with swinging legs and lowered arms."""
    data = np.repeat(standing, 8, axis=0)
    phase, rotations = np.linspace(0, 2, 8), data[:, :66].reshape(8, 22, 3)
    rotations[:, JOINT_INDEX["left_hip"], 0], rotations[:, JOINT_INDEX["right_hip"], 0] = -np.sin(phase), np.sin(phase)
    rotations[:, JOINT_INDEX["left_shoulder"], 2], rotations[:, JOINT_INDEX["right_shoulder"], 2] = -1.2, 1.2
    data[:, 74] = phase
    return data


def random_motion(frames: int, betas: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(0)
    data = np.zeros((frames, 85))
    data[:, :66], data[:, 72:75] = generator.normal(0, 0.4, (frames, 66)), generator.normal(0, 1, (frames, 3))
    data[:, 75:] = betas * generator.normal(0, 1, 10)
    return data


# Bodies


@pytest.mark.parametrize("betas", [0.0, 1.0])
def test_mannequin_vertices_equal_the_library(body, betas):
    data = random_motion(3, betas)
    reference = Mannequin("wooden", shape=data[0, 75:])
    pose = reference.rest_pose(batch_dims=(3,), dtype=np.float64)
    pose["pelvis_rotation"], pose["body_pose"] = data[:, :3], data[:, 3:66].reshape(3, 21, 3)
    pelvis = reference.joint_transforms(pose)[:, 0, :3, 3]
    expected = reference.vertices(pose) + (data[:, 72:75] - pelvis)[:, None]
    vertices = body.vertices(data)
    assert vertices.dtype == np.float32 and vertices.shape == (3, reference.num_vertices, 3)
    np.testing.assert_allclose(vertices, expected, atol=2e-6)
    np.testing.assert_allclose(body.joints(data)[:, 0], data[:, 72:75], atol=1e-6)


def test_forward_kinematics_equals_the_joints_of_the_body(body):
    data = random_motion(20)
    np.testing.assert_allclose(process_smplx_data(smplx85_to_322(data)), body.joints(data), atol=1e-4)
    np.testing.assert_allclose(body.rest_pelvis, REST_OFFSETS[0], atol=1e-4)


def test_soles_stand_on_the_floor(body, standing):
    vertices = body.vertices(standing)[0]
    assert abs(vertices[:, 1].min()) < 0.015
    joints_at_zero = standing.copy()
    joints_at_zero[:, 73] -= body.joints(standing)[..., 1].min()  # grounded like our motion, by the lowest joint
    floor = floor_height(body, joints_at_zero)
    assert -0.04 < floor < 0 and abs(body.vertices(joints_at_zero)[..., 1].min() - floor) < 1e-6
    jump = np.repeat(standing, 20, axis=0)
    jump[8:14, 73] += 0.4
    jump[3, 73] -= 0.1  # a stray frame
    assert abs(floor_height(body, jump)) < 0.015


def test_shape_that_changes_over_time_is_refused(body):
    data = random_motion(2)
    data[1, 80] = 1
    with pytest.raises(InputError, match="shape"):
        body.vertices(data)


@pytest.fixture(scope="module")
def smplx_file(tmp_path_factory):
    """A random model with the structure of SMPL-X: 55 joints, of which the first 22 are those of our skeleton."""
    generator, vertices = np.random.default_rng(1), 300
    parents = np.array([*PARENTS, *range(21, 54)])
    weights = generator.random((vertices, 55)) ** 8
    regressor = generator.random((55, vertices)) ** 8
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    np.savez(
        path,
        v_template=generator.normal(0, 0.3, (vertices, 3)),
        shapedirs=generator.normal(0, 0.01, (vertices, 3, 400)),
        posedirs=generator.normal(0, 1e-4, (vertices, 3, 54 * 9)),
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        kintree_table=np.stack((np.where(parents < 0, 2**32 - 1, parents), np.arange(55))).astype(np.int64),
        weights=weights / weights.sum(1, keepdims=True),
        f=generator.integers(0, vertices, (500, 3)),
        hands_meanl=generator.normal(0, 0.1, 45),
        hands_meanr=generator.normal(0, 0.1, 45),
        part2num=np.array({"pickled": "objects are never read"}, dtype=object),
    )
    return path


def test_smplx_has_the_interface_of_the_mannequin(smplx_file):
    body, data = load_body("smplx", smplx_file), random_motion(4, betas=1.0)
    vertices, joints = body.vertices(data), body.joints(data)
    assert vertices.shape == (4, 300, 3) and joints.shape == (4, 22, 3) and vertices.dtype == joints.dtype == np.float32
    np.testing.assert_allclose(joints[:, 0], data[:, 72:75], atol=1e-5)
    bones = np.linalg.norm(joints[:, 1:] - joints[:, PARENTS[1:]], axis=-1)
    np.testing.assert_allclose(bones, np.repeat(bones[:1], 4, axis=0), atol=1e-5)  # rigid in every pose
    moved = data + 1.0 * (np.arange(85) == 72)
    np.testing.assert_allclose(body.vertices(moved) - vertices, np.broadcast_to([1.0, 0, 0], vertices.shape), atol=1e-5)
    folder = load_body("smplx", smplx_file.parent)
    np.testing.assert_array_equal(folder.vertices(data), vertices)
    assert next(render_body(data, size=SIZE, body=body)).shape == (SIZE[1], SIZE[0], 3)


def test_smplx_can_be_exported(smplx_file, tmp_path):
    """The skin holds the rest pose and weights, and the body can be written to .glb, .html and .png."""
    body, data = load_body("smplx", smplx_file), random_motion(4, betas=1.0)
    skin = skin_of(body, data[0, 75:])
    assert skin.weights.shape == (300, 4) and (skin.weights.sum(axis=1, dtype=int) == 255).all()
    np.testing.assert_allclose(body.weights.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(skin.joints[0], body.rest_pelvis, atol=1e-5)
    assert len(simplified(skin).faces) < len(skin.faces)
    arguments = [tmp_path / "clip.npz", tmp_path / "out.glb"]
    write_npz(arguments[0], Clip(data, ""))
    for arguments[1] in (tmp_path / "out.glb", tmp_path / "out.html", tmp_path / "out.png"):
        export([*map(str, arguments), "--body-model", "smplx", "--smplx-path", str(smplx_file), "--size", "64"])
        assert arguments[1].stat().st_size > 1000


def test_unusable_bodies_are_refused(tmp_path, smplx_file):
    broken, foreign = tmp_path / "broken.npz", tmp_path / "foreign.npz"
    broken.write_bytes(smplx_file.read_bytes()[:5000])
    np.savez(foreign, poses=np.zeros(3))
    pickled = tmp_path / "pickled.npz"
    arrays = dict(np.load(smplx_file, allow_pickle=True))
    np.savez(pickled, **{**arrays, "weights": np.array([{}], dtype=object)})
    for path in (None, tmp_path / "none.npz", tmp_path, broken, foreign, pickled):
        with pytest.raises(InputError, match="SMPL"):
            load_body("smplx", path)
    with pytest.raises(InputError, match="ghost"):
        load_body("ghost")


# Layouts


def test_322_layout_round_trip():
    data = random_motion(5, betas=1.0)
    full = smplx85_to_322(torch.as_tensor(data)[None])
    assert full.shape == (5, 322)
    np.testing.assert_array_equal(full[:, :66], data[:, :66])
    np.testing.assert_array_equal(full[:, 66:309], 0)
    np.testing.assert_array_equal(full[:, 309:312], data[:, 72:75])
    np.testing.assert_array_equal(full[:, 312:], data[:, 75:])
    np.testing.assert_array_equal(smplx322_to_85(full), data)


def test_root_orientation_and_height_are_kept(standing):
    turned = standing.copy()
    turned[:, 1], turned[:, 72:75] = np.pi, (1, 3, -2)
    straight, back = (process_smplx_data(smplx85_to_322(data))[0] for data in (standing, turned))
    np.testing.assert_allclose(back[0], (1, 3, -2), atol=1e-6)
    np.testing.assert_allclose((back - back[0]) * (-1, 1, -1), straight - straight[0], atol=1e-6)


# Pictures


def test_camera_keeps_a_sprint_in_the_frame(walking):
    joints = process_smplx_data(smplx85_to_322(walking))
    sprint = np.repeat(joints[:1], 90, axis=0)
    sprint[:, :, 2] += np.linspace(0, 24, 90)[:, None]
    sprint[40:, :, 0] += np.linspace(0, 10, 50)[:, None]
    pixels, depth = place_camera(sprint, 512, 384).project(sprint)
    assert (depth > 1).all() and (pixels > 0).all() and (pixels < (512, 384)).all()
    assert place_camera(sprint[:1], 512, 384).eye.shape == (1, 3)


def test_camera_faces_the_person(standing):
    for turn in (0.0, 1.0, 3.0):
        data = standing.copy()
        data[:, 1] = turn
        joints = process_smplx_data(smplx85_to_322(data))
        pixels, depth = place_camera(joints, 100, 100).project(joints)
        left, right = pixels[0, JOINT_INDEX["left_wrist"]], pixels[0, JOINT_INDEX["right_wrist"]]
        assert left[0] > right[0] + 10  # the left side is on the right of the picture


def test_rasteriser_equals_brute_force():
    generator = np.random.default_rng(2)
    points = generator.uniform(0, 24, (36, 3)).astype(np.float32) + np.float32((0, 0, 1))
    faces = np.arange(36, dtype=np.int32).reshape(12, 3)
    depth, index = np.empty((20, 24), np.float32), np.empty((20, 24), np.int32)
    rasterise(points, faces, False, EMPTY, depth, index)
    for y in range(20):
        for x in range(24):
            hits = {}
            for number, face in enumerate(faces):
                corners = np.vstack((points[face, :2].T, np.ones(3))).astype(np.float64)
                weights = np.linalg.solve(corners, (x + 0.5, y + 0.5, 1))
                if weights.min() >= 0:
                    hits[number] = weights @ points[face, 2]
            nearest = min(hits, key=hits.get, default=-1)
            assert index[y, x] == nearest
            assert depth[y, x] == pytest.approx(hits[nearest] if hits else EMPTY, rel=1e-4)


def test_mesh_is_drawn_where_the_camera_projects_it(body, standing):
    """The silhouette has the bounds of the projected vertices, and the floor beside it is in shadow."""
    vertices, joints = body.vertices(standing), body.joints(standing)
    camera = place_camera(joints, 256, 256)
    frame = next(render_mesh(vertices, body.faces, face_colors(body), camera))
    empty = next(render_mesh(vertices + (0, 100, 0), body.faces, face_colors(body), camera))
    wood = (frame[..., 0].astype(int) - frame[..., 2]) > 30  # the floor is grey
    rows, columns = np.nonzero(wood)
    pixels, _ = camera.project(vertices.astype(np.float64))
    for drawn, projected in ((rows, pixels[0, :, 1]), (columns, pixels[0, :, 0])):
        assert abs(drawn.min() - projected.min()) < 3 and abs(drawn.max() + 1 - projected.max()) < 3
    floor = ~wood
    darker = empty[..., 1].astype(int) - frame[..., 1]
    assert ((darker > 25) & floor).sum() > 300
    near_feet = np.abs(np.mgrid[:256, :256][0] - rows.max()) < 8
    assert ((darker > 25) & floor & near_feet).sum() > 20


def test_jump_is_drawn_above_the_floor(body, standing):
    jump = np.repeat(standing, 2, axis=0)
    jump[1, 73] += 0.4
    camera = place_camera(body.joints(jump), 200, 200)
    grounded, flying = render_mesh(body.vertices(jump), body.faces, face_colors(body), camera)
    lowest = [np.nonzero((frame[..., 0].astype(int) - frame[..., 2]) > 30)[0].max() for frame in (grounded, flying)]
    assert lowest[0] - lowest[1] > 15


def test_frames_follow_the_motion_and_are_reproducible(body, walking):
    first, second = (list(render_body(walking, "A walk", size=SIZE, body=body)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert all(frame.dtype == np.uint8 and frame.shape == (128, 160, 3) for frame in first)
    assert all((before != after).any(axis=-1).sum() > 200 for before, after in zip(first, first[1:], strict=False))


def test_colors_come_from_the_mesh(body, standing):
    camera = place_camera(body.joints(standing), 128, 128)
    painter = Painter(body.faces, np.tile(np.float32((0, 0.8, 0)), (len(body.faces), 3, 1)), camera, 0.0)
    green = painter.draw(body.vertices(standing)[0], camera.eye[0]).astype(int)
    assert ((green[..., 1] - green[..., 0]) > 60).sum() > 300
    assert (body.colors == np.float32(BALLS)).all(axis=1).sum() > 1000


def test_plot_3d_motion(walking, tmp_path):
    joints = process_smplx_data(smplx85_to_322(walking))
    frames = plot_3d_motion([joints, None, None])
    assert frames.shape == (8, 512, 512, 3) and frames.dtype == np.uint8
    assert ((frames[1:] != frames[:-1]).any(axis=-1).sum(axis=(1, 2)) > 500).all()
    titled = plot_3d_motion([torch.as_tensor(joints), tmp_path / "walk.mp4", "A person walks"])
    assert (titled[:, :60] != frames[:, :60]).any() and (titled[:, 200:] == frames[:, 200:]).all()
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "walk.mp4"))[0] == 8
    with ThreadPoolExecutor(3) as threads:
        for copy in threads.map(lambda _: plot_3d_motion([joints, None, None]), range(3)):
            np.testing.assert_array_equal(copy, frames)


def test_skeleton_moves_over_a_grid_fixed_in_the_world(walking):
    """The camera follows a person who glides in a constant pose, so the floor moves in the picture."""
    joints = process_smplx_data(smplx85_to_322(np.repeat(walking[:1], 30, axis=0)))
    standing = np.array(list(render_skeleton(joints, size=SIZE)))
    assert (standing == standing[0]).all()
    joints[:, :, 2] += np.linspace(0, 2, 30)[:, None]
    moving = np.array(list(render_skeleton(joints, size=SIZE)))
    assert (moving[0] != moving[-1]).any(axis=-1).sum() > 100


# Titles


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_are_drawn_as_text(title, walking):
    joints = process_smplx_data(smplx85_to_322(walking[:1]))
    plain, titled = (next(render_skeleton(joints, text, size=(256, 256))) for text in (None, title))
    changed = np.nonzero((plain != titled).any(axis=-1))[0]
    assert len(changed) > 0 if title.strip() else len(changed) == 0
    assert changed.max(initial=0) < 0.25 * 256  # three lines at most


def test_title_wraps_between_words():
    lines = wrap_title("a person walks forward and waves", lambda line: len(line) <= 12)
    assert lines == ["a person", "walks", "forward and…"]
    assert wrap_title("incomprehensibilities", lambda line: len(line) <= 8) == ["incompre", "hensibil", "ities"]
    assert wrap_title("  one\n line ", lambda line: True) == ["one line"]
    frame = np.full((64, 64, 3), 255, np.uint8)
    Title("W" * 300, 64, 64).draw(frame)
    assert (frame < 128).any()


def test_title_outside_dejavu_uses_an_installed_font(tmp_path, monkeypatch):
    """The installed font maps two Chinese characters to glyphs of DejaVu."""
    from fontTools.ttLib import TTFont

    known, chinese = font_for("AB"), tmp_path / "chinese.ttf"
    with TTFont(known) as font:
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap = table.cmap | {ord("人"): table.cmap[ord("A")], ord("走"): table.cmap[ord("B")]}
        font.save(chinese)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: list(map(str, tmp_path.iterdir())))
    frames = np.full((2, 64, 64, 3), 255, np.uint8)
    font_for.cache_clear()
    for frame, title in zip(frames, ("AB", "人走"), strict=True):
        Title(title, 64, 64).draw(frame)
    assert (frames[0] == frames[1]).all() and (frames < 128).any()
    assert font_for("\U0010fffe AB") == known, "no font has it, so the default is used"
    font_for.cache_clear()


# Files


def noise(frames: int, width: int, height: int, channels: int = 3):
    generator = np.random.default_rng(3)
    return generator.integers(0, 255, (frames, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(("write", "suffix"), [(write_mp4, ".mp4"), (write_gif, ".gif")])
@pytest.mark.parametrize("fps", [10, 30])
def test_videos_read_back(tmp_path, write, suffix, fps):
    path = tmp_path / "new folder" / f"-clip %d{suffix}"
    assert write(path, iter(noise(12, 96, 64)), fps) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 12 and seconds == pytest.approx(12 / fps, abs=0.05)
    meta = next(imageio_ffmpeg.read_frames(str(path)))
    assert meta["size"] == (96, 64)
    if suffix == ".mp4":
        assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


@pytest.mark.parametrize("name", ["12:30/a.mp4", "12:30/a.gif", "-f/a.mp4", "-f/a.gif"])
def test_videos_are_written_into_folders_of_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(name, noise(2, 64, 64), 30)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / name))[0] == 2


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_video_on_a_full_disk_is_an_error(suffix, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write"):
            write_video(tmp_path / f"a{suffix}", noise(2, 64, 64), 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_odd_sizes_and_alpha(tmp_path):
    path = write_mp4(tmp_path / "odd.mp4", noise(3, 65, 67, channels=4), 30)
    assert next(imageio_ffmpeg.read_frames(str(path)))["size"] == (66, 68)


def test_suffix_selects_the_video_format(tmp_path, walking, body):
    assert visualize_smplx_85(walking, "walk", tmp_path / "a.gif", size=SIZE) == [tmp_path / "a.gif"]
    both = visualize_smplx_85(walking[None], "walk", str(tmp_path / "b"), fps=20, size=SIZE)
    assert both == [tmp_path / "b.mp4", tmp_path / "b.gif"]
    mesh = render_mesh_video(torch.as_tensor(walking), "walk", tmp_path / "c.mp4", size=SIZE, body=body)
    for path in (*both, *mesh, tmp_path / "a.gif"):
        assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == len(walking)


def test_failed_write_leaves_no_file_and_keeps_the_old_one(tmp_path):
    def frames():
        yield from noise(2, 64, 64)
        raise RuntimeError("rendering failed")

    (tmp_path / "old.mp4").write_bytes(b"finished earlier")
    for name in ("old.mp4", "new.mp4", "new.gif"):
        with pytest.raises(RuntimeError, match="rendering failed"):
            (write_gif if name.endswith("gif") else write_mp4)(tmp_path / name, frames(), 30)
    assert [file.name for file in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"finished earlier"


@pytest.mark.parametrize(("write", "suffix"), [(write_mp4, ".mp4"), (write_gif, ".gif")])
def test_unusable_videos_are_refused(tmp_path, write, suffix):
    good, file = noise(2, 64, 64), tmp_path / "file"
    file.write_text("not a folder")
    (tmp_path / f"folder{suffix}").mkdir()
    for path in (file / f"clip{suffix}", tmp_path / f"folder{suffix}", tmp_path / ("n" * 300 + suffix)):
        with pytest.raises(InputError, match="cannot write"):
            write(path, good, 30)
    with pytest.raises(InputError, match=f"does not end in {suffix}"):
        write(tmp_path / "clip.avi", good, 30)
    for frames, fps in (
        (good[:0], 30),
        (good, 0),
        (good, -3),
        (good, float("nan")),
        (good.astype(float), 30),
        (good[..., 0], 30),
        ([good[0], good[0, :32]], 30),
    ):
        with pytest.raises(InputError):
            write(tmp_path / f"clip{suffix}", frames, fps)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", f"folder{suffix}"]


@pytest.mark.parametrize("draw", [visualize_smplx_85, render_mesh_video])
def test_unusable_motion_is_refused(tmp_path, draw, walking):
    holed, infinite = walking.copy(), walking.copy()
    holed[2, 7], infinite[3, 73] = np.nan, np.inf
    shapes = walking[:0], walking[:, :84], walking[None].repeat(2, 0), walking[0]
    for data in (*shapes, holed, infinite, np.array("text")):
        with pytest.raises(InputError, match="smplx_85"):
            draw(data, None, tmp_path / "clip.mp4")
    for options in ({"fps": 0}, {"fps": "30"}, {"size": (10, 10)}, {"size": (128, 1e9)}):
        with pytest.raises(InputError):
            draw(walking, None, tmp_path / "clip.mp4", **options)
    with pytest.raises(InputError, match="neither .mp4 nor .gif"):
        draw(walking, None, tmp_path / "clip.avi")
    with pytest.raises(InputError, match="joints"):
        plot_3d_motion([walking, None, None])
    assert not list(tmp_path.iterdir())
    assert smplx85_of(walking.astype(np.float32)).dtype == np.float64
