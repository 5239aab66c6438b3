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
ABILITIES = (("accuracy", ".2f", "Accuracy"), ("divergence", ".3f", "KL at the answer, nats"),
             ("open_edges", ",.0f", "Open attention edges of a prompt"))  # fmt: skip
NEEDED = (("attention", "attention_edges", "Attention edges a prompt needs"), ("heads", "heads", "Heads"),
          ("components", "edges", "Edges between components"))  # fmt: skip
OF = {"open_edges": "visible_edges"}  # which number of a row is the whole of another, if not NAME_of


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
    judged = {name: run | {"held_out": run["judged"]} for name, run in runs.items() if "judged" in run}
    if judged:
        lines += [
            "",
            "Judged once more, on 6,144 tokens that chose nothing and on which nothing had been reported:",
            "",
            *HEAD,
        ]
        lines += [_row(name, run) for name, run in judged.items()]
    write_text(results.with_suffix(".md"), "\n".join(lines) + "\n")
    _frontier(runs, results.with_suffix(".svg"))
    _layers(runs, results.with_name(f"{results.stem}-layers.svg"))


def write_circuits(results: Path) -> None:
    """Write circuits.md beside results/circuits.json: one row a task, one column a model, the base first."""
    rows = read_json(results, list[dict[str, Any]])
    variants = sorted(dict.fromkeys(row["variant"] for row in rows), key=lambda name: name != "base")
    lines = [
        "# Circuits of SmolLM2-135M-Instruct",
        "",
        "`python -m benchmarks.experiments.smollm2.circuits`. One column a model: the base, sparse models of other "
        "runs, and those that were finetuned without gates (finetuned). A dash: not measured.",
    ]
    able = [row for row in rows if row["kind"] == "accuracy"]
    for name, form, title in ABILITIES:
        lines += _table(title, able, variants, name, form)
    for kind, name, title in NEEDED:
        own = [row for row in rows if row["kind"] == kind]
        if own:
            lines += _table(f"{title} for 90 % of the effect", own, variants, name, ",.0f")
    write_text(results.with_suffix(".md"), "\n".join(lines) + "\n")


def _table(title: str, rows: list[dict[str, Any]], variants: list[str], name: str, form: str) -> list[str]:
    """A table of one number, with how many there are, what random edges keep, and why there is no answer."""
    found = {(row["task"], row.get("ablation"), row["variant"]): row for row in rows}
    random = any("random_keeps" in row for row in rows)
    ablations = any("ablation" in row for row in rows)
    head = ["task", *(["ablation"] if ablations else []), "of", *variants]
    head += ["as many random edges keep, at most"] if random else []
    lines, refusals = ["", f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"], []
    for task, ablation in dict.fromkeys(sorted((r["task"], r.get("ablation") or "") for r in rows)):
        own = [found.get((task, ablation or None, variant), {}) for variant in variants]
        of = max((row.get(f"{name}_of") or row.get(OF.get(name, "")) or 0 for row in own), default=0)
        kept = [abs(row["random_keeps"]) for row in own if "random_keeps" in row]
        cells = [_cell(row, name, form) for row in own]
        cells += [f"{max(kept):.2f}" if kept else "-"] if random else []
        first = [task, *([ablation] if ablations else []), f"{of:,.0f}" if of else "-"]
        lines.append(f"| {' | '.join([*first, *cells])} |")
        why = [(row.get("refused") or row.get("attention_refused"), row) for row in own]
        refusals += [f"- Refused: {row['variant']}, {reason}" for reason, row in why if reason]
    return [*lines, "", *refusals] if refusals else lines


def _cell(row: dict[str, Any], name: str, form: str) -> str:
    if row.get("refused") or row.get("attention_refused"):
        return "refused"
    return f"{row[name]:{form}}" if row.get(name) is not None else "-"


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
