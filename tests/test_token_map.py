"""Token maps: algebra against dense arithmetic, and files that come back as they were."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.token_map import TokenMap

SOURCE, TARGET, HIDDEN = 7, 5, 3
TABLE = np.random.default_rng(0).normal(size=(SOURCE, HIDDEN)).astype(np.float32)


@st.composite
def maps(draw: st.DrawFn, n_target: int = TARGET, n_source: int = SOURCE, rule: str = "aligned") -> TokenMap:
    dense = draw(
        hnp.arrays(np.float32, (n_target, n_source), elements=st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 1.0]))
    )
    evidence = draw(hnp.arrays(np.float32, n_target, elements=st.floats(0, 100, width=32)))
    made = TokenMap.from_weights(sparse.csr_array(dense), rule, evidence)
    if draw(st.booleans()):
        groups = sparse.csr_array(np.full((2, n_source), 1 / n_source, np.float32))
        choice = draw(hnp.arrays(np.int64, n_target, elements=st.integers(-1, 1)))
        made = made.or_else(TokenMap.from_groups(choice, groups, ["all", "again"], "mean"))
    return made


def dense(token_map: TokenMap) -> np.ndarray:
    own = token_map.weights[:, : token_map.n_source].toarray()
    return own + token_map.weights[:, token_map.n_source :].toarray() @ token_map.groups.toarray()


@given(maps())
def test_apply_is_the_matrix_product_in_any_blocks(token_map: TokenMap) -> None:
    expected = dense(token_map) @ TABLE
    np.testing.assert_allclose(token_map.apply(TABLE), expected, atol=1e-5)
    for size in (1, 2, TARGET):
        blocks = np.concatenate([rows for _, rows in token_map.blocks(TABLE, size)])
        np.testing.assert_allclose(blocks, expected, atol=1e-5)


@given(maps(), maps(rule="pieces"), hnp.arrays(np.float32, TARGET, elements=st.floats(0, 1, width=32)))
def test_blend_is_the_weighted_sum_where_both_speak(a: TokenMap, b: TokenMap, share: np.ndarray) -> None:
    both, only_a = a.filled & b.filled, a.filled & ~b.filled
    blended = dense(a.blend(b, share))
    expected = share[:, None] * dense(a) + (1 - share[:, None]) * dense(b)
    np.testing.assert_allclose(blended[both], expected[both], atol=1e-5)
    np.testing.assert_allclose(blended[only_a], dense(a)[only_a], atol=1e-6)
    np.testing.assert_allclose(blended[~a.filled], dense(b)[~a.filled], atol=1e-6)


@given(maps(), maps(rule="pieces"))
def test_or_else_keeps_made_rows_and_takes_the_others_with_their_rules(a: TokenMap, b: TokenMap) -> None:
    result = a.or_else(b)
    np.testing.assert_allclose(dense(result)[a.filled], dense(a)[a.filled])
    np.testing.assert_allclose(dense(result)[~a.filled], dense(b)[~a.filled])
    for row in range(TARGET):
        chosen = a if a.filled[row] else b
        assert result.rule_of(row) == chosen.rule_of(row)
        assert result.evidence[row] == chosen.evidence[row]
    assert sum(result.counts_by_rule().values()) == TARGET


@given(maps(n_target=4, n_source=TARGET), maps())
def test_compose_is_applying_one_after_the_other(outer: TokenMap, inner: TokenMap) -> None:
    np.testing.assert_allclose(dense(outer.compose(inner)), dense(outer) @ dense(inner), atol=1e-5)


@given(maps(), st.permutations(range(SOURCE)))
def test_permuting_source_ids_permutes_the_result_and_nothing_else(token_map: TokenMap, order: list[int]) -> None:
    new_of_old = np.argsort(order)
    permutation = TokenMap.from_pairs(np.arange(SOURCE), new_of_old, (SOURCE, SOURCE), "copied")
    np.testing.assert_allclose(token_map.compose(permutation).apply(TABLE[order]), token_map.apply(TABLE), atol=1e-5)


@given(maps())
def test_row_sums_count_groups_with_their_own_sums(token_map: TokenMap) -> None:
    np.testing.assert_allclose(token_map.row_sums(), dense(token_map).sum(axis=1), atol=1e-5)


@given(token_map=maps())
def test_files_come_back_whole_and_are_the_same_bytes_every_time(
    token_map: TokenMap, tmp_path_factory: pytest.TempPathFactory
) -> None:
    named = token_map.with_metadata(method="x", language="татар")
    path = tmp_path_factory.mktemp("map") / "map.safetensors"
    named.save(path)
    back = TokenMap.load(path)
    assert back.to_bytes() == named.to_bytes() == path.read_bytes()
    np.testing.assert_array_equal(dense(back), dense(named))
    assert (back.rule_names, back.group_names, dict(back.metadata)) == (
        named.rule_names,
        named.group_names,
        dict(named.metadata),
    )


def test_row_zero_and_column_zero_are_ordinary() -> None:
    token_map = TokenMap.from_pairs(np.array([0]), np.array([0]), (1, 1), "copied")
    assert token_map.row(0) == [(0, 1.0)]
    np.testing.assert_array_equal(token_map.apply(TABLE[:1]), TABLE[:1])


def test_empty_maps_give_zero_rows_and_say_so() -> None:
    empty = TokenMap.empty(TARGET, SOURCE)
    assert empty.counts_by_rule() == {"none": TARGET}
    np.testing.assert_array_equal(empty.apply(TABLE), np.zeros((TARGET, HIDDEN)))


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\x08\0\0\0\0\0\0\0{}      "])
def test_missing_and_damaged_files_are_one_sentence_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token_map.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VocabTransferError, match=r"token_map\.safetensors"):
        TokenMap.load(path)


def test_maps_of_different_shapes_do_not_combine() -> None:
    with pytest.raises(UsageError, match="do not fit"):
        TokenMap.empty(2, 3).or_else(TokenMap.empty(2, 4))
    with pytest.raises(UsageError, match="cannot compose"):
        TokenMap.empty(2, 3).compose(TokenMap.empty(4, 3))
