"""Stored states are the states, of nothing else than what they are asked for, and outlive a kill."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_reasoning.errors import InputError
from st_reasoning.hrsa.cache import ABANDONED, StateCache, batch_key, model_key
from st_reasoning.hrsa.forward import lockstep
from tests.hrsa.tokenizers import TEXTS, bpe, reader, wordpiece

BATCH_TOKENS = 48


class Counted:
    """Counts the forward passes of models."""

    def __init__(self, *models):
        self.passes = 0
        for model in models:
            model[0].model.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.passes += 1

    def since(self):
        passes, self.passes = self.passes, 0
        return passes


def run(a, b, texts, cache=None, **options):
    return list(lockstep(a, b, texts, cache=cache, progress=False, **{"batch_tokens": BATCH_TOKENS, **options}))


def assert_same_bits(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for name in ("a", "b", "sentences", "types", "pooled_a", "pooled_b", "texts"):
            value, wanted = getattr(one, name), getattr(other, name)
            assert (value is None and wanted is None) or torch.equal(value, wanted), name


@pytest.fixture
def models(make_model):
    """Three models with one tokenizer, and the count of their forward passes."""
    found = [copy.deepcopy(make_model(seed, layers=2 + seed % 2)) for seed in range(3)]
    return found, Counted(*found)


def test_a_second_run_is_the_first_to_the_bit_without_forward(models, texts, tmp_path):
    (a, b, c), counted = models
    expected = run(a, b, texts)
    assert counted.since() == 2 * len(expected)
    assert_same_bits(run(a, b, texts, tmp_path), expected)
    assert counted.since() == 2 * len(expected)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 2 * len(expected)
    assert_same_bits(run(a, b, texts, tmp_path), expected)
    assert counted.since() == 0
    for chunk in run(a, b, texts, tmp_path):
        chunk.a.mul_(0)  # what is read is the caller's, not the file's
    assert_same_bits(run(a, b, texts, tmp_path), expected)
    # As the other arm, and against a third model, which alone is run.
    turned = run(b, a, texts, tmp_path)
    assert counted.since() == 0
    assert torch.equal(turned[0].b, expected[0].a)
    assert_same_bits(run(c, a, texts, tmp_path), run(c, a, texts))
    assert counted.since() == len(expected) + 2 * len(expected)
    # Without pooling the same files do.
    assert run(a, b, texts, tmp_path, pooled=False)[0].pooled_a is None
    assert counted.since() == 0


def test_another_tokenizer_as_partner_finds_what_the_first_arm_stored(tmp_path):
    a, b, c = (
        reader(tmp_path / name, tokenizer, seed=seed)
        for seed, (name, tokenizer) in enumerate([("a", bpe(600)), ("b", wordpiece()), ("c", bpe(300))])
    )
    counted = Counted(a)
    expected = run(a, b, TEXTS, batch_tokens=160)
    assert_same_bits(run(a, b, TEXTS, tmp_path / "cache", batch_tokens=160), expected)
    assert_same_bits(run(a, b, TEXTS, tmp_path / "cache", batch_tokens=160), expected)
    passes = counted.since()
    run(a, c, TEXTS, tmp_path / "cache", batch_tokens=160)
    assert counted.since() == 0 < passes


def test_nothing_else_is_answered(make_model, texts, tmp_path):
    """Each change of what decides the states is run anew; a copy elsewhere is not."""
    model = make_model(0)

    def key(changed):
        settings = None if len(changed) < 2 else changed[1].get_config_dict()
        return model_key(changed[0].model, settings)

    def changed(change):
        other = copy.deepcopy(model)
        change(other)
        return other

    def nudge(other):
        with torch.no_grad():
            other[0].model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6

    def rotate(other):
        other[0].model.rotary_emb.inv_freq.mul_(1.001)

    model.save(str(tmp_path / "copy"))
    elsewhere = SentenceTransformer(str(tmp_path / "copy"), device="cpu")
    assert key(copy.deepcopy(model)) == key(elsewhere) == key(model)
    others = [
        make_model(1),
        changed(nudge),
        changed(rotate),
        changed(lambda m: setattr(m[0].model.config, "is_causal", False)),
        changed(lambda m: m[0].model.set_attn_implementation("eager")),
        changed(lambda m: m.to(torch.bfloat16)),
        changed(lambda m: setattr(m[1], "pooling_mode", "lasttoken")),
        changed(lambda m: m.pop(1)),
    ]
    keys = [key(other) for other in others]
    assert len({key(model), *keys}) == len(others) + 1

    counted = Counted(model)
    run(model, model, texts, tmp_path / "cache")
    counted.since()
    for options in ({"max_tokens": 5}, {"batch_tokens": 40}):
        assert_same_bits(run(model, model, texts, tmp_path / "cache", **options), run(model, model, texts, **options))
        assert counted.since() > len(run(model, model, texts, **options))
        counted.since()
    # Other texts: the ids of each are part of the name.
    run(model, model, ["plus " + text for text in texts[:3]], tmp_path / "cache")
    assert counted.since() > 0


def test_adapters_are_told_apart(tmp_path):
    """The scale of a LoRA adapter, and whether it is on, stand in no weight."""
    from peft import LoraConfig

    model = reader(tmp_path, bpe(300))
    plain = model_key(model[0].model, None)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    keys = {plain, model_key(model[0].model, None)}
    for layer in model[0].model.modules():
        if hasattr(layer, "merged_adapters"):
            layer.scaling["default"] *= 2
    keys.add(model_key(model[0].model, None))
    model.disable_adapters()
    keys.add(model_key(model[0].model, None))
    assert len(keys) == 4


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(bytes(content))


def damage_header(path):
    content = path.read_bytes()
    path.write_bytes(content[:8] + content[8:].replace(b'"sha256":"', b'"sha255":"', 1))


@pytest.mark.parametrize(
    "damage",
    [
        damage_byte,
        damage_header,
        lambda path: path.write_bytes(path.read_bytes()[:-16]),
        lambda path: path.write_bytes(b""),
        # Complete, and another batch's.
        lambda path: path.write_bytes(next(p for p in path.parents[1].glob("*/*.s*") if p != path).read_bytes()),
    ],
    ids=["byte", "header", "truncated", "empty", "other"],
)
def test_damage_is_seen_told_and_mended(models, texts, tmp_path, damage):
    (a, b, _), counted = models
    expected = run(a, b, texts, tmp_path)
    victim = sorted(tmp_path.glob("*/*.safetensors"))[0]
    counted.since()
    damage(victim)
    with pytest.warns(UserWarning, match=rf"{victim.name} is damaged \(.*\); its batch is run again"):
        found = run(a, b, texts, tmp_path)
    assert counted.since() == 1
    assert_same_bits(found, expected)
    assert_same_bits(run(a, b, texts, tmp_path), expected)
    assert counted.since() == 0


SLOW = """
import json, sys, time
from pathlib import Path
from sentence_transformers import SentenceTransformer
from st_reasoning.hrsa.forward import lockstep

models = [SentenceTransformer(folder, device="cpu") for folder in sys.argv[1:3]]
for model in models:
    model[0].model.register_forward_pre_hook(lambda *_: time.sleep(0.15))
texts, batch_tokens, cache = json.loads(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
for _ in lockstep(*models, texts, batch_tokens=batch_tokens, cache=cache, progress=False):
    pass
"""


def test_a_killed_run_is_continued(models, texts, tmp_path):
    (a, b, _), counted = models
    for model, name in ((a, "a"), (b, "b")):
        model.save(str(tmp_path / name))
    cache, script = tmp_path / "cache", tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen(
        [
            *(sys.executable, str(script), str(tmp_path / "a"), str(tmp_path / "b"), json.dumps(texts)),
            *(str(BATCH_TOKENS), str(cache)),
        ],
        # As many threads as here: with others, sums differ in their last bits.
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    deadline = time.monotonic() + 300
    while len(list(cache.glob("*/*.safetensors"))) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stored = len(list(cache.glob("*/*.safetensors")))
    expected = run(a, b, texts)
    assert counted.since() == 2 * len(expected) > stored >= 3
    # What a kill amid writing leaves: half a file under another name.
    whole = next(cache.glob("*/*.safetensors"))
    half = whole.with_name(f".{whole.name}.1.partial")
    half.write_bytes(whole.read_bytes()[:100])
    assert_same_bits(run(a, b, texts, cache), expected)
    assert counted.since() == 2 * len(expected) - stored
    # It may belong to a process that is at work; later it is swept away.
    assert half.exists()
    os.utime(half, (time.time() - ABANDONED - 1,) * 2)
    StateCache(cache)
    assert not half.exists()


def test_a_folder_that_cannot_be_used_is_named(models, texts, tmp_path):
    (a, b, _), _ = models
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=r"cache: expected a folder, got the file .*file"):
        run(a, b, texts, file)
    key = batch_key("model", [[[1, 2]]])
    (tmp_path / key[:2]).write_text("in the way")
    with pytest.raises(InputError, match=r"cache: cannot write 0 MB to .*; free space there"):
        StateCache(tmp_path).write(key, {"tokens": torch.zeros(2)})
