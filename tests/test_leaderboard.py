"""The leaderboard on small random models: what it measures, what it keeps, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertModel, PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.evaluation.retrieval import retrieval, sentence_vectors
from vocabtransfer.leaderboard import untouched
from vocabtransfer.leaderboard.contest import Contest, Entry, split_corpus, summary
from vocabtransfer.leaderboard.inputs import LEARNING_RATE, LeaderboardRequest, learning_rate_of, open_contest
from vocabtransfer.leaderboard.measuring import load_model, run_contest
from vocabtransfer.leaderboard.plot import check_picture
from vocabtransfer.leaderboard.untouched import SAME_SECONDS, SAME_TEXT, add_untouched
from vocabtransfer.running.swap_tables import with_tables
from vocabtransfer.training.rates import rate_for

PAIRS = [
    (f"the {noun} is {kind}", f"{target} {word}")
    for noun, target in (("book", "китап"), ("table", "өстәл"), ("house", "йорт"), ("door", "ишек"))
    for kind, word in (("new", "яңа"), ("old", "иске"), ("big", "зур"), ("small", "кечкенә"))
] * 3


def contest(folder: Path, **changes: object) -> Contest:
    source = vt.open_checkpoint(str(folder))
    train, held_out, test = split_corpus(PAIRS, share=0.25)
    tokenizer = vt.train_tokenizer([target for _, target in train], like=source.tokenizer, vocab_size=400)
    settings = {
        "source": source,
        "tokenizer": tokenizer,
        "pairs": train,
        "evidence": vt.Evidence.of_pairs(train, alignment=vt.align_corpus(train)),
        "test": test,
        "test_pairs": held_out,
        "updates": (1, 2),
        "batch_tokens": 128,
        **changes,
    }
    return Contest(**settings)  # type: ignore[arg-type]


def test_rows_have_every_score_and_are_not_measured_twice(tiny_llama: Path, tmp_path: Path) -> None:
    results = tmp_path / "rows.json"
    first = contest(tiny_llama)
    entries = [Entry.parse("auto"), Entry.parse("mean")]
    rows = run_contest(first, entries, seeds=(0, 1), results=results)
    assert [(row.label, row.seed) for row in rows] == [("auto", 0), ("auto", 1), ("mean", 0), ("mean", 1)]
    assert all(set(row.scores) == {"0", "1", "2"} and row.scores["0"] > 0 for row in rows)
    saved = results.read_text()
    assert run_contest(first, entries, seeds=(0, 1), results=results) == rows
    assert results.read_text() == saved, "everything was there, so nothing was measured or written"
    table = summary(rows)
    assert {line["method"] for line in table} == {"auto", "mean"} and table[0]["seeds"] == 2
    assert table[0]["scores"]["2"] <= table[1]["scores"]["2"]


def test_results_of_another_contest_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    results = tmp_path / "rows.json"
    run_contest(contest(tiny_llama, updates=()), [Entry.parse("mean")], results=results)
    with pytest.raises(UsageError, match="another source"):
        run_contest(contest(tiny_llama, updates=(), max_bytes=10), [Entry.parse("mean")], results=results)
    results.write_text(json.dumps({"rows": 3}))
    with pytest.raises(UsageError, match="not a leaderboard"):
        run_contest(contest(tiny_llama), [Entry.parse("mean")], results=results)
    with pytest.raises(UsageError, match="no held-out text"):
        run_contest(contest(tiny_llama, test=()), [Entry.parse("mean")])


def test_products_in_bfloat16_score_nearly_the_same_and_do_not_mix_with_others(
    tiny_llama: Path, tmp_path: Path
) -> None:
    exact, fast = contest(tiny_llama), contest(tiny_llama, precision="bfloat16")
    entries, results = [Entry.parse("pieces")], tmp_path / "rows.json"
    (first,), (second,) = run_contest(exact, entries), run_contest(fast, entries, results=results)
    assert first.scores != second.scores
    assert list(second.scores.values()) == pytest.approx(list(first.scores.values()), rel=2e-3)
    model = load_model(fast.source, "bfloat16")
    assert all(p.dtype == torch.float32 for p in (model.get_input_embeddings().weight, model.lm_head.weight))
    assert {p.dtype for p in model.base_model.layers.parameters()} == {torch.bfloat16, torch.float32}
    with pytest.raises(UsageError, match="another source"):
        run_contest(exact, entries, results=results)


def test_entries_are_read_and_written_alike() -> None:
    for text in ("pieces", "pieces+calibrate", "auto+plain", "mean+norm=script", "auto+plain+norm=global"):
        assert Entry.parse(text).label == text
    assert Entry.parse("auto+calibrate").label == "auto"
    with pytest.raises(UsageError, match="loud"):
        Entry.parse("pieces+loud")


def test_a_method_is_asked_for_as_a_build_asks_unless_an_option_says_otherwise() -> None:
    # None lets `transfer` decide: an extended vocabulary is not calibrated, and rivals of `auto` are made in their own way.
    asked = {text: Entry.parse(text).asked for text in ("auto", "pieces", "pieces+calibrate", "auto+plain")}
    assert asked == {"auto": None, "pieces": None, "pieces+calibrate": True, "auto+plain": False}


def test_tables_are_swapped_for_the_block_alone(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    other = torch.randn(12, model.config.hidden_size)
    with with_tables(model, other):
        inside = model(ids).logits
        assert inside.shape[-1] == 12 and model.config.vocab_size == 12
        hidden = model.base_model(ids).last_hidden_state
        torch.testing.assert_close(inside, hidden @ other.T)
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, real_tokenizer: object) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer: PreTrainedTokenizerFast = real_tokenizer("minilm")  # type: ignore[operator]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_encoders_are_scored_by_retrieval(tiny_bert: Path) -> None:
    rows = run_contest(contest(tiny_bert), [Entry.parse("auto"), Entry.parse("mean")])
    for row in rows:
        assert set(row.scores) == {"accuracy", "to source", "to target"}
        assert all(0 <= score <= 1 for score in row.scores.values())


def test_rows_of_encoders_are_found_again(tiny_bert: Path, tmp_path: Path) -> None:
    """Scoring leaves padding switched on in the tokenizer, which must not make it another contest."""
    results = tmp_path / "rows.json"
    made = run_contest(contest(tiny_bert), [Entry.parse("mean")], results=results)
    assert run_contest(contest(tiny_bert), [Entry.parse("mean")], results=results) == made


def test_sentence_vectors_do_not_depend_on_their_company(tiny_bert: Path) -> None:
    model = AutoModel.from_pretrained(tiny_bert).eval()
    tokenizer = vt.load_tokenizer(tiny_bert)
    together = sentence_vectors(model, tokenizer, ["one", "a much longer sentence than that", "", "two"])
    alone = sentence_vectors(model, tokenizer, ["a much longer sentence than that"])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_retrieval_counts_both_directions() -> None:
    source = np.eye(4, dtype=np.float32)
    target = source.copy()
    target[3] = source[0]  # the fourth sentence finds the first, and nothing finds the fourth
    found = retrieval(source, target)
    assert found.to_source == 0.75 and found.to_target <= 0.75


def test_a_corpus_too_small_to_split_is_refused() -> None:
    with pytest.raises(VocabTransferError, match="too few"):
        split_corpus(PAIRS[:1])
    train, held_out, documents = split_corpus(PAIRS, 0.1)
    assert [*train, *held_out] == PAIRS and "".join(documents).count("\n") + len(documents) == len(held_out)


def test_the_untouched_model_is_a_row_on_the_same_text_and_in_the_same_seconds(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untouched, "MOST", 10_000)  # however slow the methods' updates were on a busy machine
    results = tmp_path / "rows.json"
    other = ["a text of another kind, in another language altogether"]
    here = contest(tiny_llama, other=other)
    rows = run_contest(here, [Entry.parse("mean")], results=results)
    assert set(rows[0].other) == {"0", "1", "2"} and rows[0].tokens_per_word is not None
    assert rows[0].cpu_seconds["2"] >= rows[0].cpu_seconds["1"] > 0
    same_text, same_seconds = add_untouched(here, rows, results=results)
    assert (same_text.label, same_seconds.label) == (SAME_TEXT, SAME_SECONDS)
    assert set(same_text.scores) == set(same_seconds.scores) == {"0", "1", "2"} == set(same_text.other)
    own = vt.open_checkpoint(str(tiny_llama))
    model = load_model(own)
    plain = bits_per_byte(model, own.tokenizer, here.test, max_bytes=here.max_bytes)
    assert same_text.scores["0"] == round(plain.bits_per_byte, 4) == same_seconds.scores["0"]
    assert same_text.tokens_per_word == round(plain.tokens_per_word, 3) > rows[0].tokens_per_word
    assert same_seconds.cpu_seconds["2"] >= rows[0].cpu_seconds["2"]
    saved = results.read_text()
    assert add_untouched(here, rows, results=results) == [same_text, same_seconds] and results.read_text() == saved
    lines = summary([*rows, same_text, same_seconds])
    assert {line["method"] for line in lines} == {"mean", SAME_TEXT, SAME_SECONDS}


def test_without_training_the_untouched_model_is_one_row(tiny_llama: Path) -> None:
    here = contest(tiny_llama, updates=(), other=["another text"])
    (row,) = add_untouched(here, [])
    assert set(row.scores) == {"0"} == set(row.other) and row.label == SAME_TEXT


def test_the_tokenizer_of_a_contest_is_the_one_that_build_makes(tiny_llama: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "pairs.tsv"
    corpus.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    made = open_contest(LeaderboardRequest(str(tiny_llama), "tatar", (corpus,), vocabulary="extend", new_tokens=9))
    assert len(made.tokenizer) == len(made.source.tokenizer) + 9
    plain = open_contest(LeaderboardRequest(str(tiny_llama), "tatar", (corpus,), vocab_size=400))
    assert (
        plain.tokenizer.get_vocab()
        == vt.train_tokenizer(
            [target for _, target in plain.pairs], like=plain.source.tokenizer, vocab_size=400
        ).get_vocab()
    )


def test_a_picture_is_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ends in"):
        check_picture(tmp_path / "curves.doc")
    (tmp_path / "mine.svg").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        check_picture(tmp_path / "mine.svg")
    check_picture(tmp_path / "mine.svg", overwrite=True)
    check_picture(tmp_path / "new.png")


def test_a_rate_that_nobody_named_fits_the_source_where_something_is_trained(tiny_llama: Path) -> None:
    source = vt.open_checkpoint(tiny_llama)
    assert learning_rate_of(None, source, (1,)) == rate_for(source, LEARNING_RATE) != LEARNING_RATE
    assert learning_rate_of(None, source, ()) == LEARNING_RATE, "results at once go on whatever rate would fit"
    assert learning_rate_of(0.0, source, (1,)) == 0.0, "what was asked for is checked where it is used"
