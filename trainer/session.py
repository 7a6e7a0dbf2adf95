"""One run on one rank, from the loaded base model to ``finished.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mtft import files, provenance
from mtft.config import Config
from mtft.errors import Diverged
from mtft.models import ModelCard
from trainer import evaluation, finish, host_memory, out_of_memory, published
from trainer.adapters import check_targets, make_trainable
from trainer.checkpoints import Checkpoints, is_complete, load_weights
from trainer.distributed import World, choose_precision, precision_name
from trainer.encoding import Encoder
from trainer.export import all_finite, export
from trainer.generation import Decoding
from trainer.loading import load_base
from trainer.loop import Loop
from trainer.pairs import TEST, Outputs, Pair, TestSet, sampled
from trainer.prepared_run import PreparedRun
from trainer.progress import Reporter
from trainer.reasons import tell_alone
from trainer.rows import TokenRows
from trainer.state import State
from trainer.training import ADVICE, Training


class Session:
    """Holds what a run needs and walks through its phases.

    Attributes:
        prepared_run: resolved configuration, card, paths and prepared data.
        world: this rank.
    """

    def __init__(self, run: PreparedRun, world: World) -> None:
        self.prepared_run = run
        self.config: Config = run.config
        self.card: ModelCard = run.card
        self.paths = run.paths
        self.world = world
        self.dtype = choose_precision(self.config, world.device)
        settings = self.config.eval
        self.memory_kills: int = world.broadcast(host_memory.kills(self.paths.logs) if world.is_main else 0)
        self.decoding = Decoding(
            beams=settings.beams, batch_tokens=settings.batch_tokens, dtype=self.dtype, parts=2**self.memory_kills
        )
        self.encoder = Encoder.load(self.card, self.config)
        self.dev_pairs: list[Pair] = run.pairs("dev", settings.max_dev_rows)
        self.sets: list[TestSet] = run.test_sets()

    def run(self) -> None:
        """Go through the whole run.

        Raises:
            Retry: asked to stop; a checkpoint holds what was done.
            Diverged: the loss is not finite.
        """
        checkpoints = Checkpoints(
            folder=self.paths.checkpoints,
            keep=self.config.checkpoint.keep,
            settings=self.prepared_run.training_settings,
        )
        with checkpoints.named_when_full(), self._reporter() as self.reporter:
            self._record_precision()
            base, base_outputs = self._base_and_outputs()
            self._open_rows(base)
            torch.manual_seed(self.config.train.seed)
            self.model: nn.Module = make_trainable(self.card, self.config, base)
            del base  # self.model alone holds it: _free_device lets go of it
            torch.manual_seed(self.config.train.seed + 1 + self.world.rank)  # dropout differs between ranks
            self.loop = Loop(self.config, self.world, self.model, self.rows, self.dtype)
            self._finish(self._train(checkpoints), base_outputs)

    def _train(self, checkpoints: Checkpoints) -> State:
        kills, reporter = self.memory_kills, self.reporter
        return Training(self.loop, checkpoints, kills, reporter, self.encoder, self._dev_scores).run()

    def _record_precision(self) -> None:
        """Add to the provenance what ``auto`` came to on this device."""
        if self.world.is_main:
            record = provenance.read(self.paths.provenance)
            files.write_json(self.paths.provenance, record | {"precision": precision_name(self.dtype)})

    def _open_rows(self, base: PreTrainedModel) -> None:
        start_id, pad_id = base.config.decoder_start_token_id, base.config.pad_token_id
        self.rows = TokenRows(self.prepared_run.prepared.train, pad_id=pad_id, start_id=start_id)
        self.dev_rows = TokenRows(self.prepared_run.prepared.dev, pad_id=pad_id, start_id=start_id)

    def _dev_scores(self) -> dict[str, Any]:
        settings = self.config.eval
        chosen = sampled(len(self.dev_rows), settings.max_nll_rows)
        nll = evaluation.mean_nll(
            self.model,
            self.dev_rows,
            chosen,
            self.world,
            dtype=self.dtype,
            batch_tokens=self.config.train.micro_batch_tokens,
            parts=self.decoding.parts,
        )
        texts, _ = evaluation.translate_pairs(self.model, self.encoder, self.dev_pairs, self.decoding, self.world)
        directions = evaluation.score_pairs(self.dev_pairs, texts) if self.world.is_main else None
        return {"nll": nll, "directions": self.world.broadcast(directions)}

    def _base_and_outputs(self) -> tuple[PreTrainedModel, Outputs]:
        """Return the base to train, and test and guard sets as the untouched base translates them.

        A restart reads what was translated the first time. Under qlora the base as published translates, not its
        4-bit form; it is gone before that is loaded.
        """
        path: Path = self.paths.eval / "base_outputs.json"
        floor = self.config.eval.min_base_bleu
        kept = self.world.broadcast(finish.read_base_outputs(path, self.sets) if self.world.is_main else None)
        base = None
        if kept is None:
            published = self.config.model_copy(update={"method": "lora"})
            base = load_base(self.card, published if self.config.method == "qlora" else self.config, self.world)
            check_targets(self.card, self.config, base)
            kept, limits = evaluation.translate_sets(base, self.encoder, self.sets, self.decoding, self.world)
            if self.world.is_main:
                finish.write_base_outputs(path, self.sets, kept)
                scores = evaluation.quick_scores(self.sets[0].pairs, kept[TEST])
                self.reporter.evaluation(0, "base_test", {"directions": scores, "length_limit": limits})
        if floor is not None:
            scores = evaluation.quick_scores(self.sets[0].pairs, kept[TEST]) if self.world.is_main else {}
            evaluation.check_base(self.world.broadcast(scores), floor)
        if base is None or self.config.method == "qlora":
            del base
            base = load_base(self.card, self.config, self.world)
        return base, kept

    def _finish(self, state: State, base_outputs: Outputs) -> None:
        if self.config.eval.early_stopping.patience and state.best.step:
            best = self.paths.checkpoints / f"step-{state.best.step}"
            if self.world.broadcast(self.world.is_main and is_complete(best)):
                load_weights(best, self.loop.parameters)
                self.reporter.say(f"the best dev score was at step {state.best.step}: its weights are taken")
            else:
                self.reporter.say(
                    f"{best.name}, the checkpoint of the best dev score, is damaged: the last weights stay"
                )
        elif self.config.eval.early_stopping.patience:
            self.reporter.say("no evaluation beat the untouched base: the last weights stay")
        if not all_finite(self.model):
            raise Diverged(f"training diverged: a trained weight is not a finite number. {ADVICE}")
        texts, limits = evaluation.translate_sets(self.model, self.encoder, self.sets, self.decoding, self.world)
        deliverable = None
        if self.world.is_main:
            deliverable = export(self.model, self.card, self.config, self.encoder, self.paths)
            evaluation.write_outputs(self.paths.eval, self.sets, base_outputs, texts)
        self._free_device()
        self._judge(state, base_outputs, texts, limits, deliverable)

    def _free_device(self) -> None:
        """Let go of the trained model and its optimizer, which are on disk: the published run may need their room."""
        del self.model, self.loop
        out_of_memory.release(self.world.device)

    def _judge(
        self,
        state: State,
        base_outputs: Outputs,
        texts: Outputs,
        limits: dict[str, float],
        deliverable: Path | None,
    ) -> None:
        """Judge, write the results and publish, again where another run was published meanwhile.

        Args:
            state: of the last step.
            base_outputs: test and guard sets as the base translates them.
            texts: the same of the tuned model.
            limits: share of test sentences that ran into the length limit, per direction.
            deliverable: what was exported; None on other ranks, which help to translate only.
        """
        facts = published.facts_of_sets(self.prepared_run, self.sets, self.decoding)
        rival = published.published(self.prepared_run, self.sets, facts, self.decoding, self.world)
        if deliverable is not None:
            tell_alone()
        while deliverable is not None:
            judgement = finish.judge(self.config, self.prepared_run.stats, self.sets, base_outputs, texts, rival)
            self.reporter.evaluation(state.step, "test", {"directions": judgement.tuned, "length_limit": limits})
            self.reporter.say(f"{judgement.gate['verdict']}: {'; '.join(judgement.gate['reasons'])}")
            if finish.write_results(self.prepared_run, state, judgement, deliverable, facts):
                return
            # The other ranks are gone: nothing can be translated anew.
            rival = published.on_file(self.prepared_run, self.sets, facts)
            self.reporter.say("another run was published meanwhile: judged again")

    def _reporter(self) -> Reporter:
        tracking = self.config.tracking
        return Reporter(
            self.paths.metrics,
            tensorboard=self.paths.logs if tracking.tensorboard else None,
            every=tracking.log_every_steps,
            device=self.world.device,
            quiet=not self.world.is_main,
        )
