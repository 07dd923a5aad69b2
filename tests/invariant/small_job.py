"""A small prepared job, and the worker's own steps over it."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from scheduler.signals import SkippedStep
from tests.tiny_tasks import write_tasks
from train.config import DataConfig, Parallelism, TinyModel, TrainConfig
from train.data.prepare import prepare
from train.data.store import EncodedRow, TokenStore
from train.micro_batches import MicroBatchLimits
from train.model import build_model, snapshot
from train.model_path import load_tokenizer
from train.parallel import lay_out
from train.schedule import StageTraining
from train.step import Stepper
from train.stream.batch import Batch
from train.stream.mixture import MixtureStream

NUM_STEPS, BATCH_SIZE, LEARNING_RATE, MAX_NORM = 30, 16, 5e-3, 0.5
MODEL = TinyModel(hidden_size=32, num_layers=2, num_heads=2, vocab_size=300)


class Curve(NamedTuple):
    """Mean loss per supervised token of every step, and weights, optimiser state and stepper after the last.

    Under fsdp2 rank 0 alone has weights, under either layout rank 0 alone has the optimiser's state.
    """

    losses: list[float]
    weights: dict[str, torch.Tensor]
    optimizer: Mapping[str, Any] = MappingProxyType({})
    num_halvings: int = 0
    skipped: tuple[SkippedStep, ...] = ()


class Job(NamedTuple):
    """A prepared corpus of three tasks and the batches of the first steps."""

    path: Path
    store: TokenStore
    tokenizer: Any
    batches: list[Batch]

    @classmethod
    def make(cls, folder: Path) -> "Job":
        """Prepare it."""
        from cluster.data import TrainedTokenizer  # the other processes of a group need none of this

        prepared = prepare(
            DataConfig.model_validate({"sources": [str(path) for path in write_tasks(folder / "data")]}),
            specs={},
            tokenizer_source=TrainedTokenizer(vocab_size=300),
            chat_template="auto",
            out_dir=folder,
            seed=0,
        )
        return cls.open(prepared.path)

    @classmethod
    def open(cls, path: Path) -> "Job":
        """The job of a prepared folder, in any process."""
        store = TokenStore.open(path / "store")
        num_rows = [store.num_rows(task) for task in range(len(store.task_names))]
        stream = MixtureStream(num_rows=num_rows, batch_size=BATCH_SIZE, seed=2)
        stream.set_weights([0.5, 0.3, 0.2])
        batches = [stream.next_batch() for _ in range(NUM_STEPS)]
        return cls(path, store, load_tokenizer(path / "tokenizer"), batches)

    def model(self) -> Any:
        """Equal weights at every call."""
        return build_model(MODEL, self.tokenizer, device=torch.device("cpu"), seed=1)

    def rows(self, batch: Batch) -> list[EncodedRow]:
        """The rows of a batch, in slot order."""
        places = zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True)
        return [self.store.encoded(task, row) for task, row in places]

    def train(
        self,
        config: TrainConfig,
        *,
        parallelism: Parallelism = "ddp",
        dtype: torch.dtype = torch.float32,
        begin: int = 0,
        end: int = NUM_STEPS,
        saved: Curve | None = None,
        meddle: Callable[[Any], object] = id,
    ) -> Curve:
        """Train the batches of [begin, end) as a worker does, in however many processes the group has.

        `saved` is what the steps before left, under any layout; `meddle` may put hooks on the model.
        """
        device = torch.device("cpu")

        def build(_: torch.device) -> Any:
            model = self.model().to(dtype)
            meddle(model)
            return model

        model, layout = lay_out(build, parallelism=parallelism, device=device)
        optimizer = torch.optim.AdamW(layout.parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        is_shared = dist.is_initialized()
        stepper = Stepper(
            rank=dist.get_rank() if is_shared else 0,
            world_size=dist.get_world_size() if is_shared else 1,
            device=device,
            model=model,
            layout=layout,
            optimizer=optimizer,
            tokenizer=self.tokenizer,
            store=self.store,
            model_config=MODEL,
            train_config=config,
            seed=0,
        )
        stage = StageTraining(
            learning_rate=LEARNING_RATE,
            warmup_steps=0,
            max_grad_norm=MAX_NORM,
            micro_batches=MicroBatchLimits(config.micro_batch_size, config.micro_batch_tokens),
        )
        if saved is not None:
            layout.load_weights(saved.weights)
            layout.load_optimizer_state(optimizer, copy.deepcopy(dict(saved.optimizer)))  # not shared with other ranks
        losses = []
        for batch in self.batches[begin:end]:
            stepper.train(batch, stage=stage, learning_rate=LEARNING_RATE)
            totals = stepper.tally.gather()
            losses.append(sum(totals.loss) / max(1, sum(totals.learnt_tokens)))
        weights = layout.weights() if parallelism == "fsdp2" else snapshot(model)  # every rank's own where it has one
        return Curve(losses, weights, layout.optimizer_state(optimizer), stepper.num_halvings, stepper.skipped.take())
