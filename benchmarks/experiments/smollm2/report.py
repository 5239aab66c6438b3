"""The frontier of SmolLM2-135M as a page and two pictures, from results/smollm2.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lib.plot import COLOURS
from gossamer.files import read_json, write_text

FAMILIES = {
    "topk": "largest k, untrained", "weight": "weight > theta, untrained", "trained-topk": "largest k, trained",
    "default": "gossamer, kl=0.05", "kl0.2": "gossamer, kl=0.2", "lora": "gossamer, LoRA",
    "delta_ce0.01": "gossamer, delta_ce=0.01", "finetuned": "finetuned, no gates",
}  # fmt: skip
MARKS = "os^D*vXP"
HEAD = ("| run | rows of | open keys per query and head | of them at position 0 | KL, nats | rise in CE, nats | top-1 "
        "agreement | steps | ceiling |", "|---|---|---|---|---|---|---|---|---|")  # fmt: skip


def family(name: str) -> str:
    """Which line of the picture a run belongs to."""
    return max((known for known in FAMILIES if name.startswith(known)), key=len)


def folder_of(out: Path) -> Path:
    """Where a run left its model: whole, or as adapters."""
    return next(out / kind for kind in ("model", "adapter") if (out / kind).is_dir())


def write_page(results: Path) -> None:
    """Write smollm2.md, smollm2.svg and smollm2-layers.svg beside the results."""
    content = read_json(results)
    runs: dict[str, Any] = content["runs"]
    about = ", ".join(f"{name} {value}" for name, value in content["environment"].items())
    lines = ["# The frontier of SmolLM2-135M-Instruct", "", f"`python -m benchmarks.experiments.smollm2.run`; {about}. "
             "All runs are reported on the same held-out rows, on which nothing was chosen.", "", *HEAD]  # fmt: skip
    lines += [
        _row(name, runs[name])
        for name in sorted(
            runs, key=lambda n: (runs[n]["length"], family(n), runs[n]["held_out"]["keys_per_query"])
        )
    ]
    write_text(results.with_suffix(".md"), "\n".join(lines) + "\n")
    _frontier(runs, results.with_suffix(".svg"))
    _layers(runs, results.with_name(f"{results.stem}-layers.svg"))


def write_circuits(results: Path) -> None:
    """Write circuits.md beside results/circuits.json: one row a task, base beside control and sparse."""
    rows = read_json(results, list[dict[str, Any]])
    variants = sorted(dict.fromkeys(row["variant"] for row in rows), key=lambda name: name != "base")
    about = f"Each cell: {', '.join(variants)}; a dash where nothing was measured."
    lines = [
        "# Circuits of SmolLM2-135M-Instruct",
        "",
        f"`python -m benchmarks.experiments.smollm2.circuits`. {about}",
        "",
    ]
    lines += [
        "## What the models can do",
        "",
        "| task | accuracy | KL at the answer, nats | open attention edges, of |",
    ]
    lines += ["|---|---|---|---|"]
    found = {(row["kind"], row.get("ablation"), row["task"], row["variant"]): row for row in rows}
    for task in dict.fromkeys(row["task"] for row in rows if row["kind"] == "accuracy"):
        own = [found.get(("accuracy", None, task, name), {}) for name in variants]
        cells = (
            _cells(own, "accuracy", ".2f"),
            _cells(own, "divergence", ".3f"),
            _cells(own, "open_edges", ",.0f"),
        )
        lines.append(f"| {task} | {' / '.join(cells[0])} | {' / '.join(cells[1])} | {' / '.join(cells[2])}, "
                     f"{own[0].get('visible_edges', 0):,.0f} |")  # fmt: skip
    for kind, name, title in (("attention", "attention_edges", "Attention edges a prompt needs for 90 % of the effect"),
                              ("heads", "heads", "Heads for 90 % of the effect"),
                              ("components", "edges", "Edges between components for 90 % of the effect")):  # fmt: skip
        if not any(row["kind"] == kind for row in rows):
            continue
        lines += [
            "",
            f"## {title}",
            "",
            "| task | ablation | edges | of | as many random edges keep |",
            "|---|---|---|---|---|",
        ]
        refusals: dict[str, None] = {}
        for ablation, task in dict.fromkeys((r["ablation"], r["task"]) for r in rows if r["kind"] == kind):
            own = [found.get((kind, ablation, task, variant), {}) for variant in variants]
            sizes = _cells(own, name, ",.0f")
            for at, row in enumerate(own):
                if why := row.get("refused") or row.get("attention_refused"):
                    sizes[at] = "refused"
                    refusals[f"{variants[at]}, {why}"] = None
            kept = [f"{row['random_keeps']:.2f}" if "random_keeps" in row else "-" for row in own]
            of = max((row.get(f"{name}_of") or 0 for row in own), default=0)
            lines.append(f"| {task} | {ablation} | {' / '.join(sizes)} | {of:,} | {' / '.join(kept)} |")
        lines += ["", *(f"- Refused: {why}" for why in refusals)] if refusals else []
    write_text(results.with_suffix(".md"), "\n".join(lines) + "\n")


def _cells(rows: list[dict[str, Any]], name: str, form: str) -> list[str]:
    return [f"{row[name]:{form}}" if row.get(name) is not None else "-" for row in rows]


def _row(name: str, run: dict[str, Any]) -> str:
    found = run["held_out"]
    held = "" if "ceiling" not in run else f"{run['ceiling']}, " + ("held" if run["feasible"] else "missed")
    cells = (name, f"{run['length']} tokens", f"{found['keys_per_query']:.2f}",
             f"{found['keys_at_position_0']:.2f}" if "keys_at_position_0" in found else "",
             f"{found['kl']:.4f} ± {found['kl_se']:.4f}", f"{found['delta_ce']:+.4f} ± {found['delta_ce_se']:.4f}",
             f"{found['agreement']:.3f}", str(run.get("best_step", run.get("steps", ""))), held)  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _frontier(runs: dict[str, Any], path: Path) -> None:
    """Open keys against KL, one panel for each length."""
    from matplotlib.figure import Figure

    lengths = sorted({run["length"] for run in runs.values()})
    figure = Figure(figsize=(3.4 * len(lengths), 3.6), layout="constrained")
    panels = figure.subplots(1, len(lengths), squeeze=False, sharey=True)[0]
    for axes, length in zip(panels, lengths, strict=True):
        for (kind, label), colour, mark in zip(FAMILIES.items(), COLOURS, MARKS, strict=False):
            own = [
                run["held_out"]
                for name, run in runs.items()
                if run["length"] == length and family(name) == kind
            ]
            points = sorted((x["keys_per_query"], x["kl"], x["kl_se"]) for x in own if kind != "finetuned")
            if points:
                keys, losses, errors = zip(*points, strict=True)
                axes.errorbar(
                    keys,
                    losses,
                    yerr=errors,
                    marker=mark,
                    color=colour,
                    markersize=5,
                    linewidth=1,
                    label=label,
                )
        axes.axhline(0.05, color="#999999", linewidth=0.8, linestyle=":")
        axes.set(
            xscale="log",
            yscale="log",
            title=f"{length} tokens, {(length + 1) / 2:g} visible keys",
            xlabel="open keys per query and head",
        )
        axes.set_xticks((1, 2, 4, 8, 16, 32), ["1", "2", "4", "8", "16", "32"])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("KL from the dense model, nats")
    shown = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    figure.savefig(path, metadata={"Date": None})


def _layers(runs: dict[str, Any], path: Path) -> None:
    """Open keys by layer of the trained runs, beside an untrained gate of the same length."""
    from matplotlib.figure import Figure

    shown = {
        n: r
        for n, r in runs.items()
        if "keys_by_layer" in r["held_out"]
        and (family(n) in ("default", "kl0.2") or n.startswith("weight-0.01-"))
    }
    if not shown:
        return
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, run), colour, mark in zip(sorted(shown.items()), COLOURS, "osD^vP*", strict=False):
        layers = run["held_out"]["keys_by_layer"]
        axes.plot(
            range(len(layers)), layers, marker=mark, color=colour, markersize=3.5, linewidth=1, label=name
        )
    axes.set(xlabel="layer", ylabel="open keys per query and head", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
