"""Runs inside Blender: import files with the settings of docs/blender.md and write down where the joints are.

    python tests/blender/probe.py RESULT FILE ...

RESULT.json has, for each file, the frame rate, the first and the last frame of the scene, and the names of the actions.
RESULT.npz has, for each file, the places (T, J, 3) of its joints in metres, y up, named in the .json.
"""

import json
import sys

import bpy
import numpy as np


def read(path: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    if path.endswith(".bvh"):
        scale = 1.0 if "metres" in path else 0.01
        bpy.ops.import_anim.bvh(
            filepath=path,
            global_scale=scale,
            axis_forward="-Z",
            axis_up="Y",
            update_scene_fps=True,
            update_scene_duration=True,  # never shortens the scene
        )
    else:
        scene.render.fps = 30
        (bpy.ops.wm.fbx_import if path.endswith(".fbx") else bpy.ops.import_scene.gltf)(filepath=path)
    scene.frame_start, scene.frame_end = (round(float(edge)) for edge in bpy.data.actions[0].frame_range)


def places(armature: bpy.types.Object) -> np.ndarray:
    scene, found = bpy.context.scene, []
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        found.append([armature.matrix_world @ bone.head for bone in armature.pose.bones])
    x, y, z = np.moveaxis(np.array(found), -1, 0)
    return np.stack((x, z, -y), axis=-1)


def fbx_facts(path: str) -> dict:
    """Return the unit of an FBX file in centimetres, and the scales of its nodes."""
    from io_scene_fbx.parse_fbx import parse

    root = {part.id: part for part in parse(path)[0].elems}

    def properties(part) -> dict:
        table = next(each for each in part.elems if each.id == b"Properties70")
        return {row.props[0]: row.props[4:] for row in table.elems}

    models = [properties(part) for part in root[b"Objects"].elems if part.id == b"Model"]
    scales = [model[b"Lcl Scaling"] for model in models if b"Lcl Scaling" in model]
    return {"unit": properties(root[b"GlobalSettings"])[b"UnitScaleFactor"][0], "scales": scales}


def main(result: str, *files: str) -> None:
    facts, arrays = {}, {}
    for number, path in enumerate(files):
        read(path)
        scene = bpy.context.scene
        armature = next(thing for thing in bpy.data.objects if thing.type == "ARMATURE")
        arrays[str(number)] = places(armature)
        facts[path] = {
            "fps": scene.render.fps / scene.render.fps_base,
            "frames": [scene.frame_start, scene.frame_end],
            "actions": [action.name for action in bpy.data.actions],
            "joints": [bone.name for bone in armature.pose.bones],
        }
        if path.endswith(".fbx"):
            facts[path] |= fbx_facts(path)
    np.savez(f"{result}.npz", **arrays)
    with open(f"{result}.json", "w") as file:
        json.dump(facts, file)


if __name__ == "__main__":
    main(*sys.argv[sys.argv.index("--") + 1 :])
