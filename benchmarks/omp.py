"""What rebuilding a donor's rows by orthogonal matching pursuit costs: CPU seconds, wall time, memory; beside a peer.

    python benchmarks/omp.py                                      # 128,256 x 2048 to 32,005 rows, 18,901 rebuilt
    python benchmarks/omp.py --peer venv/bin/python               # beside mergekit-tokensurgeon in its own environment
    python benchmarks/omp.py --shared 2000 --donor-rows 4000      # smaller

The tables are random with what makes embeddings hard: a slowly falling spectrum, a mean that all rows share, families of
like tokens, unequal lengths; bfloat16, input and output tied. Each side runs in a process of its own on the same files,
so that its CPU seconds and peak memory are its own. The peer gets a sample of the rows, and its CPU seconds are
extrapolated from it (its cost is proportional to the rows). Supports are compared with the plain algorithm in float64.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

PREPARED_ROWS = 8192


def random_rows(count: int, hidden: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of a table, float32: half of their variance is a falling spectrum, the rest a mean and families of tokens."""
    spectrum = (1 + torch.arange(hidden)) ** -0.4
    rows = torch.randn(count, hidden, generator=generator) * spectrum
    family = torch.randint(0, max(1, count // 8), (count,), generator=generator)
    closeness = torch.rand(count, 1, generator=generator)
    rows += closeness * (torch.randn(max(1, count // 8), hidden, generator=generator) * spectrum)[family]
    rows += 0.3 * torch.randn(1, hidden, generator=torch.Generator().manual_seed(1)) * spectrum
    lengths = torch.exp(0.2 * torch.randn(count, 1, generator=generator))
    return rows * lengths / rows.norm(dim=1, keepdim=True)


def prepare(home: Path, arguments: argparse.Namespace) -> None:
    """Write both tables and the ids of shared tokens, as raw bfloat16 and int64."""
    generator = torch.Generator().manual_seed(arguments.seed)
    for name, count in (("donor", arguments.donor_rows), ("source", arguments.source_rows)):
        with (home / name).open("wb") as file:
            for start in range(0, count, PREPARED_ROWS):
                rows = random_rows(min(PREPARED_ROWS, count - start), arguments.hidden, generator)
                file.write(rows.bfloat16().view(torch.int16).numpy().tobytes())
    order = torch.randperm(arguments.donor_rows, generator=generator)
    shared, new = order[: arguments.shared].sort().values, order[arguments.shared :].sort().values
    torch.save({"shared": shared, "new": new}, home / "donor_ids")
    torch.save(torch.randperm(arguments.source_rows, generator=generator)[: arguments.shared], home / "source_ids")


def stored(home: Path, name: str, hidden: int) -> torch.Tensor:
    file = home / name
    values = torch.from_file(str(file), dtype=torch.bfloat16, size=file.stat().st_size // 2)
    return values.view(-1, hidden)


def measured(work: Any) -> tuple[Any, dict[str, float]]:
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, {"cpu": cpu, "wall": time.perf_counter() - started, "peak_gb": after.ru_maxrss / 1e6}


def run_ours(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Read the donor, rebuild its rows, and make the whole new table in the source's precision."""
    import numpy as np

    from vocabtransfer.initialization import Donor, Tables
    from vocabtransfer.initialization.donor import DonorMatch
    from vocabtransfer.initialization.omp import rebuilt_rows
    from vocabtransfer.initialization.omp_gram import pursue
    from vocabtransfer.progress import show_progress
    from vocabtransfer.surgery.tables import TableRows
    from vocabtransfer.token_map import TokenMap
    from vocabtransfer.vocabulary import Scheme, Vocabulary

    ids, source_ids = torch.load(home / "donor_ids"), torch.load(home / "source_ids").numpy()
    shared, new = ids["shared"].numpy(), ids["new"].numpy()
    donor_table = TableRows(stored(home, "donor", arguments.hidden))
    source_table = TableRows(stored(home, "source", arguments.hidden))
    nothing = Vocabulary(Scheme.BYTE_LEVEL, (), (), np.zeros(0, np.uint8), np.zeros(0, np.bool_), {})
    tables = Tables(donor_table, None, arguments.hidden)
    donor = Donor("donor", nothing, tables, np.ones(arguments.donor_rows, np.bool_))
    match = DonorMatch(donor, shared, source_ids, new, new)
    shape = (arguments.donor_rows, arguments.source_rows)
    compiled = measured(lambda: pursue(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), np.arange(4), 2))[1]

    def work() -> TokenMap:
        copies = TokenMap.from_pairs(shared, source_ids, shape, "copied")
        with show_progress():
            token_map = copies.or_else(rebuilt_rows(match, shape, "input", arguments.k))
        table = torch.empty(arguments.donor_rows, arguments.hidden, dtype=torch.bfloat16)
        for start, rows in token_map.blocks(source_table):
            table[start : start + len(rows)] = torch.from_numpy(rows)
        return token_map

    token_map, costs = measured(work)
    (home / "map").write_bytes(token_map.to_bytes())
    return {**costs, "compile_cpu": compiled["cpu"], "threads": torch.get_num_threads()}


def sample(home: Path, count: int) -> torch.Tensor:
    """Rows of the new tokens that are compared: evenly spread."""
    new = torch.load(home / "donor_ids")["new"]
    return new[torch.linspace(0, len(new) - 1, min(count, len(new))).long()]


def run_peer(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Do to a sample of the rows what mergekit-tokensurgeon does with --approximation-method omp."""
    from mergekit.tokensurgeon.omp import batch_omp

    donor, source = stored(home, "donor", arguments.hidden), stored(home, "source", arguments.hidden)
    shared, source_ids = torch.load(home / "donor_ids")["shared"], torch.load(home / "source_ids")
    rows = sample(home, arguments.peer_rows)

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        atoms, originals = donor[shared], source[source_ids]
        taken, weights = [], []
        for part in rows.split(arguments.peer_batch):
            support, coefficients = batch_omp(donor[part], atoms, arguments.k)
            torch.bmm(coefficients.unsqueeze(1), originals[support].to(torch.float)).squeeze(1).to(source.dtype)
            taken.append(support)
            weights.append(coefficients)
        return torch.cat(taken), torch.cat(weights)

    found, costs = measured(work)
    torch.save(found, home / "peer")
    whole = (arguments.donor_rows - arguments.shared) / len(rows)
    return {
        **costs,
        "rows": len(rows),
        "cpu_extrapolated": costs["cpu"] * whole,
        "wall_extrapolated": costs["wall"] * whole,
    }


def run_check(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the atoms taken, and their weights, with the plain algorithm in float64 and with the peer's."""
    from vocabtransfer.token_map import TokenMap

    token_map = TokenMap.load(home / "map")
    ids = torch.load(home / "donor_ids")
    column = {int(s): i for i, s in enumerate(torch.load(home / "source_ids").tolist())}
    donor = stored(home, "donor", arguments.hidden)
    atoms = donor[ids["shared"]].double()
    rows = sample(home, arguments.check_rows)
    support, weights = plain_pursuit(atoms, donor[rows].double(), arguments.k)
    mine = [{column[c]: w for c, w in token_map.row(int(row))} for row in rows]
    result = {
        "rows": len(rows),
        "same_as_float64": _same(mine, support),
        "largest_difference": _far(mine, support, weights),
    }
    if (home / "peer").exists():
        peer_rows = sample(home, arguments.peer_rows)
        peer_support, peer_weights = torch.load(home / "peer")
        mine = [{column[c]: w for c, w in token_map.row(int(row))} for row in peer_rows]
        result |= {"peer_rows": len(peer_rows), "same_as_peer": _same(mine, peer_support)}
        result["largest_difference_from_peer"] = _far(mine, peer_support, peer_weights)
    return result


def plain_pursuit(atoms: torch.Tensor, targets: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every residual times every atom, least squares by an orthonormal basis."""
    support = torch.zeros(len(targets), k, dtype=torch.long)
    basis = torch.zeros(len(targets), k, targets.shape[1], dtype=targets.dtype)
    residual = targets.clone()
    for step in range(k):
        scores = (residual @ atoms.T).abs()
        scores.scatter_(1, support[:, :step], -1)
        support[:, step] = scores.argmax(dim=1)
        outside = atoms[support[:, step]].clone()
        for _ in range(2):
            outside -= torch.einsum("bk,bkd->bd", torch.einsum("bkd,bd->bk", basis[:, :step], outside), basis[:, :step])
        basis[:, step] = outside / outside.norm(dim=1, keepdim=True)
        residual -= (residual * basis[:, step]).sum(dim=1, keepdim=True) * basis[:, step]
    weights = torch.linalg.lstsq(atoms[support].transpose(1, 2), targets.unsqueeze(-1)).solution.squeeze(-1)
    return support, weights


def _same(mine: list[dict[int, float]], support: torch.Tensor) -> int:
    return sum(set(found) == set(wanted) for found, wanted in zip(mine, support.tolist(), strict=True))


def _far(mine: list[dict[int, float]], support: torch.Tensor, weights: torch.Tensor) -> float:
    """Largest difference of weights over the rows whose atoms are the same."""
    differences = [0.0]
    for found, atoms, wanted in zip(mine, support.tolist(), weights.tolist(), strict=True):
        if set(found) == set(atoms):
            differences += [abs(found[atom] - weight) for atom, weight in zip(atoms, wanted, strict=True)]
    return max(differences)


WAYS = {"ours": run_ours, "peer": run_peer, "check": run_check}


def in_own_process(way: str, home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    python = arguments.peer if way == "peer" else sys.executable
    names = ("donor_rows", "shared", "hidden", "source_rows", "k", "peer_rows", "peer_batch", "check_rows")
    options = [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(arguments, name)))]
    command = [python, __file__, "--way", way, "--folder", str(home), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        home = Path(scratch)
        prepare(home, arguments)
        new = arguments.donor_rows - arguments.shared
        print(f"{new} rows of {arguments.hidden} over {arguments.shared} shared tokens, k = {arguments.k}\n")
        results = {"ours": in_own_process("ours", home, arguments)}
        ours = results["ours"]
        print("| | rows | CPU seconds | wall seconds | peak memory GB |\n|---|---|---|---|---|")
        print(f"| ours | {new} | {ours['cpu']:.1f} | {ours['wall']:.1f} | {ours['peak_gb']:.2f} |", flush=True)
        if arguments.peer:
            peer = results["peer"] = in_own_process("peer", home, arguments)
            print(f"| mergekit | {peer['rows']} | {peer['cpu']:.1f} | {peer['wall']:.1f} | {peer['peak_gb']:.2f} |")
            print(f"| mergekit, all | {new} | {peer['cpu_extrapolated']:.0f} | {peer['wall_extrapolated']:.0f} | |")
            print(f"\n{peer['cpu_extrapolated'] / ours['cpu']:.1f} times fewer CPU seconds, ", end="")
            print(
                f"{ours['peak_gb'] / peer['peak_gb']:.2f} of the memory of mergekit's batch of {arguments.peer_batch}"
            )
        check = results["check"] = in_own_process("check", home, arguments)
        print(f"\nthe plain algorithm in float64 takes the same tokens for {check['same_as_float64']} of ", end="")
        print(f"{check['rows']} rows, with weights within {check['largest_difference']:.1e}")
        if arguments.peer:
            print(f"mergekit takes the same tokens for {check['same_as_peer']} of {check['peer_rows']} rows, ", end="")
            print(f"with weights within {check['largest_difference_from_peer']:.1e}")
        if arguments.json:
            settings = {name: value for name, value in vars(arguments).items() if isinstance(value, int)}
            arguments.json.write_text(json.dumps({"settings": settings, **results}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--donor-rows", type=int, default=32_005)
    parser.add_argument("--shared", type=int, default=13_104, help="rows of tokens that donor and source share")
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--source-rows", type=int, default=128_256)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", default=None, help="python of an environment that has mergekit")
    parser.add_argument("--peer-rows", type=int, default=320, help="rows that the peer rebuilds")
    parser.add_argument("--peer-batch", type=int, default=320, help="rows that the peer rebuilds at a time")
    parser.add_argument("--check-rows", type=int, default=200, help="rows compared with the plain algorithm")
    parser.add_argument("--json", type=Path, default=None, help="file for the results")
    parser.add_argument("--scratch", default=None, help="folder for the tables, about 0.7 GB")
    parser.add_argument("--way", choices=WAYS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(WAYS[arguments.way](arguments.folder, arguments)))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
