"""Convert characters and motion between glTF and FBX; runs inside Blender, from 4.2 on (see formats/fbx.py).

    python blender/convert.py                                     # a Python with the module bpy
    blender --background --factory-startup --python blender/convert.py

Each line of the standard input is a JSON list of two files, SOURCE and TARGET. SOURCE ends in .glb or .fbx, and TARGET
in the other of the two. The answer is a line that starts with ANSWER and holds a JSON string: the reason of a failure,
or an empty string.

Lengths in an FBX file are centimetres and no node carries a scale, so that Unreal and Unity import a person of 1.7 m
without further settings.
"""

import json
import sys

import bpy
from mathutils import Matrix

FPS = 30
CENTIMETRES = 100.0  # per metre
ANSWER = "answer: "


def main() -> None:
    for line in sys.stdin:
        reason = ""
        try:
            convert(*json.loads(line))
        except Exception as error:  # of any kind; the other files are converted
            reason = next((text for text in reversed(str(error).splitlines()) if text.strip()), repr(error))
        print(f"\n{ANSWER}{json.dumps(reason)}", flush=True)  # Blender may have left a line open


def convert(source: str, target: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = FPS
    if source.endswith(".fbx"):
        fbx_to_glb(source, target)
    else:
        glb_to_fbx(source, target)


def fbx_to_glb(source: str, target: str) -> None:
    """Write skeletons, meshes and animations of an FBX file as .glb."""
    if hasattr(bpy.ops.wm, "fbx_import"):  # from Blender 4.5 on; also reads FBX files in text form
        bpy.ops.wm.fbx_import(filepath=source)
    else:
        bpy.ops.import_scene.fbx(filepath=source)
    for action in bpy.data.actions:
        for thing in bpy.data.objects:  # FBX writers put the name of the skeleton before that of the animation
            action.name = action.name.removeprefix(f"{thing.name}|")
    bpy.ops.export_scene.gltf(
        filepath=target,
        export_format="GLB",
        export_animation_mode="ACTIONS",
        export_optimize_animation_size=False,
        export_rest_position_armature=True,
        export_all_influences=True,
    )


def glb_to_fbx(source: str, target: str) -> None:
    """Write skeletons, meshes and animations of a .glb as FBX, with an animation stack per animation."""
    bpy.ops.import_scene.gltf(filepath=source, bone_heuristic="BLENDER")  # keeps the axes of the bones
    for thing in [thing for thing in bpy.data.objects if not is_exported(thing)]:
        bpy.data.objects.remove(thing)
    in_centimetres()
    bpy.ops.export_scene.fbx(
        filepath=target,
        object_types={"ARMATURE", "MESH", "EMPTY"},
        mesh_smooth_type="FACE",
        add_leaf_bones=False,
        bake_anim_use_nla_strips=False,
        bake_anim_use_all_actions=True,
        bake_anim_simplify_factor=0.0,
        path_mode="COPY",
        embed_textures=True,
    )


def is_exported(thing: bpy.types.Object) -> bool:
    """Whether an object is of the file; the importer adds shapes that only draw bones."""
    return all(collection.name != "glTF_not_exported" for collection in thing.users_collection)


def in_centimetres() -> None:
    """Let one unit of Blender be a centimetre, so that the exporter scales nothing."""
    bpy.context.scene.unit_settings.scale_length = 1 / CENTIMETRES
    size = Matrix.Scale(CENTIMETRES, 4)
    for armature in bpy.data.armatures:
        armature.transform(size)
    for mesh in bpy.data.meshes:
        mesh.transform(size, shape_keys=True)
    for thing in bpy.data.objects:
        thing.location *= CENTIMETRES
        thing.matrix_parent_inverse.translation *= CENTIMETRES
    for action in bpy.data.actions:
        for curve in curves_of(action):
            if curve.data_path.endswith("location"):
                for key in curve.keyframe_points:
                    key.co_ui[1] *= CENTIMETRES  # moves the handles with it


def curves_of(action: bpy.types.Action) -> list[bpy.types.FCurve]:
    """Return the curves of an action; they are in channel bags from Blender 5.0 on."""
    if hasattr(action, "fcurves"):
        return list(action.fcurves)
    strips = (strip for layer in action.layers for strip in layer.strips)
    return [curve for strip in strips for bag in strip.channelbags for curve in bag.fcurves]


if __name__ == "__main__":
    main()
