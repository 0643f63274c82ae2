"""The stack of layers inside a transformers model, and which of its layers are of one kind."""

from __future__ import annotations

from typing import Any


def decoder_layers(transformer: Any) -> list[Any]:
    """Return the stack of layers of a transformers model: its longest list of modules, [L]; empty if there is none."""
    import torch

    stacks = [list(module) for module in transformer.modules() if isinstance(module, torch.nn.ModuleList)]
    count = getattr(transformer.config.get_text_config(), "num_hidden_layers", None)
    stacks = [stack for stack in stacks if len(stack) == count]
    return stacks[0] if stacks else []


def distinct_depth(transformer: Any) -> int:
    """Return how many of the first layers show every kind: the rest are of the same classes with the same settings.

    Layers of one kind run the same code on the same mask; only their weights and their number differ.
    """
    kinds = [_kind(layer) for layer in decoder_layers(transformer)]
    return max((kinds.index(kind) + 1 for kind in kinds), default=0)


def _kind(layer: Any) -> tuple[Any, ...]:
    """Return what decides what a layer does, but for its weights: classes and plain settings of all its modules."""

    def settings(module: Any) -> tuple[Any, ...]:
        plain = ((name, value) for name, value in vars(module).items() if isinstance(value, (bool, int, float, str)))
        # The number of a layer is an int called layer_idx, layer_id, ...
        return tuple(
            (n, v) for n, v in plain if n[0] != "_" and n != "training" and not ("layer" in n and type(v) is int)
        )

    return tuple((name, type(module), settings(module)) for name, module in layer.named_modules())
