"""Ray Train: commits that hold, workers that come back, drivers that come back, storage anywhere."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from alray import storage
from alray.errors import ModelError, RuntimeFailure, TrainingError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def sent_by_value(ray_runtime):
    """Workers cannot import this file; its functions are sent whole. Ray is imported after its settings are made."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def count(config, worker):
    """Count epochs; write a line per start; once, die on rank 0 as soon as `kill_after` is reported, or hang."""
    import torch.distributed as dist

    with worker.resume() as folder:
        done = int((folder / "n.txt").read_text()) if folder else 0
    with open(f"{config['log']}.{worker.rank}", "a") as log:
        log.write(json.dumps({"from": done, "world": worker.world, "backend": dist.get_backend()}) + "\n")
    for n in range(done + 1, config["epochs"] + 1):
        if n == config.get("wait_at") and not os.path.exists(config["log"] + ".waits"):
            open(config["log"] + ".waits", "w").close()
            time.sleep(600)  # to be killed with its driver
        worker.report({"n": n, "from": done}, lambda path, n=n: (path / "n.txt").write_text(str(n)) and None)
        if n == config.get("kill_after") and worker.rank == 0 and not os.path.exists(config["log"] + ".killed"):
            open(config["log"] + ".killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def fail(config, worker):
    if config["ours"]:
        raise ModelError("the weights do not fit")
    raise ZeroDivisionError("a bug")


def starts(log, rank):
    with open(f"{log}.{rank}") as lines:
        return [json.loads(line) for line in lines]


def test_a_worker_killed_right_after_a_report_loses_nothing_that_was_reported(ray_runtime, tmp_path):
    config = {"log": str(tmp_path / "log"), "epochs": 6, "kill_after": 2}
    result = ray_runtime.train(count, config, workers=2, name="round-0001", folder=str(tmp_path / "out"))
    assert os.path.exists(config["log"] + ".killed")
    for rank in (0, 1):
        assert [s["from"] for s in starts(config["log"], rank)] == [0, 2]
    assert starts(config["log"], 0)[0] == {"from": 0, "world": 2, "backend": "gloo"}
    assert result.metrics == {"n": 6, "from": 2}
    assert [m["n"] for m in result.history] == [1, 2, 3, 4, 5, 6]
    assert storage.read_text(storage.join(result.checkpoint, "n.txt")) == "6"
    again = ray_runtime.train(count, config, workers=2, name="round-0001", folder=str(tmp_path / "out"))
    assert again == result and starts(config["log"], 0)[-1]["from"] == 6


def test_a_list_of_checkpoints_cut_short_by_a_kill_starts_the_training_again(ray_runtime, tmp_path, caplog):
    config = {"log": str(tmp_path / "log"), "epochs": 2}
    run = {"workers": 1, "name": "a", "folder": str(tmp_path / "out")}
    ray_runtime.train(count, config, **run)
    (index,) = tmp_path.glob("out/a/checkpoint_manager_snapshot.json")
    index.write_text(index.read_text()[:9])
    assert ray_runtime.train(count, config, **run).metrics == {"n": 2, "from": 0}
    assert "starts again from its first epoch" in caplog.text


def test_a_relative_folder_stays_relative(ray_runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ray_runtime.train(count, {"log": str(tmp_path / "log"), "epochs": 1}, workers=1, name="a", folder="runs/x")
    assert result.checkpoint.startswith("runs/x/a/") and storage.exists(f"{result.checkpoint}/n.txt")


def test_it_trains_on_object_storage(ray_runtime, tmp_path, s3):
    config = {"log": str(tmp_path / "log"), "epochs": 2}
    result = ray_runtime.train(count, config, workers=1, name="a", folder=f"{s3}/train-ray")
    assert result.checkpoint.startswith(f"{s3}/train-ray/a/") and result.metrics["n"] == 2
    assert storage.read_text(storage.join(result.checkpoint, "n.txt")) == "2"


def test_errors_of_ours_come_back_as_they_are(ray_runtime, tmp_path):
    with pytest.raises(ModelError, match="the weights do not fit"):
        ray_runtime.train(fail, {"ours": True}, workers=1, name="a", folder=str(tmp_path), max_failures=0)
    with pytest.raises(TrainingError, match=r"(?s)The training run b failed 1 times: .*a bug"):
        ray_runtime.train(fail, {"ours": False}, workers=1, name="b", folder=str(tmp_path), max_failures=0)


def test_a_training_that_finds_no_room_gives_up_and_may_be_tried_again(ray_runtime, tmp_path, monkeypatch):
    from alray.runtime.ray_train import train

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "0.5")
    config = {"log": str(tmp_path / "log"), "epochs": 1}
    said = (
        r"^The training run a found no room for 64 workers within 2 s \(`runtime.deadline_s`\): .*Run the same command"
    )
    with pytest.raises(RuntimeFailure, match=f"(?s){said}"):
        train(count, config, workers=64, name="a", folder=str(tmp_path / "out"), deadline_s=2.0)
    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S")
    assert ray_runtime.train(count, config, workers=1, name="a", folder=str(tmp_path / "out")).metrics["n"] == 1


DRIVER = """
import sys
import importlib.util
from alray.runtime import RuntimeConfig, open_runtime
spec = importlib.util.spec_from_file_location("loops", sys.argv[1])
loops = importlib.util.module_from_spec(spec)
sys.modules["loops"] = loops
spec.loader.exec_module(loops)
with open_runtime(RuntimeConfig(name="ray", workers=1)) as runtime:
    import ray.cloudpickle
    ray.cloudpickle.register_pickle_by_value(loops)
    config = {"log": sys.argv[2] + "/log", "epochs": 5, "wait_at": 4}
    print(runtime.train(loops.count, config, workers=1, name="a", folder=sys.argv[2] + "/out").metrics)
"""


def test_a_killed_driver_goes_on_when_it_is_run_again(tmp_path):
    command = [sys.executable, "-c", DRIVER, __file__, str(tmp_path)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    give_up = time.monotonic() + 200
    while not (tmp_path / "log.waits").exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    first.kill()
    first.wait()
    second = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert second.returncode == 0, second.stderr[-2000:]
    assert [s["from"] for s in starts(str(tmp_path / "log"), 0)] == [0, 3]
    assert str({"n": 5, "from": 3}) in second.stdout
