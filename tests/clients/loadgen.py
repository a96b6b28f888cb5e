"""MLPerf LoadGen through a server of the Open Inference Protocol: its four scenarios must end VALID, and every answer must be right.

    loadgen.py HTTP FOLDER [MILLISECONDS]

HTTP is host:port of a server of tests/clients/app.toml, FOLDER takes LoadGen's logs and holds the model's ONNX file as `cosched zoo kws`
writes it. It refuses to judge by LoadGen's exit code, which is 0 for invalid runs too: the verdict stands in mlperf_log_summary.txt.
"""
import pathlib
import queue
import sys
import threading

import mlperf_loadgen as lg
import numpy as np
import onnxruntime
import tritonclient.http as http

HTTP, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
MS = int(sys.argv[3]) if len(sys.argv) > 3 else 3000
SAMPLES = 64
TENSORS = np.random.default_rng(11).standard_normal((SAMPLES, 1, 1, 49, 10)).astype(np.float32)
SESSION = onnxruntime.InferenceSession(FOLDER / "kws.onnx", providers=["CPUExecutionProvider"])
WANT = np.stack([SESSION.run(None, {"input": t})[0] for t in TENSORS])
WORKERS = 8


class Sut:
    """Hands queries to threads with a connection each; LoadGen is told as soon as an answer is there and is right."""

    def __init__(self):
        self.todo, self.wrong, self.done = queue.SimpleQueue(), [], 0
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(WORKERS)]
        for thread in self.threads:
            thread.start()

    def work(self):
        client = http.InferenceServerClient(HTTP)
        wanted = [http.InferRequestedOutput("output", binary_data=True)]
        while (sample := self.todo.get()) is not None:
            given = http.InferInput("input", TENSORS[sample.index].shape, "FP32")
            given.set_data_from_numpy(TENSORS[sample.index])
            try:
                result = client.infer("keyword", [given], outputs=wanted, parameters={"variant": "kws"})
                got = result.as_numpy("output")
                if np.abs(got - WANT[sample.index]).max() > 1e-4 * max(1.0, np.abs(WANT[sample.index]).max()):
                    self.wrong.append(f"sample {sample.index} is off")
            except Exception as error:  # LoadGen must hear of every query, or it waits for ever.
                self.wrong.append(str(error))
            self.done += 1
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])

    def issue(self, samples):
        for sample in samples:
            self.todo.put(sample)


def run(name, scenario, change):
    settings = lg.TestSettings()
    settings.scenario, settings.mode = scenario, lg.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = MS, 1
    change(settings)
    logs = FOLDER / f"loadgen-{name}"
    logs.mkdir(exist_ok=True)
    output = lg.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(logs), False
    log = lg.LogSettings()
    log.log_output, log.enable_trace = output, False
    sut = Sut()
    system = lg.ConstructSUT(sut.issue, lambda: None)
    library = lg.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(system, library, settings, log)
    lg.DestroyQSL(library)
    lg.DestroySUT(system)
    for _ in sut.threads:
        sut.todo.put(None)
    summary = (logs / "mlperf_log_summary.txt").read_text()
    valid = "Result is : VALID" in summary
    figures = [line for line in summary.splitlines() if line.startswith(("Completed samples", "90", "99", "90.0", "Samples per second", "Scheduled")) or "percentile latency" in line]
    print(f"{name}: {'VALID' if valid else 'INVALID'}, {sut.done} queries answered; " + "; ".join(" ".join(f.split()) for f in figures[:4]), flush=True)
    assert not sut.wrong, sut.wrong[:3]
    return valid, summary


def server(qps, bound_ms):
    def change(s):
        s.server_target_qps, s.server_target_latency_ns = qps, int(bound_ms * 1e6)
        s.server_target_latency_percentile = 0.99
        s.min_query_count = 800  # Early stopping needs 662 for a 99th percentile.

    return change


# LoadGen makes its queries beforehand, as many as fit into the least duration at the speed that it is told to expect: too few for a faster server.
def single(s):
    s.single_stream_expected_latency_ns = 50_000
    s.min_query_count = 100


def offline(qps):
    def change(s):
        s.offline_expected_qps = qps

    return change


def multi(s):
    s.multi_stream_expected_latency_ns = 500_000
    s.multi_stream_samples_per_query = 8
    s.min_query_count = 700


def main():
    for name, scenario, change in (
        ("single-stream", lg.TestScenario.SingleStream, single),
        ("multi-stream", lg.TestScenario.MultiStream, multi),
    ):
        valid, summary = run(name, scenario, change)
        assert valid, summary
    # All at once: enough of them to last, on whatever machine.
    for qps in (400, 1600, 6400):
        valid, summary = run(f"offline-{qps}", lg.TestScenario.Offline, offline(qps))
        if valid:
            break
    assert valid, summary
    # The server scenario asks which rate meets the bound; on a busy machine that is a lower one.
    for qps in (100, 50, 25, 10):
        valid, summary = run(f"server-{qps}", lg.TestScenario.Server, server(qps, 250))
        if valid:
            break
    assert valid, summary
    # The saboteur: a bound that nothing can meet must be found INVALID, or the check above is blind.
    valid, _ = run("impossible", lg.TestScenario.Server, server(100, 0.001))
    assert not valid, "LoadGen accepts anything"


main()
