"""Text to motion: generate motion of an armature from sentences (docs/blender.md of the project)."""

bl_info = {
    "name": "Text to motion",
    "author": "The text-to-motion project",
    "version": (1, 0, 0),
    "blender": (4, 2, 0),
    "location": "3-D view > Sidebar > Motion",
    "description": "Generate motion of an armature from sentences",
    "category": "Animation",
}

import bpy  # noqa: E402

from . import panel, server  # noqa: E402


def register() -> None:
    for each in panel.CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.text_to_motion = bpy.props.PointerProperty(type=panel.Settings)


def unregister() -> None:
    server.stop()
    del bpy.types.Scene.text_to_motion
    for each in reversed(panel.CLASSES):
        bpy.utils.unregister_class(each)
