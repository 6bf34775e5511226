"""Scripts that measure, run from a clone; not part of the wheel, whose `pulse-edge bench` is what
devices run.
"""
