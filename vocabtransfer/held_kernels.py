"""The inner loops of a step of held tables on a CPU: two passes over memory, before and after columns are added up."""

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.kernels import compiled

_Matrix = NDArray[np.float32]


@compiled(fastmath={"contract"}, error_model="numpy")
def take_in(
    gradient: _Matrix, first: _Matrix, second: _Matrix, new1: np.float32, new2: np.float32, sums: NDArray[np.float64]
) -> None:
    """Let moments take in a gradient by shares ``new1`` and ``new2`` of it; all are float32 (rows, columns).

    ``sums`` (1 + columns,) gets the second moments of every column added up, and last how many rows ever had a gradient.
    """
    rows, columns = gradient.shape
    kept = np.float32(1) - new2
    for row in range(rows):
        taught = 0
        for column in range(columns):
            pushed = gradient[row, column]
            first[row, column] += (pushed - first[row, column]) * new1
            square = second[row, column] * kept + pushed * pushed * new2
            second[row, column] = square
            sums[column] += square
            taught += square > 0
        sums[columns] += taught > 0


@compiled(fastmath={"contract"}, error_model="numpy")
def move(
    values: _Matrix, first: _Matrix, second: _Matrix, means: _Matrix, least: np.float32, length: np.float32
) -> None:
    """Move values (rows, columns) by ``length`` times their first moment over the root of the second and its column's."""
    rows, columns = values.shape
    for row in range(rows):
        for column in range(columns):
            divisor = np.sqrt(second[row, column] + means[column]) + least
            values[row, column] -= length * first[row, column] / divisor
