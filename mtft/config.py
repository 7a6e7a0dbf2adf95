"""The one schema: every setting of a run, its unit, its bounds and its built-in default.

It feeds the files users write, ``--set``, the JSON Schema, docs/reference.md and the config a job mounts.
Values are checked as written: text is never read as a number, and ``true`` is not 1.
Rules that need a device, a file or a cluster are not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mtft.cluster_config import ClusterConfig
from mtft.cluster_names import DnsLabel
from mtft.models import MODELS
from mtft.parts import LARGEST, Natural, Part, PathText, Positive, Text, Whole


def _key_only(value: Any) -> Any:
    return {"key": value} if isinstance(value, str) else value


Paths = PathText | Annotated[list[PathText], Field(min_length=1)]


class ModelRef(Part):
    """Which base model is tuned."""

    key: str = Field(description="Key of the model in the registry.", json_schema_extra={"enum": list(MODELS)})
    path: PathText | None = Field(
        default=None, description="Local directory of the base checkpoint; null: the hub repository of the model card."
    )
    revision: Text | None = Field(
        default=None, description="Commit of the base on the hub; null: the one of the model card, where it has one."
    )

    @field_validator("key")
    @classmethod
    def _known(cls, key: str) -> str:
        if key not in MODELS:
            raise ValueError("there is no such model")
        return key


class DataConfig(Part):
    """Which sentences are learned from and how they are divided."""

    train: Paths = Field(
        description="Training rows: a JSON Lines file (.jsonl, .gz, .zst), a folder, a list of them, or an s3://, "
        "gs:// or hf:// address, as the trainer sees it."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the training data as 64 hex digits; null: not checked."
    )
    dev: Paths | None = Field(
        default=None, description="Rows scored during training; null: held out of the training rows."
    )
    test: Paths | None = Field(
        default=None, description="Rows scored at the end; null: half of the held-out documents."
    )
    dev_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="Fraction of the documents held out when dev or test is null."
    )
    split_seed: Natural = Field(default=0, description="Seed of the choice of held-out documents.")
    on_bad_row: Literal["fail", "skip"] = Field(
        default="fail",
        description="fail: stop when more than max_bad_fraction of the rows are bad; skip: drop and count them. A "
        "damaged or cut compressed file is always refused.",
    )
    max_bad_fraction: float = Field(
        default=0.001, ge=0, le=1, description="Fraction of bad rows that is tolerated with on_bad_row: fail."
    )
    max_unknown_fraction: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Fraction of source pieces the tokenizer may not know; above it: refused.",
    )
    max_samples: Positive | None = Field(default=None, description="Number of training rows used; null: all.")

    @model_validator(mode="after")
    def _has_dev_rows(self) -> Self:
        if self.dev is None and self.dev_fraction == 0:
            raise ValueError("no dev rows: give data.dev, or a data.dev_fraction above 0")
        return self


class LoraConfig(Part):
    """The adapter of methods lora and qlora."""

    r: Whole = Field(default=32, ge=1, le=1024, description="Rank of the adapter matrices.")
    alpha: float = Field(default=64, gt=0, description="Scale: the adapter's output is multiplied by alpha / r.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Probability of dropping an input of the adapter.")
    target_modules: Literal["auto"] | Annotated[list[Text], Field(min_length=1)] = Field(
        default="auto", description="Names of the linear layers that get an adapter; auto: those of the model card."
    )
    bias: Literal["none", "all", "lora_only"] = Field(default="none", description="Which bias vectors are trained.")


class TrainConfig(Part):
    """The training itself."""

    epochs: float = Field(default=1, gt=0, le=1e6, description="Passes over the training rows; fractions are allowed.")
    max_steps: Positive | None = Field(
        default=None, description="Optimizer steps after which training stops; null: epochs decides."
    )
    learning_rate: float = Field(default=2e-4, gt=0, le=1, description="Peak learning rate.")
    scheduler: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="Shape of the learning rate after the warmup; linear and cosine end at 0."
    )
    warmup_ratio: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="Fraction of all steps in which the learning rate rises from 0 to its peak.",
    )
    batch_size: Positive | None = Field(
        default=16,
        description="Sentences per process and accumulation step: an optimizer step sees batch_size x "
        "gradient_accumulation x processes sentences on average.",
    )
    tokens_per_batch: Positive | None = Field(
        default=None,
        description="Real source and target tokens per optimizer step, over all processes; instead of batch_size.",
    )
    gradient_accumulation: Positive = Field(
        default=2, description="Batches of batch_size per process and optimizer step."
    )
    micro_batch_tokens: Whole = Field(
        default=4096,
        ge=16,
        le=LARGEST,
        description="Most padded source and target tokens in one forward pass; bounds the memory, and is halved where "
        "that runs out.",
    )
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Probability mass moved from the reference token to the whole vocabulary."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay of AdamW; biases and norms have none.")
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="Global gradient norm above which it is scaled; 0: off."
    )
    max_skipped_steps: Natural = Field(
        default=3,
        description="Steps in a row that may be skipped because loss or gradient is not finite. One more, and the run "
        "goes back to an earlier checkpoint at half the learning rate, once; after that it ends as diverged.",
    )
    max_source_length: Whole = Field(
        default=512, ge=4, le=LARGEST, description="Source tokens of a row; longer rows are cut."
    )
    max_target_length: Whole = Field(
        default=512, ge=4, le=LARGEST, description="Target tokens of a row; longer rows are cut."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Arithmetic of the forward pass; auto: bf16 where the device has it, else fp32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto: cuda where present."
    )
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        default="auto",
        description="Placement of the base model's layers in a single process; ignored with several processes.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass: less memory, about 20 % more time."
    )
    seed: Whole = Field(
        default=42, ge=0, lt=2**32, description="Seed of initialisation, dropout and the order of the rows."
    )

    @model_validator(mode="after")
    def _one_batch_size(self) -> Self:
        if self.batch_size is None and self.tokens_per_batch is None:
            raise ValueError("give either train.batch_size or train.tokens_per_batch")
        if self.batch_size is not None and self.tokens_per_batch is not None:
            raise ValueError("train.batch_size and train.tokens_per_batch exclude each other: give one of them")
        return self


class EarlyStoppingConfig(Part):
    """When to stop before the last epoch."""

    metric: Literal["nll", "chrf", "bleu"] = Field(default="nll", description="Dev score that must improve.")
    patience: Natural = Field(
        default=0, description="Evaluations without improvement after which training stops; 0: never."
    )
    threshold: float = Field(
        default=0.01, ge=0, description="Relative improvement that counts, as a fraction of the best score."
    )


class EvalConfig(Part):
    """How the base and the tuned model are scored."""

    every: float = Field(default=0.25, gt=0, le=1e6, description="Fraction of an epoch between two evaluations on dev.")
    beams: Whole = Field(default=5, ge=1, le=64, description="Width of the beam search; 1: greedy.")
    max_dev_rows: Positive | None = Field(
        default=200, description="Dev rows translated at each evaluation; null: all of them."
    )
    max_nll_rows: Positive | None = Field(
        default=2000, description="Dev rows whose NLL is computed at each evaluation; null: all of them."
    )
    max_test_rows: Positive | None = Field(
        default=None, description="Rows of test and of each guard set translated at the end; null: all of them."
    )
    batch_tokens: Whole = Field(
        default=4096, ge=16, le=LARGEST, description="Most padded source tokens translated at once."
    )
    bootstrap_samples: Positive = Field(
        default=1000,
        description="Resamplings of each paired bootstrap; more are drawn where max_p and the number of comparisons "
        "need them.",
    )
    min_base_bleu: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="BLEU the base model must reach on test before training; null: not asked.",
    )
    early_stopping: EarlyStoppingConfig = Field(
        default_factory=EarlyStoppingConfig, description="When to stop before the last epoch."
    )


class CheckpointConfig(Part):
    """What is kept so that a killed run continues."""

    every_minutes: float | None = Field(
        default=10,
        gt=0,
        description="Minutes of wall-clock time between checkpoints, more where saving would take over 2 % of the "
        "time; null: not by time.",
    )
    every_steps: Positive | None = Field(
        default=None, description="Optimizer steps between checkpoints; null: not by steps."
    )
    keep: Positive = Field(default=2, description="Number of complete checkpoints kept.")
    resume: Literal["auto", "never"] = Field(
        default="auto", description="auto: continue from the last complete checkpoint; never: begin again."
    )


class TrackingConfig(Part):
    """What is logged."""

    tensorboard: bool = Field(default=True, description="Write TensorBoard event files below logs/.")
    log_every_steps: Positive = Field(default=10, description="Optimizer steps between two lines of progress.")


class GateConfig(Part):
    """What a tuned model must show on test to be promoted, and where it may not get worse."""

    metric: Literal["chrf", "bleu"] = Field(
        default="chrf", description="Score compared with the base model's and the published run's."
    )
    min_delta: float = Field(default=0.0, description="Points of that score the tuned model must gain at least.")
    max_p: float = Field(
        default=0.05,
        ge=0.001,  # resamplings, and with them the time, grow as 1 / max_p
        le=1,
        description="Largest two-sided p-value of a gain that counts; a loss counts up to it, and 0.05 at most, after "
        "Holm's correction for the number of comparisons.",
    )
    min_sentences: Positive = Field(
        default=30,
        description="Test sentences that every direction needs: on fewer nothing is promoted, nor called a "
        "regression; the latter goes for a guard set's directions too.",
    )
    max_leaked: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the rows of test, or of a guard set, that may be training rows too, but for case and "
        "punctuation; with more, their scores say too much, and nothing is promoted.",
    )
    guard_sets: dict[DnsLabel, Paths] = Field(
        default_factory=dict,
        description="Name -> rows of another kind than test, given as data.test is: a significant loss of the score "
        "on one of them is a regression.",
    )
    promote: Literal["auto", "never"] = Field(
        default="auto",
        description="auto: a model that shows it becomes the current run by itself; never: `promote` does it by hand.",
    )


class StorageConfig(Part):
    """Where everything lies."""

    root: PathText = Field(default="/mnt/mtft", description="Directory that holds data/, outputs/ and cache/.")
    keep_runs: Positive | None = Field(
        default=None,
        description="Newest finished runs of a model that are kept, beside the current one, the one rollback goes to, "
        "those in use and those that a job of another name took over; null: all.",
    )


class Config(Part):
    """Every setting of one run."""

    model: Annotated[ModelRef, BeforeValidator(_key_only)] = Field(
        description="Which base model is tuned; a plain text is its key."
    )
    preset: Literal["default", "quick_test", "memory_efficient", "high_capacity"] = Field(
        default="default", description="Named set of values that the file, --set and flags may still change."
    )
    data: DataConfig = Field(description="Which sentences are learned from and how they are divided.")
    method: Literal["lora", "qlora", "full"] = Field(
        default="lora",
        description="lora: adapter; qlora: adapter on a base quantised to 4-bit NF4; full: every weight.",
    )
    lora: LoraConfig = Field(default_factory=LoraConfig, description="The adapter of methods lora and qlora.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="The training itself.")
    eval: EvalConfig = Field(default_factory=EvalConfig, description="How the base and the tuned model are scored.")
    checkpoint: CheckpointConfig = Field(
        default_factory=CheckpointConfig, description="What is kept so that a killed run continues."
    )
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="What is logged.")
    gate: GateConfig = Field(
        default_factory=GateConfig,
        description="What a tuned model must show to be promoted, and where it may not get worse.",
    )
    storage: StorageConfig = Field(default_factory=StorageConfig, description="Where everything lies.")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="Where the job runs.")

    def data_paths(self) -> dict[str, Paths]:
        """Return every setting that names rows, by its path, with what it names."""
        given = {f"data.{name}": getattr(self.data, name) for name in ("train", "dev", "test")}
        given |= {f"gate.guard_sets.{name}": paths for name, paths in self.gate.guard_sets.items()}
        return {name: paths for name, paths in given.items() if paths is not None}
