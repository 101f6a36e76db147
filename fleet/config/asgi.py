"""What uvicorn serves: Django, behind a limit on the size of request bodies."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.config.settings")
application = get_asgi_application()
