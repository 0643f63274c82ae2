"""What the issue promises of stock mteb, each said by running it: with the hook and nothing imported by the user."""

import json

import pytest

from mteb_tasks.benchmarks import BUILDERS
from mteb_tasks.catalogue import GENERATED, HUB

NAMES = [task.metadata.name for task in (*GENERATED, *HUB)]
GENERATED_BENCHMARK = "ReasoningEmbedding(generated, v1)"


def words(text):
    return "".join(text.split())


def test_the_commands_list_our_tasks_and_benchmarks(hooked, tmp_path):
    tasks, _ = hooked.mteb("available-tasks", "--tasks", *NAMES, cwd=tmp_path)
    assert all(name in words(tasks) for name in NAMES)
    everything, _ = hooked.mteb("available-tasks", cwd=tmp_path)
    assert all(name in words(everything) for name in NAMES)
    benchmarks, _ = hooked.mteb("available-benchmarks", cwd=tmp_path)
    assert all(words(name) in words(benchmarks) for name in BUILDERS)


def test_the_functions_know_them_whatever_is_imported_first(hooked, tmp_path):
    code = (
        "import sys, json\n"
        "{imports}\n"
        "print(json.dumps([sorted(t.metadata.name for t in mteb.get_tasks()),\n"
        "    [len(mteb.get_benchmark(name).tasks) for name in {benchmarks}],\n"
        "    mteb.get_benchmark('MTEB(eng, v2)').name]))"
    )
    answers = [
        hooked("-c", code.format(imports=imports, benchmarks=list(BUILDERS)), cwd=tmp_path)[0]
        for imports in ("import mteb", "import mteb_tasks, mteb", "import mteb, mteb_tasks")
    ]
    assert answers[0] == answers[1] == answers[2]
    tasks, lengths, theirs = json.loads(answers[0])
    assert set(NAMES) <= set(tasks)
    assert len(tasks) == len(set(tasks))
    assert lengths == [len(GENERATED), len(HUB), 162]
    assert theirs == "MTEB(eng, v2)"


def test_without_the_hook_importing_our_package_does_the_same(plain, tmp_path):
    code = (
        "import mteb\ntry: mteb.get_task({name!r})\nexcept KeyError: print('unknown')\n"
        "mteb.get_benchmark('MTEB(eng, v2)')\n"  # mteb's table is built before ours is added
        "import mteb_tasks; print(mteb.get_task({name!r}).metadata.name, mteb.get_benchmark({benchmark!r}).name)"
    )
    out, _ = plain("-c", code.format(name=NAMES[0], benchmark=GENERATED_BENCHMARK), cwd=tmp_path)
    assert out == f"unknown\n{NAMES[0]} {GENERATED_BENCHMARK}\n"


def test_spawned_workers_know_them(hooked, tmp_path):
    (tmp_path / "worker.py").write_text(
        "def names(task, benchmark):\n"
        "    import mteb\n"
        "    return mteb.get_task(task).metadata.name, mteb.get_benchmark(benchmark).name\n"
    )
    (tmp_path / "main.py").write_text(
        "import multiprocessing, worker\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        f"        print(*pool.apply(worker.names, ({NAMES[0]!r}, {GENERATED_BENCHMARK!r})))\n"
    )
    out, _ = hooked(tmp_path / "main.py", cwd=tmp_path)
    assert out == f"{NAMES[0]} {GENERATED_BENCHMARK}\n"


def test_the_switch_leaves_stock_mteb_alone(hooked, tmp_path):
    code = (
        "import sys, mteb\nmteb.get_benchmarks()\nprint('mteb_tasks' in sys.modules)\n"
        f"print({NAMES[0]!r} in sys.modules['mteb.get_tasks']._TASKS_REGISTRY)\n"
        f"try: mteb.get_benchmark({GENERATED_BENCHMARK!r})\nexcept KeyError: print('unknown')"
    )
    assert hooked("-c", code, cwd=tmp_path, ST_REASONING_MTEB="0")[0] == "False\nFalse\nunknown\n"


def test_our_command_is_theirs_with_our_additions(plain, tmp_path):
    ours = ("-m", "st_reasoning.cli", "mteb")
    tasks, _ = plain(*ours, "available-tasks", "--tasks", NAMES[0], cwd=tmp_path, ST_REASONING_MTEB="0")
    assert NAMES[0] in words(tasks)
    benchmarks, _ = plain(*ours, "available-benchmarks", "-b", GENERATED_BENCHMARK, cwd=tmp_path)
    assert words(GENERATED_BENCHMARK) in words(benchmarks)
    usage, _ = plain(*ours, "run", "--help", cwd=tmp_path)
    assert usage.startswith("usage: st-reasoning mteb run [-h] [-m MODEL]")
    _, refused = plain(*ours, "run", "-m", "./typo", "-t", NAMES[0], cwd=tmp_path, code=2)
    assert refused.splitlines()[-1] == "Error: no such folder: ./typo; expected a sentence-transformers model"
    _, wrong = plain(*ours, "no-such-command", cwd=tmp_path, code=2)
    assert "invalid choice: 'no-such-command'" in wrong


@pytest.mark.parametrize("missing", ["mteb.benchmarks.get_benchmark:_build_registry", "mteb.get_tasks:TASK_LIST"])
def test_an_mteb_with_other_internals_gets_one_warning_and_works(hooked, tmp_path, missing):
    # The hook loads our package at the end of mteb's import: take the internal away just before.
    module, name = missing.split(":")
    code = (
        "import sys, warnings, _st_reasoning_mteb as hook\n"
        "load = hook.load_tasks\n"
        f"def taken_away(): delattr(sys.modules[{module!r}], {name!r}); load()\n"
        "hook.load_tasks = taken_away\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always'); import mteb\n"
        "ours = [str(w.message) for w in caught if 'st-reasoning' in str(w.message)]\n"
        "print(len(ours), mteb.get_task('STS12').metadata.name); print(ours[0])"
    )
    out, _ = hooked("-c", code, cwd=tmp_path)
    assert out.startswith("1 STS12\nst-reasoning 0.1.0 does not fit mteb 2.")
    assert name in out
