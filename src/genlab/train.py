"""usage: genlab train [experiment=digits/ddpm] [key=value ...] [--cfg job] [--multirun]

Trains one model, scores it, and records everything in outputs/<data>/<model>/<hash>-s<seed>/. The same command again
continues an interrupted run, and does not repeat a finished one (force=true does).
"""

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from genlab.config import preflight, run_dir
from genlab.errors import GenlabError
from genlab.finished import finished
from genlab.folders import conf_dir
from genlab.printing import say


def _task(config: DictConfig) -> float | None:
    try:
        folder = Path(run_dir(config))
        if status := finished(config, folder):  # before torch and lightning, which take seconds to import
            return status["objective"]
        from genlab.training import train

        return train(config, folder)
    except GenlabError as error:
        print(f"genlab: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before the run could save anything, or for the second time
        print("genlab: stopped at once; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    arguments = get_args_parser().parse_args()
    prints_only = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info
    unchecked = arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion
    if not unchecked and arguments.config_name in (None, "train") and arguments.config_path is None:
        try:
            places = [arguments.config_dir] if arguments.config_dir else []
            preflight("train", arguments.overrides, places, check=not arguments.cfg)
        except GenlabError as error:
            print(f"genlab: {error}", file=sys.stderr)
            sys.exit(2)
    run = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(_task)
    if prints_only:
        try:
            with redirect_stdout(StringIO()) as shown:
                run()
        finally:  # Hydra leaves after its help
            say((f"{__doc__}\n" if arguments.help else "") + shown.getvalue().rstrip("\n"))
    else:
        run()


if __name__ == "__main__":
    main()
