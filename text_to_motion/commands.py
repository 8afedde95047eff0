"""Console commands. Each runs a script as python does, so that its options are read before the slow imports."""

import runpy


def generate() -> None:
    """Run inference_batch.py."""
    _run("t2m-generate", "inference_batch")


def app() -> None:
    """Run app.py."""
    _run("t2m-app", "app")


def export() -> None:
    """Run visualize/export.py."""
    _run("t2m-export", "visualize.export")


def edit() -> None:
    """Run edit_motion.py."""
    _run("t2m-edit", "edit_motion")


def evaluate() -> None:
    """Run evaluate.py."""
    _run("t2m-evaluate", "evaluate")


def _run(command: str, module: str) -> None:
    names = {"COMMAND": command}  # shown by --help, see utils/config.py
    runpy.run_module(f"{__package__}.{module}", names, run_name="__main__", alter_sys=True)
