# Hands cells of a sweep to a Ray cluster: reads the job as JSON from standard input, writes a line of JSON a finished cell.
# A cell is one run of `cosched sweep ... --cell HASH`, which keeps its own result; nothing of a cell passes through here.
import json
import subprocess
import sys

import ray

job = json.load(sys.stdin)
ray.init(address=job["address"], logging_level="ERROR", log_to_driver=False)


# A worker that is lost, or a cell that is killed, is tried again; a cell that fails is not.
@ray.remote(num_cpus=job["cpus"], max_retries=job["retries"], retry_exceptions=[InterruptedError])
def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode < 0:
        raise InterruptedError(f"killed by signal {-done.returncode}")
    return done.returncode, done.stderr[-2000:]


waiting = {run.remote(job["command"] + ["--cell", cell], job["folder"]): cell for cell in job["cells"]}
while waiting:
    for ready in ray.wait(list(waiting), num_returns=1)[0]:
        cell = waiting.pop(ready)
        try:
            code, said = ray.get(ready)
        except ray.exceptions.RayError as error:
            code, said = 1, str(error)
        print(json.dumps({"cell": cell, "code": code, "said": said}), flush=True)
