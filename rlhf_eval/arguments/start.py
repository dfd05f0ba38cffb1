"""Arguments of the commands for a beginning: a folder of one's own, and completion in the shell."""

from pathlib import Path
from typing import Any


def init(command: Any) -> None:
    init = command(
        "init",
        "Make a folder for an experiment of your own, with a commented configuration.",
        "rlhf-eval init my-experiment",
    )
    init.add_argument(
        "folder", type=Path, metavar="FOLDER", help="to be made; the experiment is called as it is"
    )


def completion(command: Any) -> None:
    completion = command(
        "completion",
        "Print what a shell needs to complete commands, options, choices and fields.",
        'eval "$(rlhf-eval completion bash)"',
        "rlhf-eval completion fish > ~/.config/fish/completions/rlhf-eval.fish",
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish"
    )
