"""Samples that other programs made, scored as the samples of runs are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from genlab.config import preflight
from genlab.data.__main__ import composed
from genlab.errors import GenlabError

if TYPE_CHECKING:
    from genlab.evaluate import Options


def score_samples(
    path: Path, metrics: list[str], options: "Options", overrides: list[str]
) -> tuple[Path, list[dict[str, Any]]]:
    """The folder that records the scores of the images at a path, and its rows; raises GenlabError for what can be mended."""
    import torch

    from genlab.data.loader import select
    from genlab.evaluate import choose
    from genlab.evaluation.banks import chunks
    from genlab.evaluation.given import Given
    from genlab.instantiation import build
    from genlab.noise import key
    from genlab.pictures import picture
    from genlab.run import Run
    from genlab.scoring import Scoring

    config = _composed(options, overrides)
    samples = Given(path, config["evaluation"]["cache"], None if options.against else config["data"]["shape"])
    x = samples.split("test").x
    config = _composed(options, [*overrides, f"evaluation.n={len(x)}"])  # of which the names of metrics may speak
    evaluation, data = config["evaluation"], config["data"]
    choose(evaluation, metrics)
    codec = build(data["codec"])
    if options.against is None:
        source = build(data["source"], options.trust)
    else:
        source = Given(Path(options.against), evaluation["cache"])
        data.update(name=source.name, levels=256, classes=0)
        evaluation["floors"], evaluation["reference"]["split"] = [], "test"  # which is all there is
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scoring = Scoring(config, source, device, options.trust)
    # in an order of no meaning: of samples class by class each tenth, of which errors are made, could be one class
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(key("samples")))
    shuffled = select(samples.split("test"), order)
    scores = scoring.evaluator.score([chunks(shuffled, evaluation["batch"])], len(x))
    digest = samples.sha256("test")
    made = scoring.protocol(len(x), weights="of another program", checkpoint={"samples": str(path), "sha256": digest})
    floors = scoring.evaluator.floor(codec.decode, x.shape[1:]) if evaluation["floors"] else {}
    rows = [made.line(name, score.row, floors.get(name, {}), options=score.options) for name, score in scores.items()]
    run = Run(Path(options.outputs) / data["name"] / samples.name / f"{digest[:10]}-s0")
    run.samples.mkdir(parents=True, exist_ok=True)
    run.write_config(
        {"data": data, "model_name": samples.name, "seed": 0, "samples": str(path), "evaluation": evaluation}
    )
    run.write_status("finished", 0, 0, why=None)
    for row in rows:
        run.append("metrics.jsonl", row)
    picture(x[:64]).save(run.samples / "final.png")
    return run.path, rows


def train_extractor(data: str | None, overrides: list[str]) -> str:
    """What the classifier that the protocol `offline` takes for a data set is, trained if there is none yet."""
    from genlab.instantiation import build

    if data is None:
        raise GenlabError("data=NAME is needed: the data set whose classes the extractor learns")
    config = _composed(None, ["evaluation=offline", *overrides], data)
    source, extractor = build(config["data"]["source"]), build(config["evaluation"]["features"])
    accuracy = extractor.accuracy(source, "test")
    return (
        f"genlab: {extractor.name}, sha256 {extractor.fingerprint[:12]}: {100 * accuracy:.1f} % of the test split right"
    )


def _composed(options: "Options | None", overrides: list[str], data: str | None = None) -> dict[str, Any]:
    """Data and evaluation as `genlab train` composes them."""
    data = data or (options and options.data)
    chosen = [f"data={data}"] if data else []
    if data is None and not any(o.startswith("evaluation=") for o in overrides):
        raise GenlabError("against=IMAGES needs a protocol with an extractor for any images, such as evaluation=clean")
    if data is not None:
        composed(data, [])  # which knows the nearest name
    wrong = [o for o in overrides if not o.startswith("evaluation")]
    if wrong:
        raise GenlabError(f"{wrong[0]}: samples that are made already have no such choice")
    config = preflight("train", [*chosen, "network=noisy_mlp", "outputs=.", *overrides], check=False)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return {"data": plain["data"], "evaluation": plain["evaluation"]}
