"""The inner loop of orthogonal matching pursuit, compiled by numba: many targets over one set of atoms.

Scores of all atoms are *screened* in float32 over 16-bit cosines between atoms, with a bound on the error. Where the
bound leaves more than one atom that may be the best, these few are compared in float64 on the rows themselves. Every
choice is therefore the one that float64 arithmetic makes, whatever the precision or order of the screening.
"""

from __future__ import annotations

import numpy as np

from vocabtransfer.kernels import compiled

#: Cosines are stored as this many steps from 0 to 1.
STEPS = 32767
#: Atoms screened at a time (their scores stay in the first-level cache), and how many maxima are taken side by side.
TILE, LANES = 2048, 256
#: Unit roundoff of float32.
UNIT = 2.0**-24
#: A target is done when this share of its squared norm is left: float32 data say nothing below it.
NOTHING_LEFT = 1e-12
#: An atom is linearly dependent on others when this share of its squared norm is outside their span.
DEPENDENT = 1e-8
FINISHED = -1


@compiled(fastmath={"contract", "reassoc"})
def dot(row, vector):  # type: ignore[no-untyped-def]
    """Return the inner product of a float32 row and a float64 vector, in float64."""
    total = 0.0
    for i in range(len(vector)):
        total += np.float64(row[i]) * vector[i]
    return total


@compiled()
def quantise(products, inverse_norms, inverse_others, cosines):  # type: ignore[no-untyped-def]
    """Fill ``cosines`` (int16) from inner products of atoms (float32, a row an atom, by the other atoms)."""
    for i in range(products.shape[0]):
        scale = np.float32(STEPS) * inverse_norms[i]
        for j in range(products.shape[1]):
            value = np.rint(products[i, j] * inverse_others[j] * scale)
            cosines[i, j] = np.int16(max(np.float32(-STEPS), min(np.float32(STEPS), value)))


@compiled(fastmath={"contract"})
def screen(start_scores, cosines, slots, amounts, scores):  # type: ignore[no-untyped-def]
    """Set ``scores`` to ``|start_scores - sum_i amounts[i] * cosines[slots[i]]|``, all float32 but the cosines."""
    count, n = len(slots), len(scores)
    for start in range(0, n, TILE):
        stop = min(start + TILE, n)
        part = scores[start:stop]
        part[:] = start_scores[start:stop]
        # Six rows at a time: each partial score is loaded and stored once for all of them.
        i = 0
        while i + 6 <= count:
            row0, row1, row2 = cosines[slots[i]], cosines[slots[i + 1]], cosines[slots[i + 2]]
            row3, row4, row5 = cosines[slots[i + 3]], cosines[slots[i + 4]], cosines[slots[i + 5]]
            part0, part1, part2 = row0[start:stop], row1[start:stop], row2[start:stop]
            part3, part4, part5 = row3[start:stop], row4[start:stop], row5[start:stop]
            a0, a1, a2, a3, a4, a5 = (
                amounts[i], amounts[i + 1], amounts[i + 2], amounts[i + 3], amounts[i + 4], amounts[i + 5],
            )  # fmt: skip
            for c in range(stop - start):
                part[c] -= a0 * part0[c] + a1 * part1[c] + a2 * part2[c] + a3 * part3[c] + a4 * part4[c] + a5 * part5[c]
            i += 6
        while i < count:
            row = cosines[slots[i]][start:stop]
            amount = amounts[i]
            for c in range(stop - start):
                part[c] -= amount * row[c]
            i += 1
        for c in range(stop - start):
            part[c] = abs(part[c])


@compiled()
def find_candidates(scores, norms, lane_norms, error, peaks, candidates):  # type: ignore[no-untyped-def]
    """Return how many atoms may have the largest ``norm * score``, their ids in ``candidates``.

    Scores (float32) are known to within ``error``; those of atoms that are out of the running are negative. Atom ``i``
    is in lane ``i % LANES``: ``lane_norms`` has the largest norm of each, ``peaks`` (float32) is scratch space.
    """
    n, lanes = len(scores), len(peaks)
    peaks[:] = -1.0
    for start in range(0, n, lanes):
        part, part_norms = scores[start : start + lanes], norms[start : start + lanes]
        for lane in range(len(part)):
            value = part[lane] * part_norms[lane]
            peaks[lane] = value if value > peaks[lane] else peaks[lane]
    lower = np.float32(-1.0)
    for lane in range(lanes):
        if peaks[lane] >= 0:
            lower = max(lower, peaks[lane] - lane_norms[lane] * error)
    found = 0
    for lane in range(lanes):
        if peaks[lane] >= 0 and peaks[lane] + lane_norms[lane] * error >= lower:
            for i in range(lane, n, lanes):
                if scores[i] >= 0 and (scores[i] + error) * norms[i] >= lower:
                    candidates[found] = i
                    found += 1
    return found


@compiled()
def solve(factor, projections, size, coefficients):  # type: ignore[no-untyped-def]
    """Solve ``L^T x = projections`` for the lower triangle ``L`` packed by rows in ``factor``."""
    for i in range(size):
        coefficients[i] = projections[i]
    for i in range(size - 1, -1, -1):
        row = factor[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
        coefficients[i] /= row[i]
        for j in range(i):
            coefficients[j] -= coefficients[i] * row[j]


@compiled()
def best_exactly(atoms, target, support, coefficients, candidates, residual):  # type: ignore[no-untyped-def]
    """Return the candidate with the largest inner product with the residual, in float64; the first of equals."""
    for c in range(len(target)):
        residual[c] = target[c]
    for i in range(len(support)):
        row, amount = atoms[support[i]], coefficients[i]
        for c in range(len(target)):
            residual[c] -= amount * np.float64(row[c])
    best, largest = np.int64(-1), -1.0
    for candidate in candidates:
        score = abs(dot(atoms[candidate], residual))
        if score > largest or (score == largest and candidate < best):
            best, largest = np.int64(candidate), score
    return best


@compiled()
def take(atoms, squares, target, support, size, factor, projections, vector):  # type: ignore[no-untyped-def]
    """Add ``support[size]`` to the factorised atoms; return what it explains of the target, negative if dependent.

    ``factor`` is the Cholesky factor of the Gram matrix of the atoms taken, ``projections`` the target's coordinates
    along the orthonormal directions that they span one by one; both float64 and one longer afterwards.
    """
    chosen = support[size]
    for c in range(len(vector)):
        vector[c] = atoms[chosen, c]
    row = factor[size * (size + 1) // 2 : (size + 1) * (size + 2) // 2]
    outside, along = squares[chosen], dot(target, vector)
    for i in range(size):
        earlier = factor[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
        value = dot(atoms[support[i]], vector)
        for j in range(i):
            value -= earlier[j] * row[j]
        row[i] = value / earlier[i]
        outside -= row[i] * row[i]
        along -= row[i] * projections[i]
    if outside <= DEPENDENT * squares[chosen]:
        return -1.0
    row[size] = np.sqrt(outside)
    projections[size] = along / row[size]
    return projections[size] * projections[size]


@compiled()
def advance(  # type: ignore[no-untyped-def]
    queue, atoms, squares, norms, lane_norms, targets, target_squares, start_scores, cosines, slots, rounding,
    supports, sizes, factors, projections, left, wanted,
):  # fmt: skip
    """Let the targets of ``queue`` take atoms until they are finished or lack a row of cosines.

    Args:
        queue: int64, rows of ``targets`` to work on.
        atoms: float32 ``(n, d)``; ``squares`` float64 and ``norms`` float32 ``(n,)`` are their (squared) norms, and
            ``lane_norms`` (float32) the largest norm of every lane.
        targets: float32 ``(b, d)``; ``target_squares`` float64 ``(b,)``.
        start_scores: float32 ``(b, n)``: cosines of targets and atoms.
        cosines: int16 ``(slots, n)``: rows of cosines between atoms; ``slots`` (int32, ``(n,)``) says where an atom's
            row is, negative where it is not there.
        rounding: largest error of a float32 inner product of two rows of norm 1.
        supports: int32 ``(b, k)``, atoms taken so far, ``sizes`` (int64, ``(b,)``) of them; ``factors`` float64
            ``(b, k (k + 1) / 2)`` and ``projections`` float64 ``(b, k)`` as in `take`; ``left`` float64 ``(b,)``: the
            squared norm that is not explained yet.
        wanted: int64 ``(b,)``: set to the atom whose row is lacking, or `FINISHED`.
    """
    n, d = atoms.shape
    limit = supports.shape[1]
    scores, candidates = np.empty(n, np.float32), np.empty(n, np.int32)
    peaks = np.empty(len(lane_norms), np.float32)
    residual, vector = np.empty(d), np.empty(d)
    coefficients, amounts = np.empty(limit), np.empty(limit, np.float32)
    rows = np.empty(limit, np.int32)
    for t in queue:
        support, factor, along = supports[t], factors[t], projections[t]
        size, length = sizes[t], np.sqrt(target_squares[t])
        wanted[t] = FINISHED
        while size < limit and left[t] > NOTHING_LEFT * target_squares[t]:
            if size > 0 and slots[support[size - 1]] < 0:
                wanted[t] = support[size - 1]
                break
            solve(factor, along, size, coefficients)
            total = 0.0
            for i in range(size):
                amount = coefficients[i] * np.sqrt(squares[support[i]]) / length
                total += abs(amount)
                amounts[i] = np.float32(amount / STEPS)
                rows[i] = slots[support[i]]
            screen(start_scores[t], cosines, rows[:size], amounts[:size], scores)
            for i in range(size):
                scores[support[i]] = -1.0
            error = (rounding + (size + 16) * UNIT) * (1 + total) + total / (2 * STEPS)
            found = find_candidates(scores, norms, lane_norms, np.float32(error), peaks, candidates)
            if found == 0:
                break
            chosen = np.int64(candidates[0])
            if found > 1:
                chosen = best_exactly(atoms, targets[t], support[:size], coefficients, candidates[:found], residual)
            support[size] = chosen
            gain = take(atoms, squares, targets[t], support, size, factor, along, vector)
            if gain < 0:
                support[size] = -1
                break
            size += 1
            left[t] -= gain
        sizes[t] = size


@compiled()
def solve_all(factors, projections, sizes, coefficients):  # type: ignore[no-untyped-def]
    """Set the coefficients (float64, ``(b, k)``) of all targets."""
    for t in range(len(sizes)):
        solve(factors[t], projections[t], sizes[t], coefficients[t])
