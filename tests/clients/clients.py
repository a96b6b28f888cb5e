#!/usr/bin/env python3
"""Triton's public Python clients against a running `cosched serve` of app.toml: HTTP and gRPC, blocking and asyncio.

    clients.py HTTP_ADDRESS GRPC_ADDRESS FOLDER_WITH_ONNX_FILES

Every check prints a line; the first that fails ends with its traceback. Answers are compared with onnxruntime's own.
It refuses to start or stop the server: scripts/test-clients does.
"""
import asyncio
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

HTTP, GRPC, ZOO = sys.argv[1:4]
SHAPES = {"keyword": (1, 1, 49, 10), "image": (1, 3, 224, 224)}
RANDOM = np.random.default_rng(7)
SESSIONS = {}


def reference(variant, tensor):
    if variant not in SESSIONS:
        SESSIONS[variant] = onnxruntime.InferenceSession(f"{ZOO}/{variant}.onnx", providers=["CPUExecutionProvider"])
    return SESSIONS[variant].run(None, {"input": tensor})[0]


def tensor_of(model):
    return RANDOM.standard_normal(SHAPES[model]).astype(np.float32)


def ask(module, model, tensor, binary=True):
    given = module.InferInput("input", tensor.shape, "FP32")
    if module is http or module is http_aio:
        given.set_data_from_numpy(tensor, binary_data=binary)
        wanted = module.InferRequestedOutput("output", binary_data=binary)
    else:
        given.set_data_from_numpy(tensor)
        wanted = module.InferRequestedOutput("output")
    return dict(model_name=model, inputs=[given], outputs=[wanted])


def parameters(result):
    """Response parameters of either client as plain values."""
    response = result.get_response()
    if isinstance(response, dict):
        return response["parameters"]
    return {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in response.parameters.items()}


def check_answer(result, tensor):
    got = result.as_numpy("output")
    want = reference(parameters(result)["variant"], tensor)
    assert got.shape == want.shape and got.dtype == np.float32, (got.shape, got.dtype)
    off = float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))
    assert off < 1e-4, off


def refused(words, call, *codes):
    """The call fails; its message holds the words and its status is one of the codes."""
    try:
        call()
    except InferenceServerException as error:
        assert words in str(error), f"`{words}` is not in: {error}"
        assert not codes or any(code in str(error.status()) for code in codes), (codes, error.status())
        return
    raise AssertionError(f"not refused: {words}")


def health_and_metadata(h, g):
    for client in (h, g):
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("keyword", "1")
    assert not h.is_model_ready("nope")
    server = h.get_server_metadata()
    assert server["name"] == g.get_server_metadata().name == "cosched"
    assert server["extensions"] == list(g.get_server_metadata().extensions)
    over_http, over_grpc = h.get_model_metadata("image"), g.get_model_metadata("image", as_json=True)
    assert over_http["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [1, 3, 224, 224]}], over_http
    assert [int(d) for d in over_grpc["inputs"][0]["shape"]] == [1, 3, 224, 224], over_grpc
    assert h.get_model_config("image")["input"][0]["data_type"] == "TYPE_FP32"
    assert g.get_model_config("image").config.input[0].dims == [1, 3, 224, 224]
    names = sorted(m["name"] for m in h.get_model_repository_index())
    assert names == sorted(m.name for m in g.get_model_repository_index().models) == ["image", "keyword"], names


def answers(h, g):
    for model in SHAPES:
        for _ in range(3):
            tensor = tensor_of(model)
            check_answer(h.infer(**ask(http, model, tensor)), tensor)
            check_answer(h.infer(**ask(http, model, tensor, binary=False)), tensor)
            check_answer(g.infer(**ask(grpc, model, tensor)), tensor)
            # No outputs named: all of them, binary.
            question = ask(http, model, tensor)
            del question["outputs"]
            check_answer(h.infer(**question), tensor)
    # The saboteur: the answer to another tensor is not this one's.
    result = h.infer(**ask(http, "keyword", tensor_of("keyword")))
    try:
        check_answer(result, tensor_of("keyword"))
    except AssertionError:
        return
    raise AssertionError("any answer is taken for the right one")


def request_parameters(h, g):
    for module, client in ((http, h), (grpc, g)):
        for variant in ("kws", "kws_small"):
            tensor = tensor_of("keyword")
            told = dict(variant=variant, stream="microphone", deadline_ms=15000)
            result = client.infer(**ask(module, "keyword", tensor), request_id="abc", priority=1, timeout=20_000_000, parameters=told)
            check_answer(result, tensor)
            seen = parameters(result)
            assert (seen["variant"], seen["processors"], seen["late"]) == (variant, "cpu", False), seen
            assert seen["compute_us"] > 0 and seen["queue_us"] >= 0, seen
            response = result.get_response()
            assert (response["id"] if isinstance(response, dict) else response.id) == "abc"
        assert client.infer(**ask(module, "keyword", tensor), model_version="1") is not None


def errors(h, g):
    for module, client, invalid, unknown in ((http, h, "400", "404"), (grpc, g, "INVALID_ARGUMENT", "NOT_FOUND")):
        tensor = tensor_of("keyword")
        good = ask(module, "keyword", tensor)
        refused("unknown model", lambda: client.infer(**{**good, "model_name": "nope"}), unknown)
        refused("no version", lambda: client.infer(**good, model_version="2"), unknown)
        refused("expected shape", lambda: client.infer(**ask(module, "keyword", tensor.reshape(1, 490))), invalid)
        refused("no variant", lambda: client.infer(**good, parameters={"variant": "x"}), invalid)
        wrong = module.InferInput("input", tensor.shape, "INT64")
        wrong.set_data_from_numpy(tensor.astype(np.int64))
        refused("datatype FP32", lambda: client.infer("keyword", [wrong]), invalid)
        wrong = module.InferInput("x", tensor.shape, "FP32")
        wrong.set_data_from_numpy(tensor)
        refused("no input", lambda: client.infer("keyword", [wrong]), invalid)
        refused("no output", lambda: client.infer("keyword", good["inputs"], outputs=[module.InferRequestedOutput("x")]), invalid)
        refused("unknown model", lambda: client.load_model("nope"), unknown)
        refused("unknown model", lambda: client.unload_model("nope"), unknown)
        refused("unknown model", lambda: client.get_model_metadata("nope"), unknown)
        check_answer(client.infer(**good), tensor)


def repository(h, g):
    """A model goes and comes back by either client, while the other one asks another model without a break."""
    for module, client in ((http, h), (grpc, g)):
        tensor = tensor_of("keyword")
        with ThreadPoolExecutor(1) as pool:
            others = [pool.submit(client_of(module).infer, **ask(module, "image", tensor_of("image"))) for _ in range(20)]
            client.unload_model("keyword")
            assert not client.is_model_ready("keyword") and client.is_model_ready("image")
            refused("unknown model", lambda: client.infer(**ask(module, "keyword", tensor)))
            index = client.get_model_repository_index()
            states = {m["name"]: m["state"] for m in index} if module is http else {m.name: m.state for m in index.models}
            assert states == {"image": "READY", "keyword": "UNAVAILABLE"}, states
            client.load_model("keyword")
            check_answer(client.infer(**ask(module, "keyword", tensor)), tensor)
            for answer in others:
                assert answer.result() is not None


def metrics(h, g):
    """An independent parser reads the whole page; counters and histograms are what their names say."""
    page = urllib.request.urlopen(f"http://{HTTP}/metrics").read().decode()
    families = {f.name: f for f in text_string_to_metric_families(page)}
    kept = sum(line.split(" ")[0].split("{")[0].startswith(("nv_", "cosched_")) for line in page.splitlines() if line[0] != "#")
    assert kept == sum(len(f.samples) for f in families.values()) > 50, (kept, families.keys())
    success = {s.labels["model"]: s.value for s in families["nv_inference_request_success"].samples}
    buckets = [s for s in families["cosched_request_seconds"].samples if s.name.endswith("_bucket") and s.labels["model"] == "keyword"]
    values = [s.value for s in buckets]
    assert buckets[-1].labels["le"] == "+Inf" and values == sorted(values) and values[-1] == success["keyword"], values


def timeouts(h, g):
    """A queue of slow requests: those that wait 1 ms at most are told so, the others are answered."""
    tensor = tensor_of("image")
    for module, client, code in ((http, h, "504"), (grpc, g, "DEADLINE_EXCEEDED")):
        late = 0
        # On a busy machine the slow ones may begin too late to be in the way: then once more.
        for _ in range(20):
            with ThreadPoolExecutor(8) as pool:
                slow = [pool.submit(client_of(module).infer, **ask(module, "image", tensor)) for _ in range(7)]
                time.sleep(0.02)
                try:
                    client.infer(**ask(module, "image", tensor), timeout=1000)
                except InferenceServerException as error:
                    assert code in str(error.status()) and "expired" in str(error), error
                    late += 1
                for answer in slow:
                    check_answer(answer.result(), tensor)
            if late:
                break
        assert late == 1, f"{module.__name__}: always answered before 7 others"
    # The client's own deadline: its clock is coarse, so there is a queue here too.
    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            slow = [pool.submit(client_of(grpc).infer, **ask(grpc, "image", tensor)) for _ in range(7)]
            try:
                g.infer(**ask(grpc, "image", tensor), client_timeout=0.002)
            except InferenceServerException as error:
                assert "DEADLINE_EXCEEDED" in str(error.status()), error
                break
            finally:
                for answer in slow:
                    check_answer(answer.result(), tensor)
    else:
        raise AssertionError("the client's own deadline is never met")


def shared_memory(h, g):
    """Input and output in one object of shared memory, by either client."""
    for module, client in ((http, h), (grpc, g)):
        tensor = tensor_of("image")
        want = reference("mobilenet_v2_050", tensor)
        handle = shm.create_shared_memory_region("tensors", "/cosched-clients", tensor.nbytes + want.nbytes)
        try:
            shm.set_shared_memory_region(handle, [tensor])
            client.register_system_shared_memory("tensors", "/cosched-clients", tensor.nbytes + want.nbytes)
            status = client.get_system_shared_memory_status()
            assert "tensors" in str(status), status
            given = module.InferInput("input", tensor.shape, "FP32")
            given.set_shared_memory("tensors", tensor.nbytes)
            wanted = module.InferRequestedOutput("output")
            wanted.set_shared_memory("tensors", want.nbytes, offset=tensor.nbytes)
            result = client.infer("image", [given], outputs=[wanted])
            assert result.get_output("output") is not None
            got = shm.get_contents_as_numpy(handle, np.float32, want.shape, offset=tensor.nbytes)
            assert float(np.abs(got - want).max() / np.abs(want).max()) < 1e-4
            refused("shared memory", lambda: client.register_system_shared_memory("other", "/cosched-nothing", 4))
            client.unregister_system_shared_memory("tensors")
            refused("no shared memory region", lambda: client.infer("image", [given], outputs=[wanted]))
        finally:
            shm.destroy_shared_memory_region(handle)


def client_of(module):
    return module.InferenceServerClient(HTTP if module is http else GRPC)


def concurrency(h, g):
    many = http.InferenceServerClient(HTTP, concurrency=32)
    tensors = [tensor_of("keyword") for _ in range(64)]
    begun = [many.async_infer(**ask(http, "keyword", t)) for t in tensors]
    for answer, tensor in zip(begun, tensors):
        check_answer(answer.get_result(), tensor)
    seen = [None] * len(tensors)

    def hear(i):
        def heard(result, error):
            seen[i] = error or result

        return heard

    for i, tensor in enumerate(tensors):
        g.async_infer(**ask(grpc, "keyword", tensor), callback=hear(i))
    until = time.time() + 60
    while any(s is None for s in seen) and time.time() < until:
        time.sleep(0.01)
    for result, tensor in zip(seen, tensors):
        check_answer(result, tensor)


async def asyncio_clients():
    for module, address in ((http_aio, HTTP), (grpc_aio, GRPC)):
        async with module.InferenceServerClient(address) as client:
            tensors = [tensor_of("keyword") for _ in range(32)]
            answers = await asyncio.gather(*(client.infer(**ask(module, "keyword", t)) for t in tensors))
            for answer, tensor in zip(answers, tensors):
                check_answer(answer, tensor)


def statistics(h, g):
    def counts():
        stats = h.get_inference_statistics("keyword")["model_stats"][0]["inference_stats"]
        return [stats[key]["count"] for key in ("success", "queue", "compute_input", "compute_infer", "compute_output")]

    before = counts()
    h.infer(**ask(http, "keyword", tensor_of("keyword")))
    after = counts()
    assert len(set(before)) == len(set(after)) == 1 and after[0] == before[0] + 1, (before, after)
    over_grpc = g.get_inference_statistics("keyword").model_stats[0].inference_stats
    assert over_grpc.success.count == after[0]
    page = urllib.request.urlopen(f"http://{HTTP}/metrics").read().decode()
    assert f'nv_inference_request_success{{model="keyword",version="1"}} {after[0]}\n' in page


def main():
    h, g = client_of(http), client_of(grpc)
    for check in (health_and_metadata, answers, request_parameters, errors, timeouts, shared_memory, concurrency, repository, statistics, metrics):
        check(h, g)
        print(f"good: {check.__name__}", flush=True)
    asyncio.run(asyncio_clients())
    print("good: asyncio_clients", flush=True)


main()
