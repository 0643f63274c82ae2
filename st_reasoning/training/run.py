"""From a recipe and a backbone to a trained embedder on disk."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.backbone import conversion_of, convert, fit_template, load_causal_lm, save_embedder
from st_reasoning.backbone.sources import stamp
from st_reasoning.checkpoints import Checkpoints, step_of
from st_reasoning.config import to_mapping
from st_reasoning.errors import ConversionError, InputError, unknown_name
from st_reasoning.files import content_hash, refuse_existing
from st_reasoning.training.data import TrainingData, load_data
from st_reasoning.training.held_out import evaluators, split

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor, nn

    from st_reasoning.training.recipe import TrainingRecipe
    from st_reasoning.training.trainer import RecipeTrainer


def build_trainer(
    recipe: TrainingRecipe,
    model: SentenceTransformer,
    *,
    seed: int,
    data: TrainingData | None = None,
    evaluator: Any = None,
    **arguments: Any,
) -> RecipeTrainer:
    """Build the SentenceTransformerTrainer that a recipe describes.

    Args:
        recipe: The recipe.
        model: An embedder made by :func:`st_reasoning.convert`.
        seed: Decides order, dropout and the initial weights of an adapter.
        data: The recipe's data where it is at hand; loaded otherwise.
        evaluator: One or several to run beside that on held-out examples.
        **arguments: Override single SentenceTransformerTrainingArguments.
    """
    import functools

    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from st_reasoning.training.batches import GlobalBatchSampler
    from st_reasoning.training.collate import InstructedCollator
    from st_reasoning.training.lora import add_lora, has_adapter
    from st_reasoning.training.progress import TrainingProgress
    from st_reasoning.training.trainer import RecipeTrainer

    data, held_out = split(data or load_data(recipe), recipe.held_out)
    # Whatever the model comes from, the prompt must end at a token boundary of its tokenizer.
    template = fit_template(model.tokenizer, recipe.instruction_template)
    given = evaluator if isinstance(evaluator, list) else [evaluator] if evaluator else []
    given = [*evaluators(held_out, template), *given]
    if recipe.lora is not None and not has_adapter(model):
        add_lora(model, recipe.lora, seed=seed)
    devices = world_size()
    defaults: dict[str, Any] = {
        # The trainer insists on a folder even when it is told to write no checkpoint.
        "output_dir": tempfile.gettempdir(),
        "save_strategy": "no",
        "per_device_train_batch_size": per_device(recipe.batch_size, devices),
        "multi_dataset_batch_sampler": functools.partial(GlobalBatchSampler, devices=devices),
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup if recipe.warmup < 1 else int(recipe.warmup),
        "lr_scheduler_type": recipe.schedule,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "bf16": recipe.bf16,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,  # ours shows the same and the speed
        "dataloader_pin_memory": torch.cuda.is_available(),
        # Every weight of a dense model has a gradient in every pass; looking for others costs a walk of the graph.
        "ddp_find_unused_parameters": _has_experts(model),
    }
    if recipe.gradient_checkpointing:
        defaults |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if given:
        every = recipe.held_out.every if recipe.held_out else 0.1  # of all steps
        defaults |= {"eval_strategy": "steps", "eval_steps": every, "eval_on_start": True}
    settings = SentenceTransformerTrainingArguments(**{**defaults, **arguments})
    if devices == 1:
        # Several GPUs without a launcher would be nn.DataParallel, which splits batches behind the sampler's back.
        settings._n_gpu = min(settings.n_gpu, 1)
    trainer = RecipeTrainer(
        model=model,
        args=settings,
        train_dataset=data.datasets,
        loss=build_loss(recipe, model, gather=devices > 1),
        evaluator=given or None,
        data_collator=InstructedCollator(
            preprocess_fn=model.preprocess,
            max_length=recipe.max_seq_length,
            template=template,
            tokenizer=model.tokenizer,
        ),
        callbacks=[TrainingProgress(recipe.batch_size)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def build_loss(
    recipe: TrainingRecipe, model: SentenceTransformer, *, gather: bool, prompts: tuple[str, ...] = ()
) -> nn.Module:
    """Build the loss that a recipe describes; for the arguments see :class:`PackedInfoNCE`."""
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    from st_reasoning.training.hybrid import HybridLoss
    from st_reasoning.training.loss import PackedInfoNCE

    loss: nn.Module = PackedInfoNCE(
        model,
        temperature=recipe.temperature,
        mini_batch_tokens=recipe.mini_batch_tokens,
        gather_across_devices=gather,
        false_negatives=recipe.false_negative_margin,
        prompts=prompts,
    )
    if recipe.matryoshka:
        width = int(model.get_embedding_dimension() or 0)
        wrong = [dimension for dimension in recipe.matryoshka if not 0 < dimension < width]
        if wrong:
            raise InputError(f"matryoshka: expected dimensions between 1 and {width - 1}, got {wrong[0]}")
        loss = MatryoshkaLoss(model, loss, [width, *sorted(recipe.matryoshka, reverse=True)])
    if recipe.next_token_weight:
        loss = HybridLoss(
            model,
            loss,
            weight=recipe.next_token_weight,
            head=_own_head(model),
            mini_batch_tokens=recipe.mini_batch_tokens,
        )
    return loss


def _has_experts(model: SentenceTransformer) -> bool:
    """Whether some weights may see no token of a batch."""
    transformer: Any = model[0].model
    settings = transformer.config.get_text_config().to_dict()
    return any("expert" in name and isinstance(value, int) and value > 1 for name, value in settings.items())


def _own_head(model: SentenceTransformer) -> Tensor | None:
    """Return the language-model head of the backbone, [vocabulary, width], or None where its embeddings are the head.

    The embedder does not have it any more, so the backbone is loaded once again.
    """
    transformer: Any = model[0].model
    if transformer.config.get_text_config().tie_word_embeddings:
        return None
    conversion = conversion_of(model)
    backbone: Any = load_causal_lm(conversion.backbone, dtype=conversion.dtype)[0]
    head: Tensor = backbone.get_output_embeddings().weight
    return head.detach().to(model.device)


def train(
    recipe: TrainingRecipe,
    backbone: str,
    output: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    device: str | None = None,
    keep_checkpoints: bool = False,
    **arguments: Any,
) -> dict[str, Any]:
    """Convert ``backbone``, train it by ``recipe`` and write the embedder to ``output``.

    With ``save_every`` in the recipe, checkpoints are written beside it, to ``OUTPUT.checkpoints``; the same call
    after an interruption goes on from the last one and ends with the same weights. TensorBoard's logs, if asked for by
    ``report_to``, go to ``OUTPUT.logs``, or where TENSORBOARD_LOGGING_DIR says. Started by ``accelerate launch`` or
    ``torchrun``, the processes share each batch.

    Args:
        recipe: The recipe.
        backbone: See :func:`st_reasoning.convert`.
        output: The folder to write.
        seed: Decides order, dropout and the initial weights of an adapter.
        overwrite: Whether to replace what is there, and checkpoints of another training.
        device: As for SentenceTransformer; by default what torch finds.
        keep_checkpoints: Leave them when the training is done.
        **arguments: As for :func:`build_trainer`.

    Returns:
        What happened: recipe, seed, data and its order, loss by step and scores, as recorded under ``training`` in the
        folder's record; and, in no record, the step it went on from, seconds and examples per second.

    Raises:
        InputError: for a backbone or data that cannot be read; nothing is written.
        ConversionError: if the conversion cannot be proven, or the loss is not finite.
    """
    refuse_existing(output, overwrite=overwrite)
    _refuse_unknown_trackers(arguments.get("report_to", "none"))
    data = load_data(recipe)
    model = convert(backbone, device=device or _own_gpu(), **recipe.conversion())
    order = _order(recipe, model, data, seed)
    checkpoints = Checkpoints(
        output.with_name(f"{output.name}.checkpoints"),
        content_hash([to_mapping(recipe), seed, stamp(backbone), data.hash, order]),
    )
    if recipe.save_every:
        arguments = {"save_strategy": "steps", "save_steps": recipe.save_every, **arguments}
        # Two: while one is being written, the one before is complete.
        arguments |= {"output_dir": str(checkpoints.folder), "save_total_limit": None if keep_checkpoints else 2}
    if device == "cpu":
        arguments = {"use_cpu": True, **arguments}
    with _logging_beside(output):
        trainer = build_trainer(recipe, model, seed=seed, data=data, **arguments)
    latest = None
    if recipe.save_every:
        with trainer.args.main_process_first(desc="looking for checkpoints"):
            checkpoints.claim(overwrite=overwrite)
            latest = checkpoints.latest()
    happened, progress = _run(trainer, recipe, latest, backbone)
    facts = {
        "backbone": backbone,
        "seed": seed,
        "recipe": to_mapping(recipe),
        "data": {
            "examples": data.examples,
            "hash": data.hash,
            "order": order,
            "bad_rows": data.bad_rows,
            "first_bad_rows": list(data.bad_row_names),
        },
        "devices": world_size(),
        **happened,
    }
    # Not how long it took and from where it went on: a folder that is known by its content must not change with them.
    _write(trainer, recipe, backbone, output, overwrite=overwrite, training=facts)
    # Without save_every, what has that name is not this training's.
    if recipe.save_every and trainer.is_world_process_zero() and not keep_checkpoints:
        checkpoints.remove()
    return {**facts, **progress}


def _run(
    trainer: RecipeTrainer, recipe: TrainingRecipe, latest: Path | None, backbone: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, and return what came of it, and how it went: what another run of the same would not repeat."""
    first = step_of(latest) if latest else 0
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    seconds = time.perf_counter() - start
    history = trainer.state.log_history
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    parts = {name: [float(entry[name]) for entry in history if name in entry] for name in ("contrastive", "next_token")}
    if not losses or not all(math.isfinite(loss) for loss in losses):
        raise ConversionError(f"training {backbone} gave no finite loss: {losses}")
    steps = trainer.state.global_step
    scores = [
        {
            name.removeprefix("eval_"): value
            for name, value in entry.items()
            if name not in ("epoch", "eval_runtime") and not name.endswith("_per_second")
        }
        for entry in history
        if any(name.startswith("eval_") for name in entry)
    ]
    happened = {
        "steps": steps,
        "losses": losses,
        **({"parts": parts} if parts["next_token"] else {}),
        "scores": scores,
    }
    return happened, {
        "resumed_at": first if latest else None,
        "seconds": round(seconds, 1),
        "examples_per_second": round((steps - first) * recipe.batch_size / seconds, 3),
    }


def _write(trainer: RecipeTrainer, recipe: TrainingRecipe, backbone: str, output: Path, **facts: Any) -> None:
    """Write the trained embedder once, from the first process."""
    from st_reasoning.training.lora import add_lora, merge_lora

    model: Any = trainer.model
    if trainer.is_fsdp_enabled:
        # Each process holds a part of every weight: put together, they go into a fresh copy on the first one's CPU.
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if trainer.is_world_process_zero():
            model = convert(backbone, device="cpu", **recipe.conversion())
            if recipe.lora is not None:
                add_lora(model, recipe.lora, seed=0)
            model.load_state_dict(weights)
    if trainer.is_world_process_zero():
        model.eval()
        merge_lora(model)
        save_embedder(model, output, **facts)
    trainer.accelerator.wait_for_everyone()


def _refuse_unknown_trackers(names: str | list[str]) -> None:
    """Refuse a tracker now that the trainer would refuse once everything is loaded."""
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in {names} - {"none", "all"} if isinstance(names, str) else names:
        if name not in known:
            raise unknown_name("tracker", name, known, where="report_to")
        if name not in integration_utils.get_available_reporting_integrations():  # type: ignore[no-untyped-call]
            raise InputError(f"reporting to {name} needs its package: pip install {name}")


@contextlib.contextmanager
def _logging_beside(output: Path) -> Iterator[None]:
    """Let a tracker that is made meanwhile log beside the output; by itself it would do so below the checkpoints."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(output.with_name(f"{output.name}.logs"))
    try:
        yield
    finally:
        del os.environ[name]


def _own_gpu() -> str | None:
    """Return the GPU of this process where a launcher has started several; else all would load onto the first."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def world_size() -> int:
    """Return how many processes a launcher has started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def per_device(batch_size: int, devices: int) -> int:
    """Return the examples per device of a batch over all of them.

    Raises:
        InputError: if they do not share it equally.
    """
    if batch_size % devices:
        raise InputError(f"batch_size must be a multiple of the {devices} processes that share it, got {batch_size}")
    return batch_size // devices


def _order(recipe: TrainingRecipe, model: SentenceTransformer, data: TrainingData, seed: int) -> str:
    """Return a hash of what the model will be shown, in order: examples, prompts, batches."""
    from st_reasoning.training.batches import order_hash

    trained, _ = split(data, recipe.held_out)
    devices = world_size()
    epochs = recipe.max_steps * recipe.batch_size / trained.examples if recipe.max_steps else recipe.epochs
    return order_hash(
        content_hash([data.hash, fit_template(model.tokenizer, recipe.instruction_template)]),
        [len(dataset) for dataset in trained.datasets.values()],
        batch_size=per_device(recipe.batch_size, devices),
        devices=devices,
        seed=seed,
        epochs=math.ceil(epochs),
    )
