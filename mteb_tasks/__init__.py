"""Reasoning tasks and local models for mteb; importing this package makes the running mteb know them.

A file per task, in a folder per mteb task type (``retrieval/gsm_symbolic.py``); ``catalogue.py`` names them all.
"""

# mteb comes first: half-imported it has no registries, and with the hook of plugins/ installed this very line
# is what sets off the import of mteb_tasks.
import mteb

from mteb_tasks.registration import plug_in

__all__ = ["plug_in"]

plug_in(mteb)
