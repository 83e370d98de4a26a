"""Shapes in annotations cost nothing without jaxtyping, and are checked with it."""

import subprocess
import sys


def test_without_jaxtyping_an_annotation_is_a_tensor():
    code = "from rangeformer.shapes import Float, Tensor; assert Float[Tensor, 'n k'] is Tensor; print('plain')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "plain\n"


def test_with_jaxtyping_it_carries_the_shape():
    code = "import jaxtyping; from rangeformer.shapes import Float, Tensor; print(Float[Tensor, 'n k'].dim_str)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "n k\n"
