"""Training prompts: read, checked, and laid out in the order in which every reward model sees them."""

from random import Random

from rlhf_eval.errors import DataError
from rlhf_eval.records import Prompt, as_messages
from rlhf_eval.sources import read_rows


def load_prompts(source: str) -> list[Prompt]:
    """Prompts from rows with `prompt` (text or messages), `messages` (a last assistant turn is cut) or
    `instruction`; the id is the row's `id` or its number.

    Raises:
        DataError: a row without any of these, or no rows.
    """
    prompts = []
    for number, row in enumerate(read_rows(source)):
        content = row.get("prompt") or row.get("messages") or row.get("instruction")
        if not content:
            raise DataError(
                f"'{source}', row {number + 1} has no prompt.", "Give `prompt`, `messages` or `instruction`."
            )
        messages = as_messages(content)
        if messages[-1].role == "assistant":
            messages = messages[:-1]
        prompts.append(Prompt(str(row.get("id", number)), messages))
    if not prompts:
        raise DataError(f"'{source}' holds no prompts.", "Give a file with at least one row.")
    return prompts


def in_training_order(prompts: list[Prompt], wanted: int, seed: int) -> list[Prompt]:
    """`wanted` prompts: shuffled by the seed, and shuffled anew each time the set is used up.

    The trainer reads this as a single epoch, which is what makes resuming exact.
    """
    random = Random(f"training order {seed}")
    ordered: list[Prompt] = []
    while len(ordered) < wanted:
        ordered += random.sample(prompts, len(prompts))
    return ordered[:wanted]
