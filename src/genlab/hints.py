"""The one line that a mistyped key, option or override deserves."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.errors import GenlabError
from genlab.folders import conf_dir

SETTLED = ("data", "optimizer", "trainer", "logger", "evaluation", "evaluation.reference")  # by schemas.py

ELSEWHERE = {  # as other platforms name them; ours counts images
    "learning_rate": "optimizer.lr",
    "gpus": "trainer.devices",
    **dict.fromkeys(
        ("epochs", "max_epochs", "num_epochs", "max_steps", "num_steps", "iterations", "n_iters"), "trainer.max_images"
    ),
}


def explain(name: str, overrides: list[str], error: Exception, searchpath: Sequence[str] = ()) -> str:
    """The one line that a mistyped override deserves."""
    known = known_keys(name)
    for text in overrides:
        key = text.split("=", 1)[0].lstrip("+~").split("@")[0]
        if (conf_dir() / key).is_dir() and "=" in text:
            if said := unknown(key, text.split("=", 1)[1], searchpath):
                return said
        elif key not in known and not key.startswith("hydra") and not text.startswith("+"):
            owner = key.rpartition(".")[0]
            if any(other.startswith(f"{owner}._target_=") for other in overrides):
                return f"{owner} has no {key!r} before its target is changed: write +{text}"
            elsewhere = ELSEWHERE.get(key.rpartition(".")[2])
            return f"no key {key!r}{f' - did you mean {elsewhere}?' if elsewhere else near(key, known)}"
    if isinstance(error, AssertionError):  # OmegaConf's own, of a key within one that is null
        within = [text for text in overrides if text.split("=", 1)[0].count(".") > 1]
        return f"{', '.join(within)}: what should hold this is null here"
    return line_of(error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error)


def unknown(group: str, value: str, searchpath: Sequence[str] = ()) -> str | None:
    """What to say of a choice that a group does not have; None of one that it has."""
    folders = [Path(root) / group for root in (conf_dir(), *searchpath)]
    options = sorted({str(p.relative_to(f).with_suffix("")) for f in folders for p in f.rglob("[!_]*.yaml")})
    if value in options or value == "null" or any((f / f"{value}.yaml").is_file() for f in folders):
        return None
    beside = [option for option in options if "/" in value and option.startswith(value.partition("/")[0] + "/")]
    return f"no {group} {value!r}{near(value, options)}; there is {', '.join(beside or options)}"


def refuse_mistyped(name: str, overrides: list[str], searchpath: Sequence[str]) -> None:
    """Raise GenlabError for a key that is added with + where nothing would read it: one that is nearly one that there is,
    one more of a group whose keys are settled, or one of its own that no other override and no file of the user's names."""
    additions = [text for text in overrides if text.startswith("+")]
    known = known_keys(name) if additions else []
    for text in additions:
        key = text.split("=", 1)[0].lstrip("+").split("@")[0]
        if (
            key in known
            or "/" in key
            or key.split(".")[0] == "hydra"
            or any((Path(p) / key).is_dir() for p in searchpath)
        ):
            continue
        top, nested, _ = key.partition(".")
        files = (path.read_text(errors="replace") for root in searchpath for path in Path(root).rglob("*.yaml"))
        own_key = top not in {k.split(".")[0] for k in known}
        named = own_key and any(re.search(rf"\$\{{[^}}]*\b{top}\b", t) for t in (*overrides, *files) if t != text)
        if (own_key and not named) or (nested and key.rpartition(".")[0] in SETTLED):
            raise GenlabError(f"no key {key!r}{near(key, known)}: nothing would read what + adds there")
        owner, dot, own = key.rpartition(".")
        siblings = [k[len(owner + dot) :] for k in known if k.rpartition(".")[0] == owner]
        close = difflib.get_close_matches(own, siblings, n=1, cutoff=0.8)
        if close and own not in siblings and not named:
            raise GenlabError(f"no key {key!r}, which + would add for nothing - did you mean {owner}{dot}{close[0]}?")


def known_keys(name: str) -> list[str]:
    """Every dotted key of the default configuration, its groups, and the keys of every option of a group."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(name)
    keys = set(flatten(config, ""))
    for path in conf_dir().rglob("*.yaml"):
        loaded = OmegaConf.load(path)
        if isinstance(loaded, DictConfig) and path.parent != conf_dir():
            keys.update(flatten(loaded, _place(path)))
    return sorted(keys | {p.name for p in conf_dir().iterdir() if p.is_dir()})


def _place(path: Path) -> str:
    """What the keys of an option begin with: `variational.objective.` in variational/objective/beta.yaml, `sampler.` in
    sampler/digits/heun.yaml, and nothing in an experiment."""
    folder, prefix = conf_dir(), ""
    for part in path.relative_to(conf_dir()).parts[:-1]:
        folder, prefix = folder / part, f"{prefix}{part}."
        if any(folder.glob("*.yaml")):
            break
    return "" if prefix.startswith("experiment.") else prefix


def flatten(node: DictConfig, prefix: str) -> Iterator[str]:
    """Every dotted key of a configuration, those of nodes and of leaves."""
    for key in node:
        if key != "defaults":
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
                yield from flatten(child, f"{prefix}{key}.")


def near(word: str, words: Sequence[str]) -> str:
    """— did you mean X?: what is close as a whole, of the same last part (of keys and paths) first; else the least deep of
    those with this last part, one that begins or ends it, or one close to it."""
    end, *ends = (re.split(r"[./]", w)[-1] for w in (word, *words))
    same = [w for w, e in zip(words, ends, strict=True) if e == end]
    close = difflib.get_close_matches(word, same or words, n=1, cutoff=0.7) if word != end or not same else []
    if not close:
        parts = sorted((e for e in ends if end.startswith(f"{e}_") or end.endswith(f"_{e}")), key=len)
        nearest = [end] if same else parts[-1:] or difflib.get_close_matches(end, ends, n=1, cutoff=0.6)
        close = [w for w, e in zip(words, ends, strict=True) if e in nearest]
        close = [w for w in close if w.count(".") == min(c.count(".") for c in close)]
    return f" - did you mean {' or '.join(close)}?" if close else ""


def line_of(error: Exception) -> str:
    """An error of Hydra's or OmegaConf's in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    full_key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    message = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    ours = message.partition("GenlabError raised while resolving interpolation: ")[2]
    if ours:
        return ours
    if "is not in struct" in message:  # a key of another option of its group
        return f"no key {full_key!r} in what was chosen there"
    if re.search(r"Interpolation key '\w+\.shape\.[12]' not found", message):
        return f"{full_key}: a side of images is asked for, and these data have none: choose another network=OPTION"
    if whole := re.search(r"Value '(\d+)\.0' of type 'float' could not be converted to Integer", message):
        message += f": write {whole[1]}"
    return f"{full_key}: {message}" if full_key else message
