def check_plausible(rotations, pelvis): pass
