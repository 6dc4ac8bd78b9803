"""Fitting a compressed network to unlabelled images; the structure never changes."""

from tuckertree.calibration.balancing import balance, rebalance
from tuckertree.calibration.batchnorm import reestimate, reestimate_if_better
from tuckertree.calibration.check import check_images
from tuckertree.calibration.correct import calibrate
from tuckertree.calibration.distances import output_distances
from tuckertree.calibration.fit import fit, output_error
from tuckertree.calibration.int8 import images_for_int8, rebalance_for_int8
from tuckertree.calibration.metrics import KroneckerMetric, NotDifferentiableError, collect_metrics
from tuckertree.calibration.moment import InputSecondMoment
from tuckertree.calibration.moments import collect_moments
from tuckertree.calibration.sensitivity import measure_sensitivity
from tuckertree.calibration.sources import Calibration, CalibrationData, CalibrationWarning
from tuckertree.calibration.tuning import Length, Tuning, check_tunable, learned_images, tune_network

__all__ = [
    "Calibration",
    "CalibrationData",
    "CalibrationWarning",
    "InputSecondMoment",
    "KroneckerMetric",
    "Length",
    "NotDifferentiableError",
    "Tuning",
    "balance",
    "calibrate",
    "check_images",
    "check_tunable",
    "collect_metrics",
    "collect_moments",
    "fit",
    "images_for_int8",
    "learned_images",
    "measure_sensitivity",
    "output_distances",
    "output_error",
    "rebalance",
    "rebalance_for_int8",
    "reestimate",
    "reestimate_if_better",
    "tune_network",
]
