"""Console commands. Each runs a script as python does, so that its options are read before the slow imports."""

import runpy


def generate() -> None:
    """Run inference_batch.py."""
    _run("inference_batch")


def app() -> None:
    """Run app.py."""
    _run("app")


def export() -> None:
    """Run visualize/export.py."""
    _run("visualize.export")


def edit() -> None:
    """Run edit_motion.py."""
    _run("edit_motion")


def evaluate() -> None:
    """Run evaluate.py."""
    _run("evaluate")


def _run(module: str) -> None:
    runpy.run_module(f"{__package__}.{module}", run_name="__main__", alter_sys=True)
