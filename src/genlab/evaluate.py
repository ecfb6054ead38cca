"""usage: genlab evaluate RUN [METRIC ...] [evaluation=PRESET] [evaluation.n=1437] [sampler=ddim,euler] [sampler.steps=10,50]
                       [weights=ema,raw,NAME] [checkpoint=last,best] [devices=1]
       genlab evaluate SAMPLES data=NAME [METRIC ...] [evaluation=PRESET] [outputs=FOLDER]
       genlab evaluate SAMPLES against=IMAGES [METRIC ...] evaluation=PRESET
       genlab evaluate --train-extractor data=NAME

Scores a trained run again: with another sampler, more samples, another extractor, or only some metrics (by their names
in conf/evaluation/, such as frechet, and likelihood). Several values of a key, separated by commas, are scored one after the
other. With devices=8 eight devices of this machine draw and score their shares, for the same numbers. Appends to the run's
metrics.jsonl, each number with its whole protocol. An autoencoder is scored by what it makes of the whole split (rFID).

SAMPLES that another program made, in a folder, .zip or .npz, are scored under the same protocol as runs are, against a
data set or against other images; their numbers lie in outputs/DATA/NAME/, where `genlab compare` finds them.
--train-extractor trains, or finds, the classifier whose features the protocol `offline` takes for a data set.
"""

import json
import sys
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

from genlab.errors import GenlabError, printable
from genlab.hints import near
from genlab.options import RECORDED, overridden, parse, protocols, verb

TRAIN_EXTRACTOR, LIKELIHOOD = "--train-extractor", "likelihood"


@dataclass
class Options:
    weights: str = "ema"  # "raw", or the name of another average of the run
    checkpoint: str = "last"  # or "best", by the metric that training watched
    data: str | None = None  # what samples from elsewhere are held against
    against: str | None = None  # or other images
    outputs: str = "outputs"
    devices: int = 1
    trust: bool = False


def rescore(
    path: Path, metrics: list[str], options: Options, overrides: list[str], known: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The new rows of the run's metrics.jsonl; raises GenlabError for what the user can mend.

    `known` holds what a protocol needs of the data, for whoever scores more than once by it.
    """
    from genlab.distributed import ranks
    from genlab.instantiation import build
    from genlab.run import Run
    from genlab.scoring import Scoring, load

    run = Run.existing(path)
    config = overridden(run.config, overrides)
    if "cache" not in config["evaluation"]:
        raise GenlabError(f"{path} was recorded with a protocol of before: name one, as evaluation=offline")
    choose(config["evaluation"], metrics)
    module, state = load(run, config, options.weights, options.trust, options.checkpoint)
    known = {} if known is None else known
    protocol = json.dumps([config["evaluation"], config["data"]], sort_keys=True)
    if protocol not in known:
        source = build(config["data"]["source"], options.trust)
        known[protocol] = Scoring(config, source, module.device, options.trust)
    by = state["best"]["metric"] if options.checkpoint == "best" else None
    rows = known[protocol].module(module, config["model"], options.weights, state["seconds"], by)
    if not ranks()[0]:
        for row in rows:
            run.append("metrics.jsonl", row)
    return rows


def choose(evaluation: dict[str, Any], metrics: list[str]) -> None:
    """Leave only what is named, if anything is: metrics, those of the module itself, and the likelihood."""
    own = evaluation["module_metrics"] or {}
    known = [*evaluation["metrics"], *own, LIKELIHOOD]
    for name in metrics:
        if name not in known:
            of = protocols(name)
            hint = f" in this protocol, but in evaluation={', '.join(of)}" if of else near(name, known)
            raise GenlabError(f"no metric {name!r}{hint}; there is {', '.join(known)}")
    if metrics:
        evaluation["metrics"] = {name: metric for name, metric in evaluation["metrics"].items() if name in metrics}
        evaluation["module_metrics"] = {name: metric for name, metric in own.items() if name in metrics}
        evaluation["likelihood"] = LIKELIHOOD in metrics


def grid(arguments: list[str]) -> list[list[str]]:
    """The command lines that one with several values of a key, separated by commas, stands for."""
    several = {*RECORDED, "weights", "checkpoint"}
    choices = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        split = equals and key.split(".")[0] in several and key != "evaluation.reference.of"  # which is words
        choices.append([f"{key}={one}" for one in _values(value)] if split else [argument])
    return [list(chosen) for chosen in product(*choices)]


def _values(text: str) -> list[str]:
    """What commas outside of brackets separate."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        spread, error = row.get("spread"), row.get("stderr")
        beside = f" ± {spread:.2g} over {len(row['values'])} sets" if spread is not None else ""
        beside = beside or ("" if error is None or isnan(error) else f" ± {error:.2g}")
        floor = next((v["value"] for k, v in row["references"].items() if k in ("train", "test")), None)
        print(
            f"{printable(row['metric']):>24} {row['value']:.4g}{beside}"
            + ("" if floor is None else f"   (floor {floor:.4g})")
        )


def _act(arguments: list[str]) -> None:
    if TRAIN_EXTRACTOR in arguments:
        from genlab.foreign import train_extractor

        _, options, overrides = parse([a for a in arguments if a != TRAIN_EXTRACTOR], Options)
        print(train_extractor(options.data, overrides))
        return
    lines = grid(arguments)
    words, options, _ = parse(lines[0], Options)
    if not words:
        raise GenlabError("a RUN, or a folder, .zip or .npz of samples is needed")
    if options.devices > 1 and (options.data is not None or options.against is not None):
        raise GenlabError(f"devices={options.devices}: only a run is scored on several")
    from genlab.together import together

    with together(options.devices) as first:
        _score(lines, first)


def _score(lines: list[list[str]], first: bool) -> None:
    known: dict[str, Any] = {}
    for line in lines:
        words, options, overrides = parse(line, Options)
        path = Path(words[0])
        if len(lines) > 1 and first:
            print(" ".join(a for a in line if a not in words), file=sys.stderr)
        if options.data is None and options.against is None:
            if path.exists() and not (path / "config.yaml").is_file():
                raise GenlabError(f"{path} is no run; if it holds samples, add data=NAME or against=IMAGES")
            rows = rescore(path, words[1:], options, overrides, known)
            _show(rows if first else [])
        else:
            from genlab.foreign import score_samples

            folder, rows = score_samples(path, words[1:], options, overrides)
            _show(rows)
            print(f"genlab: recorded in {folder}")


def main() -> None:
    verb(__doc__ or "", _act, "what was scored before is recorded, and nothing by halves")


if __name__ == "__main__":
    main()
