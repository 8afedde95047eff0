"""The table of physical measures, which shows real motions beside reconstructed and generated ones."""

from collections.abc import Iterable

import numpy as np

from evaluation.physical.quality import SHORTEST, MotionQuality, motion_quality
from evaluation.recorded import joints_of
from evaluation.report import Column, Table

COLUMNS = (
    Column("foot speed, m/s"), Column("skating ratio"), Column("floating, mm", 1), Column("penetration, mm", 1),
    Column("jerk, m/s³", 0), Column("jerk / real", 2), Column("contact consistency"),
)  # fmt: skip


def quality_of(features: np.ndarray) -> MotionQuality | None:
    """Return the measures of a motion (T, 272); None if it is shorter than 4 frames."""
    return motion_quality([joints_of(features)]) if len(features) >= SHORTEST else None


def mean_quality(rows: Iterable[MotionQuality | None]) -> MotionQuality | None:
    """Return the mean of the measures of motions; None if there are none."""
    known = [row for row in rows if row is not None]
    return MotionQuality(*np.mean(known, axis=0).tolist()) if known else None


def physical_table(rows: dict[str, MotionQuality | None]) -> Table:
    """Return the measures as a table; jerk is also given as a multiple of that of the row "real", if there is one."""
    table, real = Table("Physical measures", COLUMNS), rows.get("real")
    for name, row in rows.items():
        if row is not None:
            ratio = row.jerk / real.jerk if real is not None and real.jerk > 0 else None
            table.rows[name] = (
                row.foot_speed, row.skating_ratio, row.floating, row.penetration, row.jerk, ratio,
                row.contact_consistency,
            )  # fmt: skip
    return table
