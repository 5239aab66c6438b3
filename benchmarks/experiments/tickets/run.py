"""Is what gossamer leaves a winning ticket? The same mask, or others of its size, trained again from many starts.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.tickets.run --subject addition --seeds 81 82 83 84 85
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.tickets.run --subject addition_weights --seeds 81 82 83 84 85
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.tickets.run --subject language --seeds 81 82 83 84 85

For each seed: a dense model is trained and its weights are noted at the start, at three rewinding points and at the
end; gossamer finds a mask on the trained one; every arm of arms.py is trained with the same steps, batches and
optimizer. Gates on attention edges depend on the input and are no mask: the mask is that of heads and neurons, or of
single weights. What counts as a difference is in configs/<subject>.yaml, and in the record before the first run.

Finished arms are in results/<subject>.json and are not repeated, so the same command goes on where it was stopped. A
page and a picture are made from the record after every seed (report.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.tickets.addition import AdditionSubject, AdditionWeightsSubject
from benchmarks.experiments.tickets.arms import Found, Start, arms, points
from benchmarks.experiments.tickets.language import LanguageSubject
from benchmarks.experiments.tickets.masks import Mask, close, hold, parameters_left, sizes
from benchmarks.experiments.tickets.report import WORSE, write_page
from benchmarks.experiments.tickets.train import Trained, train
from benchmarks.lib.record import Progress, Row, Rows, open_record
from gossamer.errors import refuse
from gossamer.models.quiet import quiet

HERE = Path(__file__).parent
# So that a run cut short leaves the verdict: first what a ticket has to beat, on all seeds.
PARTS = (("dense", "found", *WORSE), None)
SUBJECTS = {one.name: one for one in (AdditionSubject, AdditionWeightsSubject, LanguageSubject)}


def main() -> None:
    """Run what is not in the record yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subject", choices=SUBJECTS, default="addition")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(81, 86)))
    parser.add_argument("--work", type=Path, default=Path("runs/tickets"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.results / f"{given.subject}.json"
    each = len(arms(100)) + 2  # with the dense arm and the mask
    rows, progress = open_record(
        path, HERE / "configs" / f"{given.subject}.yaml", of=each * len(given.seeds), seeds=given.seeds
    )
    for part in PARTS:
        for seed in given.seeds:
            run_seed(SUBJECTS[given.subject](given.work / given.subject, seed), part, rows, progress)
            write_page(path)


def run_seed(subject: Any, part: tuple[str, ...] | None, rows: Rows, progress: Progress) -> None:
    """The arms of one seed that the record lacks: those of a part, or all."""
    steps = subject.arguments().max_steps
    about = {"seed": subject.seed, "steps": steps, "torch": torch.__version__}
    wanted = [name for name in part or ("dense", *arms(steps)) if rows.lacks(about | {"arm": name})]
    if not wanted:
        return
    found = prepare(subject, steps, rows, about, progress)
    for name, start in arms(steps).items():
        if name in wanted:
            rows.measure(
                about | {"arm": name}, lambda start=start: run_arm(subject, start(found), found.parameters)
            )
            progress.say(f"seed {subject.seed} {name}", short(rows.rows[-1]))


def prepare(subject: Any, steps: int, rows: Rows, about: dict[str, Any], progress: Progress) -> Found:
    """The dense arm, whose weights others start from and are kept in the work folder, and the mask found on it."""
    key, model = about | {"arm": "dense"}, subject.fresh(subject.seed)
    if rows.lacks(key):
        rows.measure(key, lambda: dense_arm(subject))
        progress.say(f"seed {subject.seed} dense", short(rows.rows[-1]))
    states = dense_states(subject)
    model.load_state_dict(states[steps])
    mask = found_mask(subject, model, rows, about, progress)
    probe = hold(model, mask)
    left = parameters_left(probe)
    return Found(mask, states, state_of_fresh(subject), probe, left, subject.seed)


def dense_states(subject: Any) -> dict[int, Any]:
    """The weights of the dense arm by step, from the work folder, or trained now."""
    kept = dense_file(subject)
    if not kept.is_file():
        dense_arm(subject)
    return torch.load(kept)


def dense_file(subject: Any) -> Path:
    """Where they are kept."""
    return subject.folder / f"dense-{subject.arguments().max_steps}.pt"


def dense_arm(subject: Any) -> dict[str, Any]:
    """Train the dense arm, keep its weights, and return its row."""
    model, steps = subject.fresh(subject.seed), subject.arguments().max_steps
    trained = run(subject, model, keep=(0, *points(steps), steps))
    subject.folder.mkdir(parents=True, exist_ok=True)
    torch.save(trained.states, dense_file(subject))
    return told(trained, parameters=sum(x.numel() for x in model.parameters()))


def found_mask(subject: Any, model: Any, rows: Rows, about: dict[str, Any], progress: Progress) -> Mask:
    """The mask that gossamer finds on the trained dense model; kept in the work folder, and its sizes in the record."""
    kept, key = subject.folder / f"mask-{about['steps']}.pt", about | {"arm": "mask"}
    if kept.is_file() and not rows.lacks(key):
        return torch.load(kept)

    def search() -> dict[str, Any]:
        with quiet():
            mask, proof = subject.mask(model)
        if all(bool(z.all()) for layers in mask.values() for z in layers.values()):
            raise refuse(
                f"a mask that leaves everything open ({proof})", "closed units", "loosen the ceiling"
            )
        torch.save(mask, kept)
        return {"open": sizes(mask), "proof": proof}

    rows.rows = [x for x in rows.rows if not (x["arm"] == "mask" and x["seed"] == subject.seed)]
    rows.measure(key, search)
    progress.say(f"seed {subject.seed} mask", short(rows.rows[-1]))
    return torch.load(kept)


def state_of_fresh(subject: Any) -> dict[str, Any]:
    """The initialisation of a seed that no arm uses otherwise."""
    return subject.fresh(1000 + subject.seed).state_dict()


def run_arm(subject: Any, start: Start, parameters: int) -> dict[str, Any]:
    """Train one arm; every mask leaves as many `parameters`."""
    if start.small is not None:
        model = subject.small(start.small, subject.seed)
        return told(run(subject, model), parameters=sum(x.numel() for x in model.parameters()))
    model = subject.fresh(subject.seed)
    model.load_state_dict(start.state)
    trained = run(subject, close(model, start.mask), first=start.first)
    return told(trained, parameters=parameters)


def run(subject: Any, model: Any, **options: Any) -> Trained:
    """Train a model as the subject's recipe says."""
    arguments = subject.arguments()
    return train(model, arguments, subject.batch, subject.evaluate, every=subject.every, **options)


def short(row: Row) -> Row:
    """What a line of progress shows of a row."""
    return {name: row[name] for name in ("loss", "exact", "parameters", "open", "cpu_seconds") if name in row}


def told(trained: Trained, **more: Any) -> dict[str, Any]:
    """The row of an arm."""
    _, loss, exact = trained.curve[-1]
    return {"loss": loss, "exact": exact, **more, "curve": trained.curve}


if __name__ == "__main__":
    main()
