"""The hook: cheap, silent, and in place whatever is imported first.

Its logic is tested on a stand-in for mteb of one line, through the very ``.pth`` file; stock mteb follows
where the project is installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
TASK = "GSMSymbolicSolutionRetrieval"


def run_python(*arguments, **environment):
    variables = {key: value for key, value in os.environ.items() if key != "ST_REASONING_MTEB"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=110, env={**variables, "HF_HUB_OFFLINE": "1", **environment},
    )  # fmt: skip


@pytest.fixture
def stand_in(tmp_path):
    """Run code after the .pth file, with one-line packages named mteb and mteb_tasks."""
    (tmp_path / "mteb.py").write_text(
        "import os\ntasks = []\nif os.environ.get('FAIL'): raise OSError('mteb is broken')\n"
    )
    (tmp_path / "mteb_tasks.py").write_text("import mteb\nmteb.tasks.append('ours')\n")

    def run(code, plugins=PLUGINS, **environment):
        start = f"import site, sys; sys.path.insert(0, {str(tmp_path)!r}); site.addsitedir({str(plugins)!r})\n"
        done = run_python("-I", "-c", start + code, **environment)
        return done.stdout.strip() or done.stderr.strip()

    return run


@pytest.mark.parametrize("order", ["import mteb", "import mteb_tasks, mteb", "import mteb, mteb_tasks"])
def test_both_orders_load_the_tasks_once(stand_in, order):
    assert stand_in(f"{order}; print(mteb.tasks)") == "['ours']"


def test_installing_twice_is_installing_once(stand_in):
    again = f"site.addsitedir({str(PLUGINS)!r}); "
    count = "print(sum(type(finder).__name__ == 'WaitForMteb' for finder in sys.meta_path)); "
    assert stand_in(again + count + "import mteb; print(mteb.tasks)") == "1\n['ours']"


def test_the_switch(stand_in):
    assert stand_in("import mteb; print(mteb.tasks)", ST_REASONING_MTEB="0") == "[]"
    assert stand_in("import mteb; print(mteb.tasks)", ST_REASONING_MTEB="1") == "['ours']"


def test_looking_for_mteb_does_not_disarm_the_hook(stand_in):
    look = "import importlib.util; importlib.util.find_spec('mteb'); print('mteb' in sys.modules); "
    assert stand_in(look + "import mteb; print(mteb.tasks)") == "False\n['ours']"


def test_a_failed_import_of_mteb_does_not_disarm_the_hook(stand_in):
    fail = "import os\ntry: import mteb\nexcept OSError as error: print(error)\n"
    assert (
        stand_in(fail + "del os.environ['FAIL']; import mteb; print(mteb.tasks)", FAIL="1")
        == "mteb is broken\n['ours']"
    )


def test_nothing_is_left_behind(stand_in):
    code = (
        "import mteb\n"
        "print(*(type(finder).__name__ == 'WaitForMteb' for finder in sys.meta_path[:1]))\n"
        "print('exec_module' in vars(mteb.__loader__))"
    )
    assert stand_in(code) == "False\nFalse"


def test_what_goes_wrong_in_our_tasks_is_a_warning(stand_in, tmp_path):
    (tmp_path / "mteb_tasks.py").write_text("raise RuntimeError('ours is broken')\n")
    code = (
        "import warnings\nwith warnings.catch_warnings(record=True) as caught: import mteb\n"
        "print(mteb.tasks, *(warning.message for warning in caught))"
    )
    expected = "[] st-reasoning could not add its tasks to mteb (RuntimeError: ours is broken); mteb works"
    assert stand_in(code).startswith(expected)


def test_half_an_uninstallation_is_silent(stand_in, tmp_path):
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "st_reasoning_mteb.pth").write_bytes((PLUGINS / "st_reasoning_mteb.pth").read_bytes())
    # Installed in the running interpreter, the module would be found there instead.
    absent = "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; "
    assert (
        stand_in(absent + f"site.addsitedir({str(lonely)!r}); print('started')", plugins=tmp_path / "none") == "started"
    )
    (tmp_path / "mteb_tasks.py").unlink()
    assert stand_in(absent + "import mteb; print(mteb.tasks)") == "[]"


def test_python_starts_with_no_more_than_the_hook_itself():
    # Time depends on the machine; what is imported does not.
    code = (
        "import site, sys; before = set(sys.modules)\n"
        f"site.addsitedir({str(PLUGINS)!r}); print(*sorted(set(sys.modules) - before))"
    )
    new = set(run_python("-I", "-S", "-c", code).stdout.split())
    assert new == {"_st_reasoning_mteb"}


HOOK = Path(sysconfig.get_path("purelib")) / "st_reasoning_mteb.pth"
installed = pytest.mark.skipif(
    not HOOK.is_file(),
    reason=f"the hook is not installed in {HOOK.parent}: pip install . (CI does, and runs these)",
)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    path = Path(__file__).parents[1] / "mteb_tasks" / "tiny_embedder.py"
    spec = importlib.util.spec_from_file_location("tiny_embedder_for_plugins", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.save_tiny_embedder(tmp_path_factory.mktemp("models") / "tiny")


@installed
def test_stock_mteb_runs_a_local_folder_on_our_task(embedder, tmp_path):
    pytest.importorskip("reasoning_gym")
    done = run_python(
        "-m",
        "mteb",
        "run",
        "-m",
        embedder,
        "-t",
        TASK,
        "--output-folder",
        tmp_path / "out",
        "--no-co2-tracker",
    )
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out" / "results").glob(f"local__tiny/*/{TASK}.json")
    (scores,) = json.loads(file.read_text())["scores"]["test"]
    assert 0 < scores["main_score"] == scores["ndcg_at_10"] <= 1


@installed
def test_stock_mteb_lists_our_task():
    done = run_python("-m", "mteb", "available-tasks", "--tasks", TASK)
    assert done.returncode == 0, done.stderr
    assert TASK in "".join(done.stdout.split())


@installed
def test_import_mteb_knows_the_task_and_does_not_load_torch():
    code = f"import sys, mteb; print('torch' in sys.modules, mteb.get_task({TASK!r}).metadata.name)"
    assert run_python("-c", code).stdout.strip() == f"False {TASK}"


@installed
def test_stock_mteb_is_left_alone_when_told_so():
    code = (
        "import sys, mteb; tables = sys.modules['mteb.get_tasks']\n"
        f"print('mteb_tasks' in sys.modules, {TASK!r} in tables._TASKS_REGISTRY)"
    )
    assert run_python("-c", code, ST_REASONING_MTEB="0").stdout.strip() == "False False"


@installed
def test_the_wheel_installs_no_common_top_level_name():
    for name in ("plugins", "tests", "recipes"):
        assert not (HOOK.parent / name).exists()
