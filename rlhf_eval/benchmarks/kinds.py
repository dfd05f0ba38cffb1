"""Every kind of benchmark; a new one is a module beside this with a `Benchmark`, and a line here."""

from rlhf_eval.registry import Registry

KINDS = Registry(
    "benchmark kind",
    {
        "pairs": "rlhf_eval.benchmarks.pairs:PAIRS",
        "judgebench": "rlhf_eval.benchmarks.judgebench:JUDGEBENCH",
        "rewardbench": "rlhf_eval.benchmarks.rewardbench:REWARDBENCH",
        "rewardbench2": "rlhf_eval.benchmarks.rewardbench2:REWARDBENCH2",
        "rm_bench": "rlhf_eval.benchmarks.rm_bench:RM_BENCH",
        "rmb_pairwise": "rlhf_eval.benchmarks.rmb:PAIRWISE",
        "rmb_best_of_n": "rlhf_eval.benchmarks.rmb:BEST_OF_N",
        "ppe_preference": "rlhf_eval.benchmarks.ppe_preference:PPE_PREFERENCE",
        "ppe_correctness": "rlhf_eval.benchmarks.ppe_correctness:PPE_CORRECTNESS",
    },
)
