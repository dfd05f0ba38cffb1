"""The command `rlhf-eval`: its arguments, its exit codes and how it shows errors.

Exit codes: 0 done, 1 something failed, 2 usage or configuration, 75 ended by SIGTERM and to be given again,
130 interrupted. What the subcommands do
stands in `commands/`, a module of which is imported only when one of its is carried out.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

from rlhf_eval.arguments import build_parser
from rlhf_eval.errors import ConfigError, RlhfEvalError, did_you_mean
from rlhf_eval.interruption import EXIT_CODE, Interrupted, stop_listening
from rlhf_eval.keys import without_secrets

MODULES = {
    **dict.fromkeys(("demo", "run", "validate", "ls"), "runs"),
    **dict.fromkeys(("sweep", "status", "cancel", "logs"), "sweeps"),
    **dict.fromkeys(("rank", "plot", "report"), "results"),
    "checkpoints": "checkpoints",
    "frontier": "frontier",
    "table": "table",
    "correlate": "correlate",
    "reward": "rewards",
    **dict.fromkeys(("benchmark", "private"), "benchmarks"),
    "audit": "audits",
    "score": "scores",
    "power": "power",
    "judge": "adaptive",
    **dict.fromkeys(("reproduce", "diff", "export", "import"), "reproduction"),
    "doctor": "doctor",
    **dict.fromkeys(("init", "completion"), "start"),
}
"""Where each command's deed stands in `rlhf_eval/commands/`: a function of its name (`import_`)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _carry_out(words)
    except RlhfEvalError as error:
        told = traceback.format_exc() if "--debug" in words else f"error: {error}"
        print(without_secrets(told), file=sys.stderr)
        return error.exit_code
    except Interrupted:
        print("interrupted by SIGTERM: the same command continues from here", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted: the same command continues from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        stop_listening()


def _carry_out(words: list[str]) -> int:
    parser, commands = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks at TAB
        from rlhf_eval.arguments.completion import complete

        complete(parser)
    if words and not words[0].startswith("-") and words[0] not in commands:
        raise ConfigError(f"There is no command '{words[0]}'.", did_you_mean(words[0], commands))
    options, rest = parser.parse_known_args(words)
    if hasattr(options, "overrides"):  # overrides may stand before and after options
        options.overrides += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        name = f"{options.command} {options.action}" if "action" in options else options.command
        known = commands[name]._option_string_actions
        raise ConfigError(
            f"`rlhf-eval {name}` has no option {rest[0]}.",
            did_you_mean(rest[0], (name for name in known if name.startswith("--"))),
        )
    module = import_module(f"rlhf_eval.commands.{MODULES[options.command]}")
    name = options.command + ("_" if iskeyword(options.command) else "")
    return getattr(module, name)(options)
