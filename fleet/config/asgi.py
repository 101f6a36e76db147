"""What uvicorn serves: Django, behind a limit on the size of request bodies."""

import os
import warnings

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import get_resolver

from fleet.config.body_limit import BodyLimit
from fleet.config.checks import exit_on_errors

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.config.settings")
# WhiteNoise streams small files with a plain iterator; Django says so at the first one of every process.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

_django = get_asgi_application()
exit_on_errors()
# All pages are imported now: a mistake in one stops the start, instead of answering 500 to everybody's first request.
get_resolver().url_patterns  # noqa: B018
application = BodyLimit(_django, settings.UPLOAD_MAX_BYTES)
