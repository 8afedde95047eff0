"""Runs inside Blender: install the add-on from its zip, and generate motion of an armature as a user does.

    python tests/blender/use_addon.py JOB.json

JOB.json names the zip, a character (.glb), the address of a server, and the file to write the findings into.
"""

import json
import math
import sys
import time

import bpy
import numpy as np
from mathutils import Vector


def install(path: str) -> str:
    """Install and enable the add-on; return the name of its package."""
    repository = "user_default"
    bpy.ops.extensions.package_install_files(filepath=path, repo=repository, enable_on_install=True)
    return f"bl_ext.{repository}.text_to_motion"


def generate(package: str, **values: object) -> dict:
    """Press the button of the panel and wait; the timers of Blender do not run without a window."""
    panel = sys.modules[f"{package}.panel"]
    scene = bpy.context.scene
    for name in ("path", "use_markers", "use_seconds", "variations", "keep_places"):
        scene.text_to_motion.property_unset(name)
    for name, value in values.items():
        setattr(scene.text_to_motion, name, value)
    start = time.monotonic()
    answer = bpy.ops.text_to_motion.generate()
    blocked = time.monotonic() - start
    while panel.look(scene.name, "hero") is not None:
        time.sleep(0.05)
    settings = scene.text_to_motion
    print(f"{settings.state} after {time.monotonic() - start:.1f} s", flush=True)
    return {"answer": list(answer), "blocked": blocked, "state": settings.state, "failed": settings.failed}


def places(armature: bpy.types.Object, action: bpy.types.Action) -> dict[str, list]:
    """Return the places (T, 3) of the bones in the world, in the frames of an action."""
    armature.animation_data.action = action
    if action.slots if hasattr(action, "slots") else None:
        armature.animation_data.action_slot = action.slots[0]
    scene, found = bpy.context.scene, {bone.name: [] for bone in armature.pose.bones}
    first, last = (round(float(edge)) for edge in action.frame_range)
    for frame in range(first, last + 1):
        scene.frame_set(frame)
        for bone in armature.pose.bones:
            found[bone.name].append(list(armature.matrix_world @ bone.head))
    return found


def floor_path() -> bpy.types.Object:
    """Return a curve on the floor, bent."""
    data = bpy.data.curves.new("path", "CURVE")
    data.dimensions, data.bevel_depth = "3D", 0.05
    line = data.splines.new("BEZIER")
    line.bezier_points.add(1)
    for point, (x, y) in zip(line.bezier_points, ((1, 0), (1.5, -3)), strict=True):
        point.co, point.handle_left, point.handle_right = (x, y, 0), (x, y + 0.5, 0), (x, y - 0.5, 0)
    curve = bpy.data.objects.new("path", data)
    bpy.context.scene.collection.objects.link(curve)
    return curve


def main(job: dict) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    package = install(job["zip"])
    found: dict = {"version": list(bpy.app.version)}
    bpy.context.preferences.addons[package].preferences.address = job["address"]
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start = 30, 1
    found["nothing selected"] = generate(package)
    bpy.ops.import_scene.gltf(filepath=job["character"])
    armature = next(thing for thing in bpy.data.objects if thing.type == "ARMATURE")
    armature.name = "hero"
    bpy.context.view_layer.objects.active = armature
    found["simple"] = generate(package, sentences="a person walks | a person waves", variations=2, use_seconds=True,
                               seconds=1.0, seed=5)  # fmt: skip
    found["actions"] = sorted(action.name for action in bpy.data.actions)
    found["places"] = places(armature, bpy.data.actions[found["actions"][0]])

    armature.rotation_mode = "XYZ"
    armature.location, armature.rotation_euler = (1, 0, 0), (0, 0, math.pi / 2)
    curve = floor_path()
    found["path"] = generate(package, path=curve, sentences="a person walks", use_seconds=True, seconds=4.0)
    found["path places"] = places(armature, armature.animation_data.action)
    points = [curve.matrix_world @ point.co for point in curve.data.splines[0].bezier_points]
    found["path ends"] = [list(Vector(point)) for point in points]

    armature.location, armature.rotation_euler = (0, 0, 0), (0, 0, 0)
    source = bpy.data.actions[found["actions"][0]]
    posed = places(armature, source)
    scene.timeline_markers.new("pose", frame=20)
    found["markers"] = generate(package, use_markers=True, use_seconds=True, seconds=2.0, seed=9)
    made = places(armature, armature.animation_data.action)
    found["marker error"] = max(
        float(np.abs(np.array(posed[bone][19]) - made[bone][19]).max()) for bone in job["bones"]
    )
    bpy.context.preferences.addons[package].preferences.address = "http://127.0.0.1:9"
    found["no server"] = generate(package)
    found["objects"] = sorted(thing.name for thing in bpy.data.objects)
    if job["folder"]:
        bpy.context.preferences.addons[package].preferences.folder = job["folder"]
        found["own server"] = generate(package, use_seconds=True, seconds=1.0)
    bpy.ops.preferences.addon_disable(module=package)
    with open(job["result"], "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    with open(sys.argv[-1]) as file:
        main(json.load(file))
