#!/usr/bin/env python3
"""A plain server of the Open Inference Protocol v2 over onnxruntime, to measure `cosched serve` beside: HTTP/1.1, a thread a connection.

    onnx_server.py FOLDER NAME...

Serves FOLDER/NAME.onnx each as model NAME on a free port of loopback and prints the address. It speaks what `cosched load` asks: metadata
and infer with binary tensors. It refuses scheduling, deadlines, batches and everything else.
"""
import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime

TYPES = {"tensor(float)": ("FP32", np.float32), "tensor(int64)": ("INT64", np.int64)}


class Model:
    def __init__(self, folder, name):
        options = onnxruntime.SessionOptions()
        # As cosched's cpu processor has it.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options, providers=["CPUExecutionProvider"])
        tensor = lambda t: {"name": t.name, "datatype": TYPES[t.type][0], "shape": t.shape}
        tensors = lambda ports: [tensor(t) for t in ports]
        ports = dict(inputs=tensors(self.session.get_inputs()), outputs=tensors(self.session.get_outputs()))
        self.metadata = dict(name=name, versions=["1"], platform="onnxruntime", **ports)

    def infer(self, body, json_bytes):
        head, at, feeds = json.loads(body[:json_bytes]), json_bytes, {}
        for given, port in zip(head["inputs"], self.session.get_inputs()):
            size = given["parameters"]["binary_data_size"]
            feeds[given["name"]] = np.frombuffer(body, TYPES[port.type][1], size // TYPES[port.type][1]().itemsize, at).reshape(given["shape"])
            at += size
        names = [o["name"] for o in self.metadata["outputs"]]
        blobs, outputs = [], []
        for name, value in zip(names, self.session.run(names, feeds)):
            blobs.append(value.tobytes())
            outputs.append({"name": name, "datatype": "FP32", "shape": value.shape, "parameters": {"binary_data_size": len(blobs[-1])}})
        told = json.dumps({"model_name": self.metadata["name"], "model_version": "1", "outputs": outputs}).encode()
        return told, b"".join(blobs)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # One packet an answer.
    models = {}

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def answer(self, status, body, json_bytes=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if json_bytes is not None:
            self.send_header("Inference-Header-Content-Length", str(json_bytes))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def model(self):
        return self.models.get(self.path.split("/")[3]) if self.path.startswith("/v2/models/") else None

    def do_GET(self):
        model = self.model()
        if self.path == "/v2":
            return self.answer(200, json.dumps({"name": "plain", "version": "1", "extensions": ["binary_tensor_data"]}).encode())
        if model is None:
            return self.answer(404, b'{"error":"no such model"}')
        self.answer(200, json.dumps(model.metadata).encode())

    def do_POST(self):
        body, model = self.rfile.read(int(self.headers["Content-Length"])), self.model()
        if model is None:
            return self.answer(404, b'{"error":"no such model"}')
        head, blobs = model.infer(body, int(self.headers["Inference-Header-Content-Length"]))
        self.answer(200, head + blobs, len(head))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # The library's 5 lets the system drop connections that come together; the client's system then tries again for up to two minutes.
    request_queue_size = 1024


def main():
    folder, names = sys.argv[1], sys.argv[2:]
    Handler.models = {name: Model(folder, name) for name in names}
    server = Server(("127.0.0.1", 0), Handler)
    print(f"serving HTTP on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


main()
