"""`rlhf-eval doctor` on the login node of a cluster."""

import json

import pytest

from tests.slurm.conftest import Login

pytestmark = pytest.mark.slurm


def test_the_cluster_is_described(login: Login) -> None:
    done = login.call("doctor", "--json")
    rows = {row["check"]: row for row in json.loads(done.stdout) if row["topic"] == "SLURM"}
    assert {row["state"] for row in rows.values()} == {"pass"}
    assert "4 nodes, gpu:fake:2" in rows["partitions"]["seen"]
    assert "JobRequeue=1" in rows["requeueing"]["seen"]
    assert rows["accounting"]["seen"] == "sacct answers"
