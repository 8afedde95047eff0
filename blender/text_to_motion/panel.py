"""Settings, the panel in the sidebar of the 3-D view, and the operators that start and cancel a generation."""

import bpy

from . import scene, server
from .job import Failure, Job

POLL = 0.2  # seconds between looks at a running generation

_running: Job | None = None


class Preferences(bpy.types.AddonPreferences):
    """Where the server is."""

    bl_idname = __package__

    folder: bpy.props.StringProperty(
        name="Folder of the project",
        description="Its server is started when it is needed; leave it empty to use a server that runs already",
        subtype="DIR_PATH",
    )
    address: bpy.props.StringProperty(
        name="Address of the server", description="Address that python app.py prints", default="http://127.0.0.1:8000"
    )

    def draw(self, context):
        self.layout.prop(self, "folder")
        self.layout.prop(self, "address")


class Settings(bpy.types.PropertyGroup):
    """Settings of the panel, kept in the file."""

    sentences: bpy.props.StringProperty(
        name="Sentences",
        description="What the person does; several sentences are separated by |",
        default="a person walks forward",
    )
    seed: bpy.props.IntProperty(name="Seed", description="Each seed gives another motion", min=0, max=2**31 - 9)
    use_seconds: bpy.props.BoolProperty(name="Set the length", description="Else the generator chooses the length")
    seconds: bpy.props.FloatProperty(
        name="Seconds", description="Length of each sentence", default=4.0, min=0.2, max=60.0, unit="TIME_ABSOLUTE"
    )
    variations: bpy.props.IntProperty(
        name="Variations", description="Number of actions, with successive seeds", default=1, min=1, max=4
    )
    path: bpy.props.PointerProperty(
        name="Path",
        description="Curve that the hips follow over the floor",
        type=bpy.types.Object,
        poll=lambda self, thing: thing.type == "CURVE",
    )
    use_markers: bpy.props.BoolProperty(
        name="Poses at markers",
        description="The pose of the armature at each marker of the timeline is a pose of the motion",
    )
    keep_places: bpy.props.BoolProperty(
        name="Where they are", description="The poses stay in their places; else they may be anywhere", default=True
    )
    state: bpy.props.StringProperty(options={"SKIP_SAVE"})
    failed: bpy.props.BoolProperty(options={"SKIP_SAVE"})


class TEXT_TO_MOTION_OT_generate(bpy.types.Operator):
    """Generate motion for the selected armature, as an action"""

    bl_idname = "text_to_motion.generate"
    bl_label = "Generate"

    @classmethod
    def poll(cls, context):
        return _running is None

    def execute(self, context):
        global _running
        settings = context.scene.text_to_motion
        settings.state, settings.failed = "", False
        try:
            order = scene.collect(context, settings)
        except Failure as failure:
            settings.state, settings.failed = str(failure), True
            self.report({"WARNING"}, str(failure))
            return {"CANCELLED"}
        preferences = context.preferences.addons[__package__].preferences
        folder, address = bpy.path.abspath(preferences.folder), preferences.address
        _running = Job(lambda: server.start(folder) if folder else address, order)
        target = (context.scene.name, scene.armature_of(context).name)
        bpy.app.timers.register(lambda: look(*target), first_interval=POLL)
        return {"FINISHED"}


class TEXT_TO_MOTION_OT_cancel(bpy.types.Operator):
    """Stop the generation"""

    bl_idname = "text_to_motion.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context):
        return _running is not None

    def execute(self, context):
        _running.cancel()
        return {"FINISHED"}


def look(scene_name: str, armature_name: str) -> float | None:
    """Show the state of the generation; once it is done, make its actions.

    Returns:
        Seconds to the next look; None if the generation is done.
    """
    global _running
    job, home = _running, bpy.data.scenes.get(scene_name)
    if job is None or home is None:
        return None
    settings = home.text_to_motion
    settings.state = job.state
    redraw()
    if not job.is_done:
        return POLL
    _running = None
    armature = bpy.data.objects.get(armature_name)
    settings.state, settings.failed = job.failure, bool(job.failure)
    if not job.failure and armature is None:
        settings.state, settings.failed = "the armature is gone", True
    elif not job.failure:
        with bpy.context.temp_override(scene=home):
            actions = [scene.apply(bpy.context, armature, name, tracks) for name, tracks in job.results]
        armature.animation_data.action = actions[0]
        if hasattr(armature.animation_data, "action_slot") and actions[0].slots:
            armature.animation_data.action_slot = actions[0].slots[0]
        settings.state = f"{len(actions)} action(s): " + ", ".join(action.name for action in actions)
        if job.missed:
            settings.state += f"; missed: {', '.join(job.missed)}"
    redraw()
    return None


def redraw() -> None:
    """Draw all panels again."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()


class TEXT_TO_MOTION_PT_panel(bpy.types.Panel):
    """The panel."""

    bl_idname = "TEXT_TO_MOTION_PT_panel"
    bl_label = "Text to motion"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Motion"

    def draw(self, context):
        layout, settings = self.layout, context.scene.text_to_motion
        layout.prop(settings, "sentences", text="")
        row = layout.row(align=True)
        row.prop(settings, "seed")
        row.prop(settings, "variations")
        row = layout.row(align=True)
        row.prop(settings, "use_seconds", text="Length")
        part = row.row()
        part.enabled = settings.use_seconds
        part.prop(settings, "seconds", text="")
        layout.prop(settings, "path")
        layout.prop(settings, "use_markers")
        part = layout.row()
        part.enabled = settings.use_markers
        part.prop(settings, "keep_places")
        layout.operator("text_to_motion.generate" if _running is None else "text_to_motion.cancel")
        for line in lines_of(settings.state):
            layout.label(text=line)


def lines_of(text: str, width: int = 44) -> list[str]:
    """Return a text in lines of a panel, which does not wrap."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


CLASSES = (
    Preferences,
    Settings,
    TEXT_TO_MOTION_OT_generate,
    TEXT_TO_MOTION_OT_cancel,
    TEXT_TO_MOTION_PT_panel,
)
