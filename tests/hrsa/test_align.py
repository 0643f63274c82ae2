"""Which tokens are compared, against what tokens themselves say of the characters they hold."""

from __future__ import annotations

import copy
import re
import unicodedata

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, ByT5Tokenizer

from st_reasoning.errors import InputError
from st_reasoning.hrsa.align import align
from tests.hrsa.tokenizers import TEXTS, bpe, every, reader, unigram, wordpiece


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = {}

    def get(kind, *arguments, **options):
        key = (kind, arguments, *options.items())
        if key not in made:
            made[key] = reader(tmp_path_factory.mktemp("reader"), kind(*arguments, **options))
        return made[key]

    return get


def byte_ends(tokenizer, ids):
    """How many bytes of the text each token of a byte-level BPE has read: each sign of its name is one byte."""
    ends, read = [], 0
    for token in tokenizer.convert_ids_to_tokens(ids):
        read += len(token)
        ends.append(read)
    return ends


def character_ends(text):
    return {len(text[:end].encode()) for end in range(1, len(text) + 1)}


def pairs(found, number):
    a, b = found.positions_a[number].tolist(), found.positions_b[number].tolist()
    assert len(a) == len(b)
    assert a == sorted(set(a))
    assert b == sorted(set(b))
    return list(zip(a, b, strict=True))


def test_same_ids_are_one_to_one_special_tokens_included(model):
    one = model(wordpiece)
    found = align(one, copy.deepcopy(one), TEXTS)
    assert (found.method, found.share_a, found.share_b, found.same_span, found.cut) == ("ids", 1, 1, 1, 0)
    assert found.tokens == sum(map(len, found.ids_a))
    for number, text in enumerate(TEXTS):
        ids = one.tokenizer(text)["input_ids"]
        assert found.ids_a[number] == found.ids_b[number] == ids
        assert pairs(found, number) == [(i, i) for i in range(len(ids))]
    assert one.tokenizer.convert_ids_to_tokens(found.ids_a[0])[0] == "[CLS]"


@pytest.mark.parametrize("trim_a", [None, True, False])
@pytest.mark.parametrize("trim_b", [None, True, False])
def test_byte_level_tokens_meet_where_both_have_read_the_same_bytes(model, trim_a, trim_b):
    a, b = model(bpe, 600, trim_offsets=trim_a), model(bpe, 320, trim_offsets=trim_b)
    found = align(a, b, TEXTS)
    assert found.method == "spans"
    total = 0
    for number, text in enumerate(TEXTS):
        ends_a, ends_b = byte_ends(a.tokenizer, found.ids_a[number]), byte_ends(b.tokenizer, found.ids_b[number])
        assert ends_a[-1] == ends_b[-1] == len(text.encode())
        # A token may end amid the bytes of a character: only behind the last of them have both read it.
        common = set(ends_a) & set(ends_b) & character_ends(text)
        # Trimmed, white space before the first word stands for nothing.
        before = len(text) - len(text.lstrip()) - 1 if trim_a or trim_b else 0
        expected = sorted(end for end in common if end > before)
        assert [(ends_a[i], ends_b[j]) for i, j in pairs(found, number)] == [(end, end) for end in expected]
        total += len(expected)
    assert found.tokens == total
    # The one token that stands for nothing is no token missed.
    counts = [sum(map(len, ids)) - bool(trim) for ids, trim in ((found.ids_a, trim_a), (found.ids_b, trim_b))]
    assert (found.share_a, found.share_b) == (total / counts[0], total / counts[1])
    assert counts[0] < counts[1]
    assert 0 < found.same_span < 1


def plain(text):
    """Letters as a normalising tokenizer keeps them."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


@pytest.mark.parametrize("kind", [wordpiece, unigram])
@pytest.mark.parametrize("turned", [False, True])
def test_pieces_of_words_meet_bytes_by_character(model, kind, turned):
    pieces, level = model(kind), model(bpe, 400)
    found = align(level, pieces, TEXTS) if turned else align(pieces, level, TEXTS)
    assert found.to_mapping()["method"] == "spans"
    assert found.cut == 0
    for number, text in enumerate(TEXTS):
        ids, bytes_ids = (found.ids_b, found.ids_a)[:: 1 if turned else -1]
        tokens = pieces.tokenizer.convert_ids_to_tokens(ids[number])
        reads = byte_ends(level.tokenizer, bytes_ids[number])
        met = set()
        for place, byte_place in (pair if not turned else pair[::-1] for pair in pairs(found, number)):
            end = len(text.encode()[: reads[byte_place]].decode())
            met.add(end)
            if "unk" not in tokens[place].lower():
                piece = plain(tokens[place].removeprefix("##").replace("▁", " ").strip())
                assert plain(text[:end].rstrip()).endswith(piece)
            assert tokens[place] not in ("[CLS]", "[SEP]", "</s>")
        # Both end a token where a word ends before a space.
        assert {word.end() for word in re.finditer(r"\w+(?=\s)", text)} <= met


def test_pairs_of_an_example_written_out(model):
    pieces, level = model(wordpiece), model(bpe, 600)
    text = "How many APPLES, ñ?"
    found = align(pieces, level, [text])
    a = pieces.tokenizer.convert_ids_to_tokens(found.ids_a[0])
    b = level.tokenizer.convert_ids_to_tokens(found.ids_b[0])
    told = [(a[i], b[j]) for i, j in pairs(found, 0)]
    assert (a[0], a[-1]) == ("[CLS]", "[SEP]")
    assert told[0][1] == "How"
    assert told[1][1] == "Ġmany"
    assert [j for _, j in told][2:] == ["S", ",", "±", "?"]
    assert told[-1] == ("?", "?")
    assert found.share_a == len(told) / (len(a) - 2)


def test_a_special_token_of_one_model_shifts_its_positions_only(model):
    one = model(bpe, 400)
    other = copy.deepcopy(one)
    other.tokenizer.add_special_tokens({"bos_token": "<s>"})
    other.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", other.tokenizer.bos_token_id)]
    )
    found = align(one, other, TEXTS)
    assert (found.method, found.same_span) == ("spans", 1)
    for number, text in enumerate(TEXTS):
        ends = byte_ends(one.tokenizer, found.ids_a[number])
        whole = [place for place, end in enumerate(ends) if end in character_ends(text)]
        assert pairs(found, number) == [(place, place + 1) for place in whole]


def test_texts_too_long_are_cut_for_both_at_one_character(model):
    a, b = model(bpe, 600), model(bpe, 300)
    limit = 30
    found = align(a, b, TEXTS, max_tokens=limit)
    whole = align(a, b, TEXTS)
    cut = 0
    for number, text in enumerate(TEXTS):
        assert len(found.ids_a[number]) <= limit >= len(found.ids_b[number])
        read = [m.tokenizer.decode(ids[number]) for m, ids in ((a, found.ids_a), (b, found.ids_b))]
        assert read[0] == read[1]
        assert text.startswith(read[0].rstrip())
        cut += len(whole.ids_b[number]) > limit
        last = max(i for i, j in pairs(whole, number) if max(i, j) < limit)
        assert read[0] == a.tokenizer.decode(whole.ids_a[number][: last + 1])
    assert found.cut == cut > 2


def test_the_shorter_limit_holds_for_both(model):
    one = model(bpe, 600)
    short = copy.deepcopy(one)
    short.max_seq_length = 7
    for pair in ((one, short), (short, one)):
        found = align(*pair, TEXTS)
        assert (found.method, max(map(len, found.ids_a))) == ("ids", 7)
    assert max(map(len, align(one, short, TEXTS, max_tokens=9).ids_b)) == 9


def test_tokens_that_cannot_be_aligned_are_refused(model, tmp_path):
    texts = ["abcdefghijklmnopqrstuvwxyz" * 3]
    with pytest.raises(InputError, match=r"expected at least 50% of 16 tokens to end at the same character.*got 6;"):
        align(model(every, 3), model(every, 5), texts)
    with pytest.raises(InputError, match=r"texts\[1\]: expected both models to end a token .* within 2 tokens, got no"):
        align(model(every, 7), model(every, 4), ["x" * 7, "x" * 20], max_tokens=2)
    slow = reader(tmp_path / "slow", bpe(300))
    slow[0].processor = ByT5Tokenizer()
    with pytest.raises(InputError, match="model_b: expected a fast tokenizer, got ByT5Tokenizer"):
        align(model(bpe, 600), slow, TEXTS)
    left = reader(tmp_path / "left", bpe(300))
    left.tokenizer.truncation_side = "left"
    with pytest.raises(InputError, match=r"texts\[0\]: expected at most 12 tokens, or tokenizers that cut"):
        align(model(bpe, 600), left, TEXTS, max_tokens=12)


@pytest.mark.real_model
def test_a_real_tokenizer_meets_a_tiny_one(model, smollm2, tmp_path):
    real, tiny = reader(tmp_path, AutoTokenizer.from_pretrained(smollm2)), model(bpe, 400)
    found = align(real, tiny, TEXTS)
    for number, text in enumerate(TEXTS):
        ends = [byte_ends(m.tokenizer, ids[number]) for m, ids in ((real, found.ids_a), (tiny, found.ids_b))]
        common = sorted(set(ends[0]) & set(ends[1]) & character_ends(text))
        assert [(ends[0][i], ends[1][j]) for i, j in pairs(found, number)] == [(end, end) for end in common]
    assert found.share_a > 0.5
    assert found.share_b > 0.25
