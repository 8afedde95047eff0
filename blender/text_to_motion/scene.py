"""From the scene to an order, and from a result to an action."""

import tempfile
from pathlib import Path

import bpy
from mathutils import Matrix, Quaternion, Vector

from .glb import Glb, Tracks
from .job import Failure, Order

FPS = 30  # of generated motion
Z_UP = Matrix(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1)))  # from the axes of Blender to those of glTF
MAX_POINTS = 60  # of a path


def collect(context: bpy.types.Context, settings: bpy.types.PropertyGroup) -> Order:
    """Return the order for the settings and the scene.

    Raises:
        Failure: something is missing; the message is a sentence for the panel.
    """
    armature = armature_of(context)
    sentences = [line.strip() for line in settings.sentences.split("|") if line.strip()]
    if armature is None:
        raise Failure("select an armature, or a mesh that it moves")
    if not sentences:
        raise Failure("enter a sentence, for example: a person walks forward")
    if armature.mode == "EDIT":
        raise Failure("leave edit mode")
    file = export(context, armature)
    frames = marked_frames(context.scene) if settings.use_markers else []
    if settings.use_markers and not frames:
        raise Failure("there is no marker in the timeline; add one at each pose, or turn the markers off")
    if frames:
        file.add_animation("poses", poses(context, armature, frames, set(file.bones())))
    return Order(
        sentences,
        settings.seed,
        settings.variations,
        settings.seconds if settings.use_seconds else None,
        file.to_bytes(),
        path_points(context, armature, settings.path) if settings.path else [],
        [(frame - context.scene.frame_start) / rate(context.scene) for frame in frames],
        settings.keep_places,
    )


def armature_of(context: bpy.types.Context) -> bpy.types.Object | None:
    """Return the selected armature, or that of the selected mesh."""
    thing = context.object
    return thing if thing is None or thing.type == "ARMATURE" else thing.find_armature()


def rate(scene: bpy.types.Scene) -> float:
    """Return the frames per second of a scene."""
    return scene.render.fps / scene.render.fps_base


def export(context: bpy.types.Context, armature: bpy.types.Object) -> Glb:
    """Return an armature and its meshes in the rest pose, at the origin."""
    parts = [thing for thing in context.scene.objects if thing.type == "MESH" and thing.find_armature() == armature]
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "character.glb")
        selected = [thing for thing in context.view_layer.objects if thing.select_get()]
        for thing in context.view_layer.objects:
            thing.select_set(thing == armature or thing in parts)
        try:
            bpy.ops.export_scene.gltf(
                filepath=target,
                export_format="GLB",
                use_selection=True,
                export_animations=False,
                export_materials="NONE",
                export_morph=False,
                export_rest_position_armature=True,
            )
        finally:
            for thing in context.view_layer.objects:
                thing.select_set(thing in selected)
        file = Glb(Path(target).read_bytes())
    if not file.bones():
        raise Failure("the armature moves no mesh; bind one to it (Ctrl-P, With Automatic Weights)")
    file.at_origin()
    return file


def marked_frames(scene: bpy.types.Scene) -> list[int]:
    """Return the frames of the markers of the timeline, in order."""
    return sorted({marker.frame for marker in scene.timeline_markers if marker.frame >= scene.frame_start})


def poses(context: bpy.types.Context, armature: bpy.types.Object, frames: list[int], bones: set[str]) -> Tracks:
    """Return the visible poses of an armature at frames, as an animation in glTF."""
    scene, tracks = context.scene, Tracks()
    before = scene.frame_current
    for frame in frames:
        scene.frame_set(frame)
        for bone in armature.evaluated_get(context.evaluated_depsgraph_get()).pose.bones:
            if bone.name in bones:
                above = bone.parent.matrix.inverted() if bone.parent else Z_UP
                place, turn, _ = (above @ bone.matrix).decompose()
                tracks.setdefault((bone.name, "translation"), []).append(tuple(place))
                tracks.setdefault((bone.name, "rotation"), []).append((turn.x, turn.y, turn.z, turn.w))
    scene.frame_set(before)
    return tracks


def path_points(
    context: bpy.types.Context, armature: bpy.types.Object, curve: bpy.types.Object
) -> list[tuple[float, float, float]]:
    """Return points of a curve, relative to the armature, in the axes of glTF."""
    data = curve.data.copy()  # without thickness, so that its mesh is a line
    data.bevel_depth = data.extrude = 0.0
    data.bevel_object = None
    line = bpy.data.objects.new("path", data)
    try:
        mesh = line.to_mesh()
        points = [curve.matrix_world @ vertex.co for vertex in mesh.vertices]
        line.to_mesh_clear()
    finally:
        bpy.data.objects.remove(line)
        bpy.data.curves.remove(data)
    if len(points) < 2:
        raise Failure("the path has no length; draw a curve on the floor")
    place, turn, _ = armature.matrix_world.decompose()
    to_armature = Z_UP @ Matrix.LocRotScale(place, turn, None).inverted()
    step = max(1, -(-(len(points) - 1) // (MAX_POINTS - 1)))
    kept = [*points[:-1:step], points[-1]]
    return [tuple(to_armature @ Vector(point)) for point in kept]


def apply(context: bpy.types.Context, armature: bpy.types.Object, name: str, tracks: Tracks) -> bpy.types.Action:
    """Make an action of an animation and assign it to an armature.

    Keys are at the frames of the scene that have the times of the motion, from the first frame of the scene on.
    """
    action = bpy.data.actions.new(name)
    action.use_fake_user = True
    if armature.animation_data is None:
        armature.animation_data_create()
    armature.animation_data.action = action
    scene = context.scene
    count = len(next(iter(tracks.values())))
    frames = [scene.frame_start + number * rate(scene) / FPS for number in range(count)]
    for bone in armature.pose.bones:
        paths = [path for path in ("translation", "rotation") if (bone.name, path) in tracks]
        if paths:
            steps = _local(bone, tracks, count)
            _write_bone(action, armature, bone, frames, steps, has_place="translation" in paths)
    scene.frame_end = max(scene.frame_end, round(frames[-1]))
    return action


def _local(bone: bpy.types.PoseBone, tracks: Tracks, count: int) -> list[tuple[Vector, Quaternion]]:
    """Return location and rotation of a bone relative to its rest pose, in each frame."""
    rest = bone.bone.matrix_local
    above = bone.bone.parent.matrix_local.inverted() if bone.bone.parent else Z_UP
    own = above @ rest
    back = own.inverted()
    places = tracks.get((bone.name, "translation"), [tuple(own.translation)] * count)
    still = own.to_quaternion()
    turns = tracks.get((bone.name, "rotation"), [(still.x, still.y, still.z, still.w)] * count)
    steps = []
    for place, (x, y, z, w) in zip(places, turns, strict=True):
        moved, turn, _ = (back @ Matrix.LocRotScale(Vector(place), Quaternion((w, x, y, z)), None)).decompose()
        if steps:
            turn.make_compatible(steps[-1][1])
        steps.append((moved, turn))
    return steps


def _write_bone(action, armature, bone, frames, steps, has_place) -> None:
    """Write the curves of a bone in the mode of its rotation."""
    start = bone.path_from_id()
    if bone.rotation_mode == "AXIS_ANGLE":
        bone.rotation_mode = "QUATERNION"
    if bone.rotation_mode == "QUATERNION":
        turns, path = [tuple(turn) for _, turn in steps], "rotation_quaternion"
    else:
        turns, path, last = [], "rotation_euler", None
        for _, turn in steps:
            last = turn.to_euler(bone.rotation_mode, last) if last else turn.to_euler(bone.rotation_mode)
            turns.append(tuple(last))
    values = {path: turns} | ({"location": [tuple(place) for place, _ in steps]} if has_place else {})
    for path, rows in values.items():
        for index, column in enumerate(zip(*rows, strict=True)):
            curve = _new_curve(action, armature, f"{start}.{path}", index, bone.name)
            curve.keyframe_points.add(len(frames))
            curve.keyframe_points.foreach_set("co", [part for key in zip(frames, column, strict=True) for part in key])
            for key in curve.keyframe_points:
                key.interpolation = "LINEAR"
            curve.update()


def _new_curve(action, armature, path: str, index: int, group: str) -> bpy.types.FCurve:
    if hasattr(action, "fcurve_ensure_for_datablock"):  # actions with slots, from Blender 4.4 on
        return action.fcurve_ensure_for_datablock(armature, path, index=index, group_name=group)
    return action.fcurves.new(path, index=index, action_group=group)
