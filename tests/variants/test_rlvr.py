"""Reinforcement learning with verifiable rewards, of a tiny LLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_reasoning.backbone import adapters, load_causal_lm
from st_reasoning.checkpoints import Checkpoints
from st_reasoning.errors import ConversionError, InputError
from st_reasoning.files import read_json
from st_reasoning.problems.verified import VerifiedProblem, verified_problems
from st_reasoning.variants import VARIANT_RECORD, LoRA, RLVRRecipe, SFTRecipe, fine_tune, reinforce
from st_reasoning.variants.accuracy import accuracy, complete, end_ids
from st_reasoning.variants.rlvr import _build_trainer, rewards_of
from st_reasoning.variants.saving import NOTHING_EARNED, card

pytest.importorskip("trl", reason="trains: pip install 'st-reasoning[variants]'")
pytest.importorskip("reasoning_gym", reason="draws the problems: pip install 'st-reasoning[demo]'")

# Short questions and short answers, of which one is far the commonest: something to learn within seconds.
DIVISORS = {"gcd": {"min_value": 1, "max_value": 30}}


@pytest.fixture(scope="module")
def taught(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLM that gives answers in the right form, mostly wrong ones."""
    out = tmp_path_factory.mktemp("taught") / "taught"
    recipe = SFTRecipe(
        families=DIVISORS,
        examples=100,
        batch_size=10,
        epochs=10,
        learning_rate=1e-2,
        check_examples=20,
        check_new_tokens=0,
    )
    fine_tune(recipe, str(tiny_llm), out)
    return out


def recipe(**values: object) -> RLVRRecipe:
    known = {
        "families": DIVISORS, "problems": 60, "steps": 6, "group": 4, "batch_size": 16, "learning_rate": 1e-3,
        "max_new_tokens": 6, "check_problems": 20, "save_every": 0,
    }  # fmt: skip
    return RLVRRecipe(**{**known, **values})


def test_a_variant_is_an_ordinary_llm_with_its_accuracies(taught: Path, tmp_path: Path):
    out = tmp_path / "variant"
    facts = reinforce(recipe(), str(taught), out)
    assert len(facts["rewards"]) == 6
    assert all(0 <= reward <= 1 for reward in facts["rewards"])
    assert facts["accuracy"]["after"]["families"].keys() == {"gcd"}
    assert read_json(out / VARIANT_RECORD)["accuracy"] == facts["accuracy"]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| gcd | 20 |" in card
    assert str(taught) in card
    assert AutoTokenizer.from_pretrained(out)("3 + 4")["input_ids"]
    # What is recorded is what the folder does.
    model, tokenizer = load_causal_lm(str(out))
    check = verified_problems(DIVISORS, 20, seed=3, held_out=True)
    again = accuracy(model, tokenizer, check, max_new_tokens=6, seed=0, progress=False)
    assert again["greedy"] == facts["accuracy"]["after"]["greedy"]
    assert list(out.glob("*.bin")) == []
    assert not out.with_name("variant.checkpoints").exists()


def test_what_is_rewarded_becomes_likelier(taught: Path, tmp_path: Path):
    """More steps on few problems: the policy learns the answers that were paid."""
    out = tmp_path / "longer"
    few = recipe(problems=8, steps=25, group=8, batch_size=32, learning_rate=1e-3)
    facts = reinforce(few, str(taught), out)
    early, late = facts["rewards"][:8], facts["rewards"][-8:]
    assert sum(late) / 8 > sum(early) / 8 + 0.1


def test_stopped_and_resumed_it_ends_with_the_same_weights(taught: Path, tmp_path: Path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    reinforce(recipe(save_every=2), str(taught), whole)
    import trl

    original = trl.GRPOTrainer.training_step

    def until_step_five(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(trl.GRPOTrainer, "training_step", until_step_five)
    with pytest.raises(KeyboardInterrupt):
        reinforce(recipe(save_every=2), str(taught), stopped)
    monkeypatch.setattr(trl.GRPOTrainer, "training_step", original)
    assert not stopped.exists()
    facts = reinforce(recipe(save_every=2), str(taught), stopped)
    assert facts["resumed_at"] == 4
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(InputError, match=r"not empty|exists"):
        reinforce(recipe(), str(taught), stopped)


def test_added_weights_are_merged(taught: Path, tmp_path: Path):
    out = tmp_path / "lora"
    facts = reinforce(recipe(steps=2, lora=LoRA(rank=2, alpha=4)), str(taught), out)
    assert facts["recipe"]["lora"]["rank"] == 2
    names = load_file(out / "model.safetensors").keys()
    assert names == load_file(taught / "model.safetensors").keys()
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "llama"


def test_the_reward_is_the_verifier():
    completions = ["#### 7", "#### 8", "7", "#### 7 or 8"]
    assert rewards_of(completions, family=["gcd"] * 4, answer=["7"] * 4, prompts=["q"] * 4) == [1, 0, 0, 0]


def test_completions_do_not_depend_on_the_batch_they_are_in(taught: Path):
    model, tokenizer = load_causal_lm(str(taught))
    problems = [VerifiedProblem("gcd", text, "", "1") for text in ("1 + 1 =", "What is 12 + 7 - 3 + 8 - 2?", "7")]
    together = complete(model, tokenizer, problems, max_new_tokens=12)
    alone = [complete(model, tokenizer, [problem], max_new_tokens=12)[0] for problem in problems]
    assert together == alone


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match="batch_size must be a multiple of group"):
        RLVRRecipe(group=3, batch_size=8)
    with pytest.raises(InputError, match="steps must be positive"):
        RLVRRecipe(steps=0)
    with pytest.raises(InputError, match="lora: rank and alpha must be at least 1"):
        LoRA(rank=0)


def test_a_completion_that_was_cut_earns_nothing(taught: Path):
    """What is left of "#### 47" may be the right answer to another question."""
    model, tokenizer = load_causal_lm(str(taught))
    rows = [{"prompt": "q\n", "family": "gcd", "answer": "4"}]
    trainer = _build_trainer(recipe(), model, tokenizer, rows, Checkpoints(Path("none"), ""))
    (reward,) = trainer.reward_funcs
    ids = [tokenizer("#### 4", add_special_tokens=False)["input_ids"]] * 2
    ids[1] = [*ids[1], tokenizer.eos_token_id]
    assert reward(["#### 4"] * 2, completion_ids=ids, family=["gcd"] * 2, answer=["4"] * 2) == [0, 1]


def test_every_token_that_the_model_ends_with_is_an_end(taught: Path):
    """An instruction-tuned model ends its turn with another token than the tokenizer's end of text."""
    model, tokenizer = load_causal_lm(str(taught))
    other = tokenizer("#", add_special_tokens=False)["input_ids"][0]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, other]
    assert end_ids(model, tokenizer) == [tokenizer.eos_token_id, other]
    rows = [{"prompt": "q\n", "family": "gcd", "answer": "4"}]
    trainer = _build_trainer(recipe(), model, tokenizer, rows, Checkpoints(Path("none"), ""))
    (reward,) = trainer.reward_funcs
    assert reward(["#### 4"], completion_ids=[[other]], family=["gcd"], answer=["4"]) == [1]
    ((found,),) = complete(model, tokenizer, [VerifiedProblem("gcd", "1", "", "1")], max_new_tokens=6)
    assert found.ended


def test_the_accuracy_counts_and_names_what_was_cut(taught: Path):
    model, tokenizer = load_causal_lm(str(taught))
    problems = verified_problems(DIVISORS, 20, seed=3, held_out=True)
    room, none = (
        accuracy(model, tokenizer, problems, max_new_tokens=length, samples=1, progress=False) for length in (6, 1)
    )
    assert room["cut"] < 0.5
    assert (none["cut"], none["greedy"], none["sampled"]) == (1, 0, 0)


def test_a_run_in_which_nothing_was_earned_says_so(tiny_llm: Path, tmp_path: Path):
    facts = reinforce(recipe(steps=1), str(tiny_llm), tmp_path / "untaught")
    assert facts["rewards"] == [0]
    assert NOTHING_EARNED in (tmp_path / "untaught" / "README.md").read_text(encoding="utf-8")
    assert NOTHING_EARNED not in card({**facts, "rewards": [0, 0.25]})


def test_weights_that_do_not_merge_exactly_are_refused(taught: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(adapters, "distance", lambda first, second: float("nan"))
    with pytest.raises(ConversionError, match="merging the trained LoRA weights changes final states by nan"):
        reinforce(recipe(steps=1, lora=LoRA(rank=2, alpha=4)), str(taught), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
