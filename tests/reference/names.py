"""What has been renamed since the recording; everything else in the calls is as it was."""

LEARNED_KRYLOV = "learned-krylov"
SKETCH_TOLERANCE = "rtol"
GP_TOLERANCE = "rtol"
EVAL_TOLERANCE = "eval_rtol"
