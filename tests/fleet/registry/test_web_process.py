"""The web process stays light: none of the model tools is loaded to answer requests or hand work over."""

import os
import subprocess
import sys

CODE = """
import sys, django
django.setup()
from django.urls import get_resolver
from ninja.openapi.schema import get_schema
from fleet.config.api import api
get_resolver().url_patterns
get_schema(api)
import compression_jobs.tasks, fleet.registry.tasks
heavy = {"onnx", "onnxruntime", "torch", "onnxslim", "scipy", "sklearn", "ai_edge_litert"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_loading_every_address_loads_no_model_tools() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def _environment() -> dict[str, str]:

    return os.environ | {"DJANGO_SETTINGS_MODULE": "fleet.config.settings"}
