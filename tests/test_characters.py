"""Characters: motion of the 22 joints on skinned characters of many kinds, and bad characters."""

import json
import shutil
import struct
import subprocess
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.characters import measure
from characters.__main__ import main as print_map
from characters.character import load_character
from characters.feet import Stance
from characters.pose import pose_character
from characters.write import write_character
from dataset.synthetic import synthetic_clips
from formats.clip import read_clip
from formats.gltf import read_accessor
from formats.gltf_file import read_gltf
from formats.gltf_writer import Parts, write_glb
from formats.vrm import JOINTS as VRM_BONES
from motion.clip import Clip
from motion.directions import unit
from motion.skeleton import JOINT_INDEX, REST_OFFSETS, world_pose
from motion.smplx import motion_to_smplx85, smplx85_to_motion
from tests.exporters import PLAIN, names
from tests.rigs import BIPED, CREATOR, RIGIFY, UNITY, UNREAL, VROID, Rig, mmd, write_rig
from tests.test_export import VALIDATOR, export  # noqa: F401 (a fixture)
from utils.errors import InputError, exit_on_input_error

SHARED = Path(__file__).parents[2] / "shared" / "data" / "characters"
Z_UP = Rotation.from_euler("x", 90, degrees=True).as_matrix()
BONES = {f"{side}_{start}": f"{side}_{end}" for side in ("left", "right")
         for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))}  # fmt: skip
PARTS = names(
    "Root_M|Spine1_M|Spine2_M|Chest_M|Neck_M|Head_M",
    "Scapula_{S}|Shoulder_{S}|Elbow_{S}|Wrist_{S}",
    "Hip_{S}|Knee_{S}|Ankle_{S}|Toes_{S}",
)
RIGS = {
    "mixamo in centimetres below a node of scale 0.01": Rig(armature=0.01, axes="turned"),
    "unreal in an A-pose": Rig(UNREAL, arms=45, axes="turned", above=("root",), twists=True),
    "character creator, 100 units per metre": Rig(CREATOR, arms=30, scale=100.0, legs=1.2),
    "biped, z up": Rig(BIPED, turn=Z_UP, axes="random"),
    "rigify below a turned node": Rig(RIGIFY, node_turn=Z_UP.T, arms=40),
    "vroid, facing back, arms down": Rig(VROID, arms=75, turn=np.diag([-1.0, 1.0, -1.0])),
    "unity in another pose than the bind pose": Rig(UNITY, arms=45, posed=True, axes="turned"),
    "mmd": Rig(mmd, arms=35, hips=1.5),
    "no toes, neck, collars; one spine bone": Rig(
        PLAIN, missing=("left_foot", "right_foot", "neck", "left_collar", "right_collar", "spine1", "spine2")
    ),
    "no spine": Rig(UNREAL, missing=("spine1", "spine2", "spine3"), feet=1.3),
    "a side for the middle, a suffix": Rig(lambda name: f"hero:{PARTS(name)}_bind_JNT", arms=30, axes="random"),
    "a namespace": Rig(lambda name: f"hero:rig_{UNREAL(name)}", shins=1.2, scale=1000.0),
}


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    found = {}
    for name, rotations, pelvis, _ in islice(synthetic_clips(12, seed=1), 5):
        smplx85 = motion_to_smplx85(rotations.astype(float), pelvis.astype(float))
        found[name.rpartition("_")[0]] = Clip(smplx85[:60], name)
    return found


def directions(places: np.ndarray, number: dict[str, int]) -> np.ndarray:
    return np.stack([unit(places[:, number[end]] - places[:, number[start]]) for start, end in BONES.items()], axis=1)


def source_of(clip: Clip) -> Stance:
    rotations, pelvis = smplx85_to_motion(clip.smplx85)
    world, joints = world_pose(rotations, REST_OFFSETS.astype(float), root=pelvis)
    return Stance.of(world, joints)


def assert_follows(path: Path, clip: Clip) -> None:
    """The limbs have the directions of the motion, and the feet stand and slide like those of the source."""
    character = load_character(path)
    degrees, heights, speeds = measure(character, clip)
    assert degrees[:, 4:].max() < 0.01 and np.percentile(degrees[:, :4], 99) < 1  # arms, legs
    assert len(heights) and heights.max() < 0.01
    assert speeds[1].mean() <= 1.1 * speeds[0].mean() + 1e-3
    posed = pose_character(character, clip)
    assert min(sole.places(posed.turns, posed.places)[..., 1].min() for sole in character.soles.values()) > -0.01


@pytest.mark.parametrize("name", RIGS)
def test_characters_follow_the_motion(name, clips, tmp_path):
    path = write_rig(tmp_path / "hero.glb", RIGS[name])
    for clip in (clips["walk_turn_left"], clips["run"]):
        assert_follows(path, clip)
    written = write_character(tmp_path / "out.glb", load_character(path), [clips["run"]])
    back, ours = (source_of(clip).joints for clip in (read_clip(written), clips["run"]))
    turned = unit(directions(back, JOINT_INDEX)) - directions(ours, JOINT_INDEX)
    assert len(back) == len(ours) and np.percentile(np.linalg.norm(turned, axis=-1), 95) < np.deg2rad(1)


@pytest.mark.parametrize("name", ["human-male", "human-bunny", "rig-human"])
def test_shared_characters_follow_the_motion(name, clips):
    if not SHARED.is_dir():
        pytest.skip("the shared characters are not here")
    for clip in (clips["walk_turn_left"], clips["run"]):
        assert_follows(SHARED / f"{name}.glb", clip)


@pytest.mark.parametrize("removed", ["LeftHand", "LeftForeArm", "RightLeg"])
def test_bones_are_found_among_other_nodes(removed, clips, tmp_path):
    """A bone that is no joint of the skin, since it moves no vertex, and nodes that divide the transforms of bones."""
    path = write_rig(tmp_path / "hero.glb", Rig(axes="turned", arms=30, posed=True, fingers=False))
    file = read_gltf(without_joint(path, removed))
    nodes = file.document["nodes"]
    for number, bone in enumerate(nodes[1:-1], 1):
        turn = Rotation.random(random_state=number)
        above = {"name": f"{bone['name']}_$AssimpFbx$_PreRotation", "children": [number],
                 "translation": bone.pop("translation"), "rotation": turn.as_quat().tolist()}  # fmt: skip
        bone["rotation"] = (turn.inv() * Rotation.from_quat(bone["rotation"])).as_quat().tolist()
        parent = next(node for node in nodes if number in node.get("children", []))
        parent["children"] = [len(nodes) if child == number else child for child in parent["children"]]
        nodes.append(above)
    assert_follows(write_glb(path, file.document, file.buffers[0]), clips["run"])


@pytest.mark.parametrize(("removed", "turned"), [("Hips", "Hips"), ("RightUpLeg RightLeg", "RightLeg")])
def test_bones_of_unknown_rest_pose_are_refused(removed, turned, tmp_path):
    path = write_rig(tmp_path / "hero.glb", Rig())
    for name in removed.split():
        without_joint(path, name)
    assert load_character(path)
    file = read_gltf(path)
    nodes = file.document["nodes"]
    bone = next(node for node in nodes if node["name"].endswith(turned))
    bone["rotation"] = [0.6, 0.0, 0.0, 0.8]
    for child in bone["children"]:
        nodes[child]["rotation"] = [-0.6, 0.0, 0.0, 0.8]
    write_glb(path, file.document, file.buffers[0])
    with pytest.raises(InputError, match="is no joint of the skin.*set the skeleton to its rest pose"):
        load_character(path)


def without_joint(path: Path, name: str) -> Path:
    """Remove a bone from the joints of the skin; its vertices follow another bone."""
    file = read_gltf(path)
    skin = file.document["skins"][0]
    bone = next(number for number, node in enumerate(file.document["nodes"]) if node["name"].endswith(name))
    place = skin["joints"].index(bone)
    matrices = read_accessor(file, skin["inverseBindMatrices"]).astype("<f4")
    parts = Parts(file.document, bytearray(file.buffers[0]))
    skin["joints"].pop(place)
    skin["inverseBindMatrices"] = parts.add(np.delete(matrices, place, axis=0))
    attributes = file.document["meshes"][0]["primitives"][0]["attributes"]
    joints = read_accessor(file, attributes["JOINTS_0"])
    attributes["JOINTS_0"] = parts.add((joints - (joints >= place) * (joints > 0)).astype("u1"), 5121)
    file.document["buffers"][0]["byteLength"] = len(parts.data)
    return write_glb(path, file.document, parts.data)


def test_a_character_is_kept_and_gets_an_animation_per_motion(clips, export, tmp_path):  # noqa: F811
    hero = decorated(write_rig(tmp_path / "hero.glb", Rig(UNREAL, axes="turned")))
    before = read_gltf(hero)
    motions = [clips["walk_turn_left"], clips["run"], clips["run"]]
    for number, clip in enumerate(motions):
        np.savez(tmp_path / f"{number}.npz", smplx_85=clip.smplx85, prompt=clip.title)
    sources = [tmp_path / f"{number}.npz" for number in range(3)]
    assert export(*sources, tmp_path / "out.glb", "--character", hero) == (0, "")
    after = read_gltf(tmp_path / "out.glb")
    assert after.buffers[0].startswith(before.buffers[0])
    for key, value in before.document.items():
        if key == "buffers":
            continue
        found = after.document[key]
        assert (found[: len(value)] if isinstance(value, list) else found) == value, key
    names = [animation["name"] for animation in after.document["animations"]]
    run = motions[1].title
    assert names == ["idle", motions[0].title, run, f"{run} 2"]
    status, error = export(tmp_path / "out.glb", tmp_path / "back.npz")
    assert status == 2 and "--animation" in error and run in error
    assert export(tmp_path / "out.glb", tmp_path / "back.npz", "--animation", run) == (0, "")
    status, error = export(sources[0], hero, "--character", hero, "--overwrite")
    assert status == 2 and "is one of those" in error
    if not shutil.which("node") or not VALIDATOR.is_dir():
        pytest.skip("glTF validator not installed; `make browser` installs it")
    assert problems(tmp_path / "out.glb") == problems(hero)


def decorated(path: Path) -> Path:
    """Add what a writer may lose: an animation, unknown extensions, empty extras, weights of a node."""
    file = read_gltf(path)
    document = file.document
    document["extensionsUsed"] = ["EXT_unknown"]
    document["extensions"] = {"EXT_unknown": {"list": [], "none": None, "names": ["ä"]}}
    document["extras"] = {"empty": {}, "number": 1e-7}
    document["nodes"][-1] |= {"extras": {"keep": None}}
    document["bufferViews"][1]["name"] = "weights"
    document["animations"] = [{"name": "idle", "channels": [], "samplers": []}]
    return write_glb(path, document, file.buffers[0])


def problems(path: Path) -> list[str]:
    """Codes of the errors and warnings of the glTF validator."""
    check = (
        "const v = require(process.argv[1]), fs = require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2]))).then((r) =>"
        " console.log(JSON.stringify(r.issues.messages.filter((m) => m.severity < 2).map((m) => m.code))))"
    )
    command = ["node", "-e", check, VALIDATOR, path]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_gltf_with_files_beside_it_becomes_one_file(clips, tmp_path):
    file = read_gltf(write_rig(tmp_path / "hero.glb", Rig()))
    document = file.document
    (tmp_path / "data.bin").write_bytes(file.buffers[0])
    Image.new("RGB", (4, 4), "red").save(tmp_path / "skin tone.png")
    document["buffers"][0]["uri"] = "data.bin"
    document["images"], document["textures"] = [{"uri": "skin%20tone.png"}], [{"source": 0}]
    (tmp_path / "hero.gltf").write_text(json.dumps(document))
    out = write_character(tmp_path / "out.glb", load_character(tmp_path / "hero.gltf"), [clips["run"]])
    image = read_gltf(out).document["images"][0]
    assert "uri" not in image
    assert bytes(read_gltf(out).view(image["bufferView"])) == (tmp_path / "skin tone.png").read_bytes()
    for uri in ("../data.bin", "/etc/passwd", "https://example.org/a.bin", "file:///etc/passwd", "..%2Fdata.bin"):
        document["buffers"][0]["uri"] = uri
        (tmp_path / "hero.gltf").write_text(json.dumps(document))
        with pytest.raises(InputError, match="own folder"):
            load_character(tmp_path / "hero.gltf")


@pytest.mark.parametrize("version", [0, 1])
def test_bones_of_vrm_are_those_of_its_humanoid(version, clips, tmp_path):
    """Bones without a meaning in their names."""
    number = {name: f"bone{index}" for index, name in enumerate(JOINT_INDEX)}
    file = read_gltf(write_rig(tmp_path / "hero.glb", Rig(lambda name: number[name], fingers=False)))
    node = {item["name"]: index for index, item in enumerate(file.document["nodes"])}
    bones = {bone: node[number[joint]] for bone, joint in VRM_BONES.items()}
    listed = {bone: {"node": index} for bone, index in bones.items()}
    file.document["extensions"] = (
        {"VRMC_vrm": {"humanoid": {"humanBones": listed}}} if version else
        {"VRM": {"humanoid": {"humanBones": [{"bone": bone, "node": index} for bone, index in bones.items()]}}}
    )  # fmt: skip
    path = write_glb(tmp_path / "hero.vrm", file.document, file.buffers[0])
    assert_follows(path, clips["run"])
    out = write_character(tmp_path / "out.vrm", load_character(path), [clips["run"]])
    assert read_gltf(out).document["extensions"] == file.document["extensions"]
    assert len(read_clip(out).smplx85) == 60


def test_a_map_names_unknown_bones(clips, export, capsys, tmp_path):  # noqa: F811
    odd = {name: f"part {index}" for index, name in enumerate(JOINT_INDEX)}
    hero = write_rig(tmp_path / "hero.glb", Rig(lambda name: odd[name], fingers=False))
    np.savez(tmp_path / "a.npz", smplx_85=clips["run"].smplx85)
    words = (tmp_path / "a.npz", tmp_path / "out.glb", "--character", hero)
    status, error = export(*words)
    assert status == 2 and "the head" in error and "part 0" in error and "python -m characters" in error
    print_map([str(hero)])
    assert "left_wrist: " in capsys.readouterr().out
    lines = [f"{joint}: {name}" for joint, name in odd.items() if joint not in ("spine2", "neck", "left_foot")]
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    assert export(*words, "--character-map", tmp_path / "map.yaml") == (0, "")
    status, error = export(*words[:2], "--character-map", tmp_path / "map.yaml", "--overwrite")
    assert status == 2 and "with --character" in error
    for wrong, word in ((lines[5:], "no bone for"), ([*lines, "tail: part 1"], "tail"), ([], "table"),
                        ([*lines[:-1], "right_wrist: part 99"], "part 99")):  # fmt: skip
        (tmp_path / "map.yaml").write_text("\n".join(wrong))
        status, error = export(*words, "--character-map", tmp_path / "map.yaml", "--overwrite")
        assert status == 2 and word in error, error


def bad_characters(folder: Path) -> list[tuple[Path, str]]:
    """Unusable characters, each with a word that the error must contain."""
    good = write_rig(folder / "good.glb", Rig())
    data = good.read_bytes()

    def changed(name: str, change) -> Path:
        file = read_gltf(good)
        change(file.document)
        return write_glb(folder / f"{name}.glb", file.document, file.buffers[0])

    def mesh(document):
        return document["meshes"][0]["primitives"][0]

    def two_people(document):
        count = len(document["nodes"]) - 1
        twins = [{**node, "name": node["name"] + ".001", "children": [c + count + 1 for c in node.get("children", [])]}
                 for node in document["nodes"][:count]]  # fmt: skip
        document["nodes"] += [{k: v for k, v in twin.items() if v} for twin in twins]
        document["scenes"][0]["nodes"].append(count + 1)
        document["skins"].append({"joints": [joint + count + 1 for joint in document["skins"][0]["joints"]],
                                  "inverseBindMatrices": document["skins"][0]["inverseBindMatrices"]})  # fmt: skip

    texts = {name: folder / f"{name}.glb" for name in ("cut", "long", "text")}
    texts["cut"].write_bytes(data[: len(data) // 2])
    texts["long"].write_bytes(data[:12] + struct.pack("<I", 2**31) + data[16:])
    texts["text"].write_text("{}")
    return [
        (texts["cut"], "cut off"),
        (texts["long"], "cut off"),
        (texts["text"], "glTF 2.0"),
        (write_rig(folder / "arm.glb", Rig(missing=("left_wrist",))), "left wrist"),
        (changed("no skin", lambda d: d.pop("skins")), "no skin"),
        (changed("two", two_people), "2 skeletons"),
        (changed("cycle", lambda d: d["nodes"][3].update(children=[1, 2])), "two parents"),
        (changed("loop", lambda d: d["nodes"][0].update(children=[0])), "cycle"),
        (changed("index", lambda d: d["nodes"][1].update(children=[10**6])), "nodes"),
        (changed("huge", lambda d: d["accessors"][0].update(count=10**12)), "too many"),
        (changed("outside", lambda d: d["accessors"][0].update(count=10**5)), "fit"),
        (changed("view", lambda d: d["bufferViews"][0].update(byteLength=10**9)), "buffer view"),
        (changed("buffer", lambda d: d["buffers"][0].update(byteLength=10**9)), "bytes"),
        (changed("sparse", lambda d: d["accessors"][0].update(
            sparse={"count": 10**9, "indices": {"componentType": 5125}, "values": {}})), "sparse"),
        (changed("scale", lambda d: d["nodes"][1].update(scale=[1, 2, 1])), "unevenly"),
        (changed("mirror", lambda d: d["nodes"][0].update(scale=[-1, 1, 1])), "mirrored"),
        (changed("zero", lambda d: d["nodes"][1].update(scale=[0, 0, 0])), "size zero"),
        (changed("turn", lambda d: d["nodes"][1].update(rotation=[0, 0, 0, 0])), "rotation"),
        (changed("draco", lambda d: mesh(d).update(extensions={"KHR_draco_mesh_compression": {}})), "Draco"),
        (changed("meshopt", lambda d: d["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}})),
         "meshopt"),
        (changed("joints", lambda d: d["skins"][0].update(joints=[1, 2])), "inverse bind"),
        (changed("lying", lambda d: [node.update(translation=[0, 0, 0]) for node in d["nodes"][9:]]), "length"),
    ]  # fmt: skip


def test_bad_characters_give_one_sentence_and_write_nothing(clips, export, tmp_path):  # noqa: F811
    np.savez(tmp_path / "a.npz", smplx_85=clips["run"].smplx85)
    for path, word in bad_characters(tmp_path):
        status, error = export(tmp_path / "a.npz", tmp_path / "out.glb", "--character", path)
        assert status == 2 and word in error and error.count("\n") == 1 and str(path) in error, (path.name, error)
        assert not (tmp_path / "out.glb").exists()
    for words in (("--character", tmp_path / "none.glb"), ("--character", tmp_path / "a.npz")):
        assert export(tmp_path / "a.npz", tmp_path / "out.glb", *words)[0] == 2
    assert export(tmp_path / "a.npz", tmp_path / "out.bvh", "--character", tmp_path / "good.glb")[0] == 2
    assert export(tmp_path / "a.npz", tmp_path / "out.vrm")[0] == 2


def test_characters_are_drawn(clips, export, tmp_path):  # noqa: F811
    """The boxes of a rig have the colour of its material."""
    file = read_gltf(write_rig(tmp_path / "hero.glb", Rig(UNREAL, scale=100.0)))
    file.document["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [0.0, 0.6, 0.0, 1.0]}}]
    file.document["meshes"][0]["primitives"][0]["material"] = 0
    write_glb(tmp_path / "hero.glb", file.document, file.buffers[0])
    np.savez(tmp_path / "a.npz", smplx_85=clips["run"].smplx85[:6])
    words = ("--character", tmp_path / "hero.glb", "--size", 128)
    assert export(tmp_path / "a.npz", tmp_path / "a.png", *words, "--poses", 2) == (0, "")
    assert export(tmp_path / "a.npz", tmp_path / "a.gif", *words) == (0, "")
    assert export(tmp_path / "a.npz", tmp_path / "a.npz", tmp_path / "sheet.png", *words) == (0, "")
    for picture in ("a.png", "sheet.png"):
        pixels = np.asarray(Image.open(tmp_path / picture).convert("RGB")).astype(int)
        assert (pixels[..., 1] - pixels[..., 0] > 60).mean() > 0.01


def test_map_needs_one_character(capsys):
    with pytest.raises(SystemExit), exit_on_input_error():
        print_map([])
    assert "python -m characters" in capsys.readouterr().err
    with pytest.raises(InputError, match="walk.npz is no character"):
        print_map(["walk.npz"])
