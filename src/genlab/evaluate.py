"""usage: genlab evaluate RUN [METRIC ...] [weights=ema|raw|NAME] [evaluation.n=1437] [sampler=ddim] [sampler.steps=50]

Scores a trained run again: with another sampler, more samples, another extractor, or only some metrics (by their names
in conf/evaluation/, such as frechet). Appends to the run's metrics.jsonl, each number with its whole protocol.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.config import near
from genlab.errors import GenlabError
from genlab.options import overridden, parse, verb


@dataclass
class Options:
    weights: str = "ema"  # "raw", or the name of another average of the run
    trust: bool = False


def rescore(path: Path, metrics: list[str], options: Options, overrides: list[str]) -> list[dict[str, Any]]:
    """The new rows of the run's metrics.jsonl; raises GenlabError for what the user can mend."""
    from genlab.instantiation import build
    from genlab.run import Run
    from genlab.scoring import evaluate, load

    run = Run.existing(path)
    config = overridden(run.config, overrides)
    known = config["evaluation"]["metrics"]
    for name in metrics:
        if name not in known:
            raise GenlabError(f"no metric {name!r}{near(name, list(known))}; there is {', '.join(known)}")
    if metrics:
        config["evaluation"]["metrics"] = {name: known[name] for name in metrics}
    module, seconds = load(run, config, options.weights, options.trust)
    source = build(config["data"]["source"], options.trust)
    rows = evaluate(config, module, source, options.weights, seconds, trust=options.trust)
    for row in rows:
        run.append("metrics.jsonl", row)
    return rows


def _act(arguments: list[str]) -> None:
    words, options, overrides = parse(arguments, Options)
    if not words:
        raise GenlabError("a RUN is needed")
    for row in rescore(Path(words[0]), words[1:], options, overrides):
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.2g}"
        floor = row["references"].get("train", {}).get("value")
        print(f"{row['metric']:>24} {row['value']:.4g}{error}" + ("" if floor is None else f"   (floor {floor:.4g})"))


def main() -> None:
    verb(__doc__ or "", _act)


if __name__ == "__main__":
    main()
