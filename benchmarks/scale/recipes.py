"""What each stage of three recipes takes, on paper: memory and hours from shapes, tokens and data sheets.

Nothing is measured here but what is named so: costs of the corpus and of a build are those of pairs.py and build.py. The
tables stand in docs/recipes.md.

    python benchmarks/scale/recipes.py
"""

from dataclasses import dataclass
from types import SimpleNamespace

from vocabtransfer.training.needs import layer_bytes
from vocabtransfer.training.throughput import PEAKS

#: Share of a GPU's products in bfloat16 that training is assumed to reach, on one GPU and on many.
MFU, MFU_OF_MANY = 0.40, 0.35
#: CPU seconds of a pair, measured (docs/large-models.md).
COUNTING, FILTERING = 4e-6, 71e-6
#: A disk, bytes a second; what a build of 8 billion parameters took on two cores, seconds, and what of that was not scoring
#: (build.py).
DISK, BUILD_8B, UNSCORED = 1e9, 2220.0, 0.48
#: Bytes that a model may take where it is scored; a larger one runs layer by layer. Tokens of a megabyte.
HELD, SCORED = {"RTX 4090": 12e9, "H100": 40e9}, 4e5


@dataclass(frozen=True)
class Shape:
    """A Llama: layers, hidden and inner width, heads, key heads, width of a head, rows of a table, one table or two."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    keys: int
    width: int
    rows: int
    tied: bool

    @property
    def layer(self) -> int:
        """Numbers of a layer."""
        attention = 2 * self.hidden * self.width * (self.heads + self.keys)
        return attention + 3 * self.hidden * self.inner + 2 * self.hidden

    @property
    def table(self) -> int:
        """Numbers of a table."""
        return self.rows * self.hidden

    @property
    def tables(self) -> int:
        """Numbers of all tables."""
        return self.table * (1 if self.tied else 2)

    @property
    def numbers(self) -> int:
        """Numbers of the model."""
        return self.layers * self.layer + self.hidden + self.tables

    @property
    def lora(self) -> int:
        """Numbers of low-rank updates of rank 8 on every matrix of the body."""
        sides = 2 * (self.hidden + self.heads * self.width) + 2 * (self.hidden + self.keys * self.width)
        return 8 * self.layers * (sides + 3 * (self.hidden + self.inner))

    def operations(self, stage: str, block: int) -> float:
        """Operations of a token in training: as vocabtransfer.training.throughput.token_operations counts them."""
        multiplied = self.layers * self.layer + self.table
        learns = {"tables": self.table, "lora": self.table + self.lora, "all": multiplied}[stage]
        return 4.0 * multiplied + 2.0 * learns + 12.0 * self.layers * self.heads * self.width * block

    def kept(self, body: bool, block: int, again: bool) -> float:
        """Bytes of activations of a token, in bfloat16; ``again`` where they are computed twice."""
        text = SimpleNamespace(
            hidden_size=self.hidden,
            num_attention_heads=self.heads,
            head_dim=self.width,
            num_key_value_heads=self.keys,
            intermediate_size=self.inner,
        )
        each = layer_bytes(text, block, True, body, None)
        return (self.layers * 4 * self.hidden + each if again else self.layers * each) + 16 * self.rows


@dataclass(frozen=True)
class Recipe:
    """A machine, a model, and what is done with it; tokens by stage of training."""

    title: str
    gpu: str
    gpus: int
    shape: Shape
    pairs: float
    distilled: float
    stages: dict[str, float]
    block: int = 1024
    rows: int = 1  # of a pass, on each GPU
    again: bool = False  # gradient checkpointing

    @property
    def speed(self) -> float:
        """Operations a second of all GPUs."""
        return self.gpus * PEAKS[self.gpu] * 1e12 * (MFU if self.gpus == 1 else MFU_OF_MANY)

    def memory(self, stage: str) -> float:
        """Bytes of a GPU in a stage of training: float32 weights and gradients, moments in bfloat16, activations."""
        shape = self.shape
        learns = {"tables": shape.tables, "lora": shape.tables + shape.lora, "all": shape.numbers}[stage]
        added = shape.lora if stage == "lora" else 0
        gathered = 8 * max(shape.tables, shape.layer) if self.gpus > 1 else 0
        held = (4 * (shape.numbers + added) + 8 * learns) / self.gpus
        return held + gathered + self.rows * self.block * shape.kept(stage != "tables", self.block, self.again)

    def lines(self) -> list[tuple[str, str, str]]:
        """Stage, memory and time of each line of the table."""
        shape, cores = self.shape, 16 * self.gpus
        found = [
            ("corpus filter", "0.4 GB a process", _time(FILTERING * self.pairs / cores)),
            ("corpus count", "0.4 GB a process", _time(COUNTING * self.pairs / cores)),
            ("build, scoring left out", "6 GB", _time(BUILD_8B * UNSCORED * shape.numbers / 8e9)),
        ]
        if self.distilled:
            work = self.distilled * (2 * shape.numbers + 4 * (shape.layers / 3 * shape.layer + shape.tables))
            held = 2 * shape.numbers + 16 * shape.tables
            found.append((f"rows, {_count(self.distilled)} tokens", _gb(held), _time(work / self.speed)))
        for stage, tokens in self.stages.items():
            seconds = tokens * shape.operations(stage, self.block) / self.speed
            found.append(
                (f"adapt {stage}, {_count(tokens)} tokens", f"{_gb(self.memory(stage))} a GPU", _time(seconds))
            )
        held, one = min(2.0 * shape.numbers, HELD[self.gpu]), PEAKS[self.gpu] * 1e12 * MFU
        found.append(("evaluate, 1 MB", _gb(held), _time(2 * shape.numbers / DISK + SCORED * 2 * shape.numbers / one)))
        found.append(("export to GGUF", "1 GB", _time(4 * shape.numbers / DISK)))
        return found


def _count(number: float) -> str:
    return f"{number / 1e9:g}G" if number >= 1e9 else f"{number / 1e6:g}M"


def _gb(size: float) -> str:
    return f"{size / 1e9:.0f} GB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return "about a minute"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"


RECIPES = (
    Recipe(
        "One GPU of 24 GB: Llama 3.2 3B, a vocabulary of 32,000 tokens",
        *("RTX 4090", 1, Shape("Llama 3.2 3B", 28, 3072, 8192, 24, 8, 128, 32_000, True), 1e7, 2e6),
        {"tables": 5e7, "lora": 1e8},
        again=True,
        rows=2,
    ),
    Recipe(
        "One GPU of 80 GB: Llama 3 8B, a vocabulary of 32,000 tokens",
        *("H100", 1, Shape("Llama 3 8B", 32, 4096, 14_336, 32, 8, 128, 32_000, False), 1e8, 1e7),
        {"tables": 2e8, "lora": 1e9},
        again=True,
        rows=4,
    ),
    Recipe(
        "64 GPUs of 80 GB: Llama 3 70B, a vocabulary of 64,000 tokens",
        *("H100", 64, Shape("Llama 3 70B", 80, 8192, 28_672, 64, 8, 128, 64_000, False), 1e9, 0.0),
        {"tables": 2e9, "all": 2e10},
        block=4096,
        again=True,
    ),
)


def table(recipe: Recipe) -> list[str]:
    """Return the lines of a recipe's table, Markdown."""
    head = ["| stage | memory | time |", "|---|---|---|"]
    return head + [f"| {stage} | {memory} | {time} |" for stage, memory, time in recipe.lines()]


def main() -> None:
    for recipe in RECIPES:
        print(f"## {recipe.title}\n\n{recipe.shape.numbers / 1e9:.2f} billion parameters.\n")
        print("\n".join(table(recipe)), "\n")


if __name__ == "__main__":
    main()
