"""Physical measures of motion: sliding, floating and sinking feet, jerk, control error.

skating.py   sliding feet: ratio of GMD and OmniControl, Kimodo's measures with foot contacts
jerk.py      third derivative of the joints: FlowMDM, HY-Motion, Motius
mbench.py    jitter, dynamics, penetration, sliding and floating as in MBench
floor.py     penetration, floating and skating of points against the floor: UHC, PhysDiff
control.py   distance to controlled joints: OmniControl
quality.py   the measures that an evaluation prints

Joints are (B, T, 22, 3) in metres, y up, with the floor at y = 0, and at least 4 frames. Measures of this project's
own, such as the sliding speed of the feet in metres per second, are in motion/measures.py.
"""
