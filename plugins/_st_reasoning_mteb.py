"""Load ``mteb_tasks`` as soon as somebody has imported ``mteb``.

mteb has no entry points, so only programs that import ``mteb_tasks`` themselves could name a task of ours;
the ``mteb`` command does not. The file ``st_reasoning_mteb.pth`` beside this module calls :func:`install`
whenever Python starts. What happens then must be cheap and must not fail: nothing is imported but ``os`` and
``sys``, which Python has loaded already, and one finder is put in front of ``sys.meta_path``.

Set the environment variable ``ST_REASONING_MTEB=0`` to leave mteb alone. ``import mteb_tasks`` and the
``st-reasoning`` command register the same additions without this hook.
"""

import os
import sys

SWITCH = "ST_REASONING_MTEB"


def install() -> None:
    """Wait for the import of mteb, unless told not to or waiting already."""
    if os.environ.get(SWITCH) != "0" and not any(isinstance(finder, WaitForMteb) for finder in sys.meta_path):
        sys.meta_path.insert(0, WaitForMteb())


class WaitForMteb:
    """A finder that finds only mteb, by asking the others, and has ``mteb_tasks`` loaded after it."""

    def find_spec(self, fullname, path=None, target=None):
        """Return mteb's own spec with one step appended to its execution; None for every other name."""
        if fullname != "mteb":
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    self._append_step(spec.loader)
                return spec
        return None

    def _append_step(self, loader) -> None:
        execute = loader.exec_module

        def execute_and_load_tasks(module) -> None:
            # The loader stays with the module, and importlib.resources asks it for files: take our step out.
            vars(loader).pop("exec_module", None)
            execute(module)
            # Not earlier: a look-up that imports nothing, or an import that fails, must leave us waiting.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            load_tasks()

        loader.exec_module = execute_and_load_tasks


def load_tasks() -> None:
    """Import ``mteb_tasks``; whatever goes wrong there is a warning, for mteb's users came for mteb."""
    try:
        import mteb_tasks  # noqa: F401
    except Exception as error:
        # Deinstalled by hand, with this hook left behind: there is nothing to offer and nothing to repair.
        if isinstance(error, ModuleNotFoundError) and error.name in ("mteb_tasks", "st_reasoning"):
            return
        import warnings

        warnings.warn(
            f"st-reasoning could not add its tasks to mteb ({type(error).__name__}: {error}); "
            f"mteb works without them. Set {SWITCH}=0 to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
