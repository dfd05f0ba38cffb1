"""A folder to begin an experiment of one's own in: `rlhf-eval init`."""

from pathlib import Path

from rlhf_eval.config.checks import NAME
from rlhf_eval.config.folders import choice_file, conf_folder, groups
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import write_text

FILES = {
    "README.md": "README.md",
    "conf/experiment/NAME.yaml": "experiment.yaml",
    "conf/reward_model/my_rule.yaml": "my_rule.yaml",
    "conf/reward_model/my_model.yaml": "my_model.yaml",
    "rewards.py": "rewards.py",
}
"""Where each file of `rlhf_eval/starter/` goes."""
CLUSTER = "conf/cluster/my_cluster.yaml"


def make(folder: Path) -> list[Path]:
    """Write the files and return them. The experiment is called as the folder is.

    Raises:
        ConfigError: one of the files is there already, or the folder's name cannot be an experiment's.
    """
    name = folder.resolve().name
    if not (NAME.fullmatch(name) and name[0].isalpha()) or name in groups(conf_folder())["experiment"]:
        raise ConfigError(
            f"'{name}' cannot be the name of an experiment of your own.",
            "Choose a folder of letters, digits, '-', '_' and '.', without '--', that begins with a letter "
            "and is not called as an experiment that comes with rlhf_eval.",
        )
    starter = Path(__file__).parents[1] / "starter"
    texts = {place: (starter / file).read_text(encoding="utf-8") for place, file in FILES.items()}
    cluster = choice_file("cluster", "slurm").read_text(encoding="utf-8")
    texts[CLUSTER] = cluster.replace("\nname: slurm\n", "\nname: my_cluster\n")
    made = {folder / place.replace("NAME", name): text.replace("NAME", name) for place, text in texts.items()}
    if there := [str(file) for file in (*made, folder) if file.is_file()]:
        raise ConfigError(f"{there[0]} is there already.", "Name a new folder, or move that file away.")
    for file, text in made.items():
        write_text(file, text)
    return list(made)
