"""The server's side of one delivery, played by hand: a real model, its self-test, chunks, index and signed manifest."""

import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from device_agent.core import coding, protocol, selftest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = bytes(8)
CLASSES = 3
Publish = Callable[[str, bytes], None]


def keys() -> list[dict[str, str]]:
    """What the provisioning file says about the signing key."""
    return [{"id": KEY_ID.hex(), "key": KEY.public_key().public_bytes_raw().hex()}]


def model(folder: Path) -> bytes:
    """A model that answers the place of its largest input as the class."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CLASSES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(np.eye(CLASSES, dtype=np.float32) * 8, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx"
    )
    return (folder / "m.onnx").read_bytes()


def self_test() -> bytes:
    """What the model answers, as the server saw it."""
    file = io.BytesIO()
    rows = np.eye(CLASSES, dtype="<f4")
    samples = [([row.tobytes()], [(row * 8).tobytes()]) for row in rows]
    spec = {"dtype": "float32", "shape": [1, CLASSES]}
    selftest.write(file, [spec], [spec], {"mode": "atol", "value": 1e-4}, samples, True)
    return file.getvalue()


class Server:
    """Publishes deliveries to one device through `publish(topic, payload)`, which must retain."""

    def __init__(self, publish: Publish, device: str, chunk_bytes: int) -> None:
        self.publish = publish
        self.device = device
        self.chunk_bytes = chunk_bytes
        self.sequence = 0

    def blob(self, data: bytes) -> dict[str, Any]:
        """Publish a blob and its index; returns how the manifest names it."""
        step = self.chunk_bytes
        index = b"".join(hashlib.sha256(data[at : at + step]).digest() for at in range(0, len(data), step))
        for blob in (index, data):
            sha256 = hashlib.sha256(blob).hexdigest()
            for at in range(0, len(blob), step):
                self.publish(protocol.chunk_topic(sha256, step, at // step), blob[at : at + step])
        names = {"sha256": hashlib.sha256(data).hexdigest(), "index": hashlib.sha256(index).hexdigest()}
        return {**names, "bytes": len(data), "chunk_bytes": step}

    def deliver(
        self,
        artifact: bytes,
        target: str,
        trial: dict[str, Any] | None = None,
        form: str = "onnx",
        test: bytes | None = None,
        coded: str = "deflate",
    ) -> None:
        """Publish everything one delivery needs, the manifest last."""
        self.sequence += 1
        now = int(time.time())
        manifest = {
            "v": protocol.VERSION,
            "sequence": self.sequence,
            "issued_at": now,
            "expires_at": now + 3600,
            "device": self.device,
            "app": "main",
            "delivery": f"delivery-{self.sequence}",
            "target": target,
            "model": "tiny",
            "version": self.sequence,
            "artifact": {
                "sha256": hashlib.sha256(artifact).hexdigest(),
                "bytes": len(artifact),
                "format": form,
            },
            "transport": {**self.blob(coding.encode(coded, artifact)), "coding": coded},
            "self_test": self.blob(test or self_test()),
            "signature_spec": {"task": "classification", "classes": ["low", "middle", "high"]},
            "trial": trial,
            "keys": [],
        }
        body = json.dumps(manifest).encode()
        self.publish(
            protocol.desired_topic(self.device, "main"), protocol.seal_manifest(KEY.sign(body), KEY_ID, body)
        )
