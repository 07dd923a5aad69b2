"""What a worker does so that its work outlives it: checkpoints, notices of its end, the result.

    boundary ─► notices (any rank told to go? storage lost?) ─► checkpoint when due or asked for ─► heed the notices
    end      ─► export the last weights, or the best ─► wait until everything is durable

Every rank has one; rank 0, which has the coordinator, writes, and the others take part where all must agree.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from scheduler.errors import PreemptedError
from scheduler.selection import Ranked
from scheduler.setup import EngineSetup
from train.checkpoint import Manifest
from train.checkpoint_store import CheckpointStore
from train.config import TrainConfig
from train.coordination import Coordinator
from train.export import export_merged, export_model
from train.notices import Notices, gather_notices, was_told_to_end

logger = logging.getLogger(__name__)

_NOTICE_GRACE_S = 20.0


def num_kept(train: TrainConfig, setup: EngineSetup) -> int:
    """How many of the newest checkpoints stay: also those that a run may go back to for a task past its peak."""
    reach = math.ceil(setup.evaluations_gone_back / train.checkpoint_every_intervals)
    return max(train.keep_checkpoints, 1 + reach)


class Safekeeping:
    """See the module docstring.

    Attributes:
        store: The run's checkpoints.
        problem: What is not durable and why; empty while storage works.
        selects: Checkpoints are scored on rows held out for choosing among them.
    """

    def __init__(
        self,
        store: CheckpointStore,
        coordinator: Coordinator | None,
        config: TrainConfig,
        *,
        interval_steps: int,
        has_selection_rows: bool,
    ) -> None:
        self.store = store
        self.problem = ""
        self.selects = config.select_by != "last" and has_selection_rows
        self._coordinator, self._config = coordinator, config
        self._every_steps = config.checkpoint_every_intervals * interval_steps
        self._also_due = {*config.checkpoint_at, config.stop_after}
        self._node_goes_heeded = self._end_heeded = False
        self._missed: set[int] = set()

    def is_due(self, step: int) -> bool:
        """A checkpoint is taken at this boundary whatever else happens."""
        return step > 0 and (step % self._every_steps == 0 or step in self._also_due)

    def hear(self) -> Notices:
        """What any rank was told, the same on every rank; the ledger hears what storage did."""
        return gather_notices(storage_is_lost=self._note_storage())

    def asks_for_checkpoint(self, notices: Notices) -> bool:
        """These notices want a checkpoint that was not taken for them yet."""
        node_goes = notices.node_goes and not self._node_goes_heeded
        return node_goes or (notices.told_to_end and not self._end_heeded)

    def take(self, manifest: Manifest, *, weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, Any]) -> None:
        """Take a checkpoint; rank 0 only. It becomes durable while training goes on."""
        assert self._coordinator is not None
        if self.selects:
            ranked = self._coordinator.ranking(self._config.select_by)
            if ranked:  # nothing comes from an engine that does not answer just now
                self.store.best_step = ranked[0].step
        self.store.write(manifest, weights=weights, optimizer=optimizer)

    def go_back(self, to_step: int, step: int) -> bool:
        """Remove the checkpoints after `to_step`, so that the next group begins there; rank 0 only.

        At step 0 it begins anew. Returns False, and has the ledger say so, where no checkpoint is left that old.
        """
        assert self._coordinator is not None
        self._drain(self._config.storage_patience_s)
        if self.store.remove_after(to_step):
            return True
        if to_step not in self._missed:
            self._missed.add(to_step)
            self._coordinator.note_storage(
                step, f"no checkpoint of step {to_step} or before is left, so the run does not go back there"
            )
        return False

    def heed(self, notices: Notices, step: int) -> None:
        """A worker is about to go: let the checkpoint of `step` reach storage first. One that got SIGTERM then ends.

        Raises:
            PreemptedError: This process was told to end.
        """
        if self.asks_for_checkpoint(notices) and self._coordinator is not None:
            self._drain(_NOTICE_GRACE_S)
        self._node_goes_heeded, self._end_heeded = notices.node_goes, notices.told_to_end
        if notices.told_to_end:
            if dist.is_initialized():
                dist.barrier()
            if was_told_to_end():
                raise PreemptedError(f"a worker was told to end (SIGTERM); its group goes on from step {step}")

    def export(self, model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, *, step: int) -> None:
        """Write the result into `folder`, rank 0 only: the weights of `step`, which are the last, or the best ones."""
        assert self._coordinator is not None
        chosen = Ranked(step, "they are the last")
        if self._config.export == "best":
            self._coordinator.settle()
            ranked = self._coordinator.ranking(self._config.select_by)
            chosen = self.store.load_best(model, ranked, last=chosen)
        export_model(model, tokenizer, folder)
        if self._config.export_merged and isinstance(model, PeftModel):
            export_merged(model, tokenizer, folder.with_name("merged"))
        self._coordinator.settle()  # the last signals stand before it in every equal run's ledger
        self._coordinator.note_export(chosen.step, chosen.why)

    def finish(self, *, storage_is_lost: bool) -> bool:
        """Wait, bounded, until everything is durable, and say whether it is; rank 0 only."""
        is_durable = self._drain(0.0 if storage_is_lost else self._config.storage_patience_s)
        self._note_storage()
        self.store.close()
        return is_durable

    def _drain(self, timeout_s: float) -> bool:
        is_durable = self.store.drain(timeout_s)
        if not is_durable:
            self.problem = self.problem or "the upload takes longer than it was given"
            logger.warning("the newest checkpoint is not in %s: %s", self.store.storage, self.problem)
        return is_durable

    def _note_storage(self) -> bool:
        """Tell the ledger what storage did; returns whether the run must not go on without it."""
        if self._coordinator is None:
            return False
        for news in self.store.news():
            self._coordinator.note_storage(news.step, news.text)
            self.problem = news.text
        behind, most = self.store.num_behind, self._config.max_undurable_checkpoints
        if behind == 0:
            self.problem = ""
        elif self.problem and behind > 1:
            logger.warning("the last %d checkpoints are not in %s: %s", behind, self.store.storage, self.problem)
        return most is not None and behind >= most and bool(self.problem)
