"""The trainer of sentence-transformers, with checkpoints that a killed run can go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from torch import nn

from st_reasoning.checkpoints import mark_complete
from st_reasoning.errors import InputError
from st_reasoning.training.lora import has_adapter

ADAPTER = "adapter.safetensors"


def wrap_layers(plugin: Any, model: Any) -> None:
    """Let FSDP shard ``model`` layer by layer, unless its configuration names modules.

    By default accelerate asks the model for the classes of its layers, and a SentenceTransformer names none: it would
    be gathered as a whole in every forward pass, and nothing would be saved.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = sorted(model[0].model._no_split_modules or ())


class RecipeTrainer(SentenceTransformerTrainer):
    """A SentenceTransformerTrainer whose checkpoints say when they are complete, with LoRA too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.is_fsdp_enabled:
            wrap_layers(self.accelerator.state.fsdp_plugin, self.model)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            mark_complete(Path(str(self.args.output_dir)), self.state.global_step)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not has_adapter(self.model):
            super()._save(output_dir, state_dict)
            return
        # The library would write an adapter folder: reloaded, it takes the base's config and is causal again.
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._trained(), folder / ADAPTER)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override] # as its parent's
        if not has_adapter(self.model):
            super()._load_from_checkpoint(checkpoint_path)
            return
        stored = load_file(Path(checkpoint_path) / ADAPTER)
        if stored.keys() != self._trained().keys():
            raise InputError(f"{checkpoint_path} holds other LoRA weights than this recipe trains")
        self.model.load_state_dict(stored, strict=False)

    def _trained(self) -> dict[str, Any]:
        return {
            name: value.detach().contiguous() for name, value in self.model.named_parameters() if value.requires_grad
        }
