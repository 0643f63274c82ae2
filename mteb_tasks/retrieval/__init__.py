"""Tasks of mteb's type Retrieval."""

from mteb_tasks.retrieval.gsm_symbolic import GSMSymbolicSolutionRetrieval

TASKS = (GSMSymbolicSolutionRetrieval,)
