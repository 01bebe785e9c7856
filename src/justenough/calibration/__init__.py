"""A threshold with its evidence, fitted on labelled traces."""

from justenough.calibration.calibration import Calibration, calibrate, load_calibration

__all__ = ["Calibration", "calibrate", "load_calibration"]
