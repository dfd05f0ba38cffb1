"""`rlhf-eval init|completion`: a folder to begin in, and what a shell needs to complete commands."""

from argparse import Namespace


def init(options: Namespace) -> int:
    from rlhf_eval.config.starter import make

    for file in make(options.folder):
        print(file)
    print(f"cd {options.folder} and read README.md")
    return 0


def completion(options: Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["rlhf-eval"], shell=options.shell))
    return 0
