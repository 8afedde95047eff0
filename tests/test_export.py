"""Motion files: round trips, acceptance by other programs, and refusal of unusable files."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from formats.amass import amass_arrays
from formats.bvh import read_bvh
from formats.bvh_writer import write_bvh
from formats.clip import Clip, read_clip
from formats.motion_import import retarget_clip
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, PARENTS, forward_kinematics
from motion.smplx import motion_to_smplx85, smplx85_to_motion
from tests.export_helpers import export as export_command
from utils.errors import exit_on_input_error
from visualize.body import load_body
from visualize.export import write_npz
from visualize.glb import write_glb
from visualize.skin import quaternions, skin_of
from visualize.smplx import draw_strip
from visualize.strips import GAP, TILE, telling_moments

VALIDATOR = Path(__file__).parents[1] / ".venv" / "npm" / "node_modules" / "gltf-validator"


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def motion() -> np.ndarray:
    """45 frames that walk and turn with every joint in motion."""
    generator, times = np.random.default_rng(0), np.linspace(0, 1.5, 45)[:, None]
    data = np.zeros((45, 85))
    data[:, :66] = 0.5 * np.sin(times * generator.uniform(1, 4, 66) + generator.uniform(0, 6, 66))
    data[:, 1] += 2 * times[:, 0]  # past half a turn
    data[:, 72:75] = np.concatenate((0.3 * times, 0.95 + 0.02 * np.sin(5 * times), 1.2 * times), axis=1)
    return data


@pytest.fixture
def export(capsys):
    """Run ``python -m visualize.export`` in this process and return its exit status and errors."""

    def run(*arguments: object) -> tuple[int, str]:
        try:
            with exit_on_input_error():
                export_command([str(word) for word in arguments])
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def joints_of(smplx85: np.ndarray) -> np.ndarray:
    return forward_kinematics(*smplx85_to_motion(smplx85))


# Round trips


@pytest.mark.parametrize("suffix", [".npz", ".bvh"])
def test_written_motion_reads_back_in_place(suffix, motion, export, tmp_path):
    write_npz(tmp_path / "clip.npz", Clip(motion, "a title"))
    assert export(tmp_path / "clip.npz", tmp_path / f"out{suffix}") == (0, "")
    back = read_clip(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(joints_of(back.smplx85), joints_of(motion), atol=1e-5)
    assert back.title == ("a title" if suffix == ".npz" else "out")


def test_features_read_back_grounded_and_facing_forward(motion, export, tmp_path):
    write_npz(tmp_path / "clip.npz", Clip(motion, ""))
    assert export(tmp_path / "clip.npz", tmp_path / "features.npy") == (0, "")
    assert np.load(tmp_path / "features.npy").shape == (45, 272)
    back = read_clip(tmp_path / "features.npy")
    assert joints_of(back.smplx85)[..., 1].min() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(back.smplx85[:, 3:66], motion[:, 3:66], atol=1e-5)  # rotated and translated as a whole


@pytest.mark.parametrize("betas", [0.0, 1.0])
def test_amass_keys_describe_the_same_body(motion, betas, body, tmp_path):
    """Pose the body model as AMASS readers do: z up, joints of the model plus translation."""
    motion = motion.copy()
    motion[:, 75:] = betas * np.random.default_rng(1).normal(0, 1, 10)
    arrays = amass_arrays(motion)
    assert arrays["poses"].shape == (45, 165) and arrays["mocap_framerate"] == 30 and str(arrays["gender"]) == "neutral"
    from mannequin import Mannequin

    model = Mannequin("wooden", shape=arrays["betas"][:10])
    pose = model.rest_pose(batch_dims=(45,), dtype=np.float64)
    pose["pelvis_rotation"], pose["body_pose"] = arrays["poses"][:, :3], arrays["poses"][:, 3:66].reshape(45, 21, 3)
    z_up = model.joint_transforms(pose)[:, :22, :3, 3] + arrays["trans"][:, None]
    np.testing.assert_allclose(z_up[..., [0, 2, 1]] * (1, 1, -1), body.joints(motion), atol=1e-4)
    np.savez(tmp_path / "amass.npz", **arrays)
    np.testing.assert_allclose(body.joints(read_clip(tmp_path / "amass.npz").smplx85), body.joints(motion), atol=1e-4)


def test_amass_of_another_frame_rate_is_resampled(motion, tmp_path):
    arrays = amass_arrays(motion)
    still = {name: np.repeat(arrays[name][:1], 240, axis=0) for name in ("poses", "trans")}
    np.savez(tmp_path / "fast.npz", **arrays | still | {"mocap_framerate": np.array(120.0)})
    assert len(read_clip(tmp_path / "fast.npz").smplx85) == 60
    smplh = {
        "poses": np.zeros((30, 156)),
        "trans": np.ones((30, 3)),
        "mocap_framerate": np.array(30),
        "betas": np.ones(16),
    }
    np.savez(tmp_path / "smplh.npz", **smplh)
    assert not read_clip(tmp_path / "smplh.npz").smplx85[:, 75:].any()  # betas of SMPL+H do not apply to SMPL-X


def test_pybvh_reads_our_bvh_files(motion, tmp_path):
    import pybvh

    write_bvh(tmp_path / "clip.bvh", motion)
    clip = pybvh.read_bvh_file(tmp_path / "clip.bvh")
    names = [node.name for node in clip.nodes if not node.is_end_site()]
    places = np.asarray(clip.joint_positions())  # (T, 22, 3)
    order = [names.index(name) for name in JOINT_NAMES]
    np.testing.assert_allclose(places[:, order], joints_of(motion) * 100, atol=1e-3)  # centimetres


# Other people's BVH files

CONVENTIONS = {  # names of pelvis, spine, neck, head; then the arm and the leg of a side, from the body outward
    "mixamo": (
        "mixamorig:Hips mixamorig:Spine mixamorig:Spine1 mixamorig:Spine2 mixamorig:Neck mixamorig:Head",
        "mixamorig:{Side}Shoulder mixamorig:{Side}Arm mixamorig:{Side}ForeArm mixamorig:{Side}Hand",
        "mixamorig:{Side}UpLeg mixamorig:{Side}Leg mixamorig:{Side}Foot mixamorig:{Side}ToeBase",
    ),
    "unreal": (
        "pelvis spine_01 spine_02 spine_03 neck_01 head",
        "clavicle_{s} upperarm_{s} lowerarm_{s} hand_{s}",
        "thigh_{s} calf_{s} foot_{s} ball_{s}",
    ),
    "daz": (
        "hip abdomen chest neck head",
        "{s}Collar {s}Shldr {s}ForeArm {s}Hand",
        "{s}Thigh {s}Shin {s}Foot {s}Toe",
    ),
    "smpl": (
        "Pelvis Spine1 Spine2 Spine3 Neck Head",
        "{S}_Collar {S}_Shoulder {S}_Elbow {S}_Wrist",
        "{S}_Hip {S}_Knee {S}_Ankle {S}_Foot",
    ),
}


@pytest.mark.parametrize("turn", [np.eye(3), np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])], ids=["y up", "z up"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_common_skeletons_need_no_map(convention, turn, motion, tmp_path):
    """Our motion under other joint names, with other axes and in inches, is recovered."""
    write_bvh(tmp_path / "ours.bvh", motion)
    ours = read_bvh(tmp_path / "ours.bvh")
    spine, arm, leg = (part.split() for part in CONVENTIONS[convention])
    renamed = dict(zip(["pelvis", "spine1", "spine2", "spine3", "neck", "head"][: len(spine)], spine, strict=False))
    if len(spine) == 5:
        renamed = dict(zip(["pelvis", "spine1", "spine3", "neck", "head"], spine, strict=True))
    for side in ("left", "right"):
        for part, joints in ((arm, ("collar", "shoulder", "elbow", "wrist")), (leg, ("hip", "knee", "ankle", "foot"))):
            names = [name.format(Side=side.title(), s=side[0], S=side[0].upper()) for name in part]
            renamed |= dict(zip((f"{side}_{joint}" for joint in joints), names, strict=True))
    ours.names = [renamed.get(name, "between") for name in ours.names]
    ours.offsets, ours.positions = (part @ turn.T / 2.54 for part in (ours.offsets, ours.positions))
    ours.rotations = turn @ ours.rotations @ turn.T
    back = motion_to_smplx85(*retarget_clip(ours, 30)[:2])
    expected = joints_of(motion)
    error = np.linalg.norm(joints_of(back) - expected, axis=-1)
    limbs = [JOINT_INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("hip", "knee", "ankle", "foot")]
    assert error[:, limbs].max() < 1e-3
    assert error.max() < (0.08 if "between" in ours.names else 1e-3)  # one joint fewer in the spine


def test_bvh_file_with_unknown_joint_names_needs_a_map(motion, export, tmp_path):
    write_bvh(tmp_path / "clip.bvh", motion)
    text = (tmp_path / "clip.bvh").read_text()
    for number, name in enumerate(JOINT_NAMES):
        text = text.replace(f" {name}\n", f" bone{number}\n")
    (tmp_path / "bones.bvh").write_text(text)
    status, error = export(tmp_path / "bones.bvh", tmp_path / "out.npz")
    assert status == 2 and "--skeleton" in error and "nearest: bone" in error
    joints = "\n".join(f"  {name}: bone{number}" for number, name in enumerate(JOINT_NAMES))
    (tmp_path / "map.yaml").write_text(f"joints:\n{joints}\n")
    assert export(tmp_path / "bones.bvh", tmp_path / "out.npz", "--skeleton", tmp_path / "map.yaml") == (0, "")
    np.testing.assert_allclose(joints_of(read_clip(tmp_path / "out.npz").smplx85), joints_of(motion), atol=1e-5)


# glTF


def read_glb(path: Path) -> tuple[dict, list[np.ndarray]]:
    """Return the JSON of a .glb file, and its accessors as arrays."""
    data = path.read_bytes()
    magic, version, size, length = struct.unpack("<4sIII", data[:16])
    assert (magic, version, size) == (b"glTF", 2, len(data))
    document, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    kinds = {5126: "<f4", 5125: "<u4", 5121: "u1"}
    arrays = []
    for accessor in document["accessors"]:
        start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        kind = np.dtype(kinds[accessor["componentType"]])
        arrays.append(np.frombuffer(binary, kind, accessor["count"] * width, start).reshape(-1, width))
    return document, arrays


def test_glb_animation_equals_the_rendered_body(motion, body, tmp_path):
    """The mesh of the file, skinned by the rules of glTF, has the vertices of the renderer."""
    write_glb(tmp_path / "clip.glb", motion, "title", body)
    document, arrays = read_glb(tmp_path / "clip.glb")
    animation, frame = document["animations"][0], 30
    values = {
        (channel["target"]["node"], channel["target"]["path"]): arrays[
            animation["samplers"][channel["sampler"]]["output"]
        ]
        for channel in animation["channels"]
    }
    from scipy.spatial.transform import Rotation

    world = np.tile(np.eye(4), (22, 1, 1))
    for joint, node in enumerate(document["nodes"][:22]):
        world[joint, :3, :3] = Rotation.from_quat(values[joint, "rotation"][frame]).as_matrix()
        world[joint, :3, 3] = values[0, "translation"][frame] if joint == 0 else node["translation"]
        world[joint] = (world[PARENTS[joint]] if joint else np.eye(4)) @ world[joint]
    bind = arrays[document["skins"][0]["inverseBindMatrices"]].reshape(22, 4, 4).swapaxes(1, 2)
    attributes = {name: arrays[index] for name, index in document["meshes"][0]["primitives"][0]["attributes"].items()}
    moves = (world @ bind)[attributes["JOINTS_0"]]  # (V, 4, 4, 4)
    points = np.pad(attributes["POSITION"], ((0, 0), (0, 1)), constant_values=1)
    skinned = np.einsum("vk,vkij,vj->vi", attributes["WEIGHTS_0"] / 255, moves, points)[:, :3]
    np.testing.assert_allclose(skinned, body.vertices(motion[[frame]])[0], atol=2e-3)  # weights are in 255ths
    faces = np.concatenate([arrays[part["indices"]] for part in document["meshes"][0]["primitives"]])
    assert len(faces) == 3 * len(body.faces)


def test_gltf_validator_reports_no_issues(motion, body, tmp_path):
    if not shutil.which("node") or not VALIDATOR.is_dir():
        pytest.skip("glTF validator not installed; `make browser` installs it")
    write_glb(tmp_path / "clip.glb", motion, "\ud800 <script> 😀", body)
    write_glb(tmp_path / "one.glb", motion[:1], "", body)
    check = (
        "const v = require(process.argv[1]), fs = require('fs');"
        "Promise.all(process.argv.slice(2).map((f) => v.validateBytes(new Uint8Array(fs.readFileSync(f)))))"
        ".then((all) => console.log(JSON.stringify(all.map((r) => r.issues.messages))))"
    )
    files = [tmp_path / "clip.glb", tmp_path / "one.glb"]
    printed = subprocess.run(
        ["node", "-e", check, VALIDATOR, *files], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == [[], []]


def test_skin_weights_and_quaternions(motion, body):
    skin = skin_of(body)
    assert (skin.weights.sum(axis=1, dtype=int) == 255).all() and not skin.indices[skin.weights == 0].any()
    values = quaternions(motion)
    assert ((values[1:] * values[:-1]).sum(axis=-1) > 0.9).all()
    np.testing.assert_allclose(np.linalg.norm(values, axis=-1), 1)


# Pictures


def drawn_columns(picture: np.ndarray) -> np.ndarray:
    """Whether each column of a picture (H, W, 3) shows wood; the floor is grey."""
    return (picture[..., 0] - picture[..., 2] > 30).any(axis=0)


def test_pictures_of_several_people(motion, export, tmp_path):
    for name in "ab":
        write_npz(tmp_path / f"{name}.npz", Clip(motion[: 30 if name == "b" else 45], name))
    pair = tmp_path / "a.npz", tmp_path / "b.npz"
    assert export(*pair, tmp_path / "both.mp4", "--size", 128, "--camera", "fixed") == (0, "")
    assert export(*pair, tmp_path / "both.gif", "--size", 128, "--view", "skeleton", "--foot-lock") == (0, "")
    for file in ("both.mp4", "both.gif"):
        assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / file))[0] == 45
        assert next(imageio_ffmpeg.read_frames(str(tmp_path / file)))["size"] == (192, 128)


def test_strip_shows_the_requested_number_of_poses(export, tmp_path):
    standing = np.zeros((20, 85))
    standing[:, 3 * JOINT_INDEX["left_shoulder"] + 2], standing[:, 3 * JOINT_INDEX["right_shoulder"] + 2] = -1.2, 1.2
    write_npz(tmp_path / "a.npz", Clip(standing, "stands"))
    assert export(tmp_path / "a.npz", tmp_path / "strip.png", "--poses", 5, "--size", 256) == (0, "")
    strip = np.asarray(Image.open(tmp_path / "strip.png")).astype(int)
    assert strip.shape[0] == 256 and np.diff(drawn_columns(strip).astype(int)).clip(0).sum() == 5


def test_poses_that_lie_do_not_overlap(body, tmp_path):
    lying = np.zeros((20, 85))
    lying[:, 2], lying[:, 73] = np.pi / 2, 0.2  # across the picture
    draw_strip(lying, None, tmp_path / "strip.png", poses=3, height=128, body=body)
    strip = np.asarray(Image.open(tmp_path / "strip.png")).astype(int)
    assert np.diff(drawn_columns(strip).astype(int)).clip(0).sum() == 3 and strip.shape[1] > 2 * 128


def test_contact_sheet_shows_a_strip_per_motion(motion, export, tmp_path):
    for name in "abcde":
        write_npz(tmp_path / f"{name}.npz", Clip(motion, name))
    files = [tmp_path / f"{name}.npz" for name in "abcde"]
    assert export(*files, tmp_path / "sheet.png") == (0, "")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    (width, height), columns = TILE, 4
    assert sheet.shape == (2 * height + GAP, columns * width + (columns - 1) * GAP, 3)
    tiles = [sheet[y : y + height, x : x + width] for y in (0, height + GAP) for x in (0, width + GAP)]
    assert [drawn_columns(tile).sum() > 50 for tile in tiles] == [True, True, True, False]
    assert (tiles[3] == 255).all() and (tiles[0] != tiles[1]).any(), "an empty place; another title"
    status, error = export(*[files[0]] * 61, tmp_path / "many.png")
    assert status == 2 and "61 motions" in error and not (tmp_path / "many.png").exists()


def test_telling_poses_contain_the_one_that_stands_out():
    joints = np.tile(np.random.default_rng(0).normal(size=(22, 3)), (90, 1, 1))
    joints[..., 0] += np.linspace(0, 5, 90)[:, None]  # the place on the floor does not count
    joints[40:43, 15, 1] += 1
    joints[70:, 20, 2] += 0.5
    moments = telling_moments(joints, 3)
    assert moments == sorted(moments) and len(moments) == 3
    assert any(40 <= moment < 43 for moment in moments) and any(moment >= 70 for moment in moments)
    assert len(telling_moments(joints[:2], 4)) == 2


# Bad input


def bad_files(folder: Path, motion: np.ndarray) -> list[tuple[Path, str]]:
    """Unusable files, each with a word that the error must contain."""
    arrays = amass_arrays(motion)
    holed = motion.copy()
    holed[3, 5] = np.nan
    npz = {
        "other": ({"values": np.zeros(3)}, "neither"),
        "holes": ({"smplx_85": holed}, "NaN"),
        "units": ({"smplx_85": motion * 1e6}, "metres"),
        "empty": ({"smplx_85": motion[:0]}, "no frames"),
        "narrow": ({"smplx_85": motion[:, :84]}, "shape"),
        "pickled": ({"smplx_85": np.array([{}], dtype=object)}, "Python objects"),
        "no_rate": ({"poses": arrays["poses"], "trans": arrays["trans"]}, "mocap_framerate"),
        "zero_rate": (arrays | {"mocap_framerate": np.array(0.0)}, "fps"),
        "nan_rate": (arrays | {"mocap_framerate": np.array(np.nan)}, "fps"),
        "text_rate": (arrays | {"mocap_framerate": np.array("fast")}, "frame rate"),
        "tiny_rate": (arrays | {"mocap_framerate": np.array(1e-6)}, "too long"),
        "joints": (arrays | {"poses": arrays["poses"][:, :60]}, "165"),
        "nan_poses": (arrays | {"trans": np.full((45, 3), np.inf)}, "NaN"),
        "nan_betas": (arrays | {"betas": np.full(16, np.nan)}, "betas"),
    }
    files = []
    for name, (content, word) in npz.items():
        np.savez(folder / f"{name}.npz", **content)
        files.append((folder / f"{name}.npz", word))
    for name, array, word in (
        ("joints", np.zeros((9, 22, 3)), "legs"),
        ("width", np.zeros((9, 264)), "264"),
        ("none", np.zeros((0, 272)), "no frames"),
        ("texts", np.full((4, 272), "a"), "numbers"),
    ):
        np.save(folder / f"{name}.npy", array)
        files.append((folder / f"{name}.npy", word))
    write_bvh(folder / "whole.bvh", motion)
    text = (folder / "whole.bvh").read_text()
    for name, content, word in (
        ("half.bvh", text[: len(text) // 2], "promises"),
        ("time.bvh", text.replace("Frame Time: 0.0333", "Frame Time: -0.0333"), "frame time"),
        ("slow.bvh", text.replace("Frame Time: 0.0333", "Frame Time: 9999.0333"), "too long"),
        ("nothing.bvh", "", "BVH"),
        ("garbage.npz", "\0\1\2 no archive", "NumPy"),
        ("garbage.npy", "no array", "NumPy"),
        ("clip.txt", "walk", "not a motion file"),
    ):
        (folder / name).write_text(content)
        files.append((folder / name, word))
    broken = (folder / "holes.npz").read_bytes()
    (folder / "cut.npz").write_bytes(broken[: len(broken) // 2])
    return [
        *files,
        (folder / "cut.npz", "NumPy"),
        (folder / "missing.npz", "is missing"),
        (folder, "not a motion file"),
    ]


def test_unusable_motion_files_are_refused(motion, export, tmp_path):
    (tmp_path / "in").mkdir()
    for path, word in bad_files(tmp_path / "in", motion):
        status, error = export(path, tmp_path / "out.glb")
        assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, (path, error)
        assert word in error and str(path) in error, (path, error)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_one_unusable_file_of_several_is_left_out(motion, export, tmp_path):
    write_npz(tmp_path / "good.npz", Clip(motion, "good"))
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    status, error = export(*[tmp_path / f"{name}.npz" for name in ("good", "bad", "good")], tmp_path / "all.html")
    assert status == 2 and "all.html lacks 1 of 3 motions; the first reason:" in error and "bad.npz" in error
    assert (tmp_path / "all.html").exists()


def test_unusable_targets_and_options_are_refused(motion, export, tmp_path):
    clip, file = tmp_path / "clip.npz", tmp_path / "file"
    write_npz(clip, Clip(motion, ""))
    file.write_text("not a folder")
    (tmp_path / "model.npz").write_text("no SMPL-X")
    cases = [
        ((clip,), "motion files"),
        ((), "motion files"),
        ((clip, tmp_path / "out.obj"), "suffix"),
        ((clip, tmp_path / "out"), "suffix"),
        ((clip, clip, tmp_path / "out.bvh"), "holds one"),
        ((clip, tmp_path / "out.mp4", "--view", "top"), "view"),
        ((clip, tmp_path / "out.mp4", "--camera", "drone"), "camera"),
        ((clip, tmp_path / "out.mp4", "--size", 5), "size"),
        ((clip, tmp_path / "out.bvh", "--size", 5000), "size"),
        ((clip, tmp_path / "out.png", "--poses", 0), "poses"),
        ((clip, tmp_path / "out.glb", "--smplx-path", tmp_path / "model.npz"), "SMPL-X"),
        ((clip, tmp_path / "out.glb", "--body-model", "smplx"), "SMPLX_NEUTRAL"),
        ((clip, tmp_path / "out.glb", "--body-model", "ghost"), "ghost"),
        *(((clip, file / f"out{kind}"), "cannot write") for kind in (".npz", ".npy", ".bvh", ".glb", ".png", ".html")),
    ]
    for arguments, word in cases:
        status, error = export(*arguments)
        assert status == 2 and word in error and error.count("\n") == 1, (arguments, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.npz", "file", "model.npz"]


def test_motion_files_are_only_replaced_with_overwrite(motion, export, tmp_path):
    """If the target is forgotten, the last motion file becomes the target."""
    first, second, other = (tmp_path / name for name in ("a.npz", "b.npz", "other.bvh"))
    for path in (first, second):
        write_npz(path, Clip(motion, path.stem))
    assert export(first, other) == (0, "")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, word in (
        ((first, first), "is one of those"),
        ((first, first, "--overwrite"), "is one of those"),
        ((first, tmp_path / "." / "a.npz"), "is one of those"),
        ((first, second), "--overwrite"),
        ((second, other), "--overwrite"),
    ):
        status, error = export(*arguments)
        assert status == 2 and word in error and error.count("\n") == 1, (arguments, error)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert export(first, second, "--overwrite") == (0, "") and read_clip(second).title == "a"
    for _ in range(2):
        assert export(first, tmp_path / "clip.html") == (0, "")


def test_hostile_titles_make_valid_files(motion, export, tmp_path):
    titles = ["../../x", "a\nb", "x" * 10_000, "\u202eright to left", "\ud800", "<b>", ""]
    for title in titles:
        write_npz(tmp_path / "clip.npz", Clip(motion[:2], title))
        for kind in (".npz", ".glb", ".bvh"):
            assert export(tmp_path / "clip.npz", tmp_path / f"out{kind}", "--overwrite") == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.npz", "out.bvh", "out.glb", "out.npz"]
