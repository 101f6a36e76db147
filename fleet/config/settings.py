"""Django's settings. Every environment variable is described in `fleet.config.environment`; nothing else is read."""

from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from csp.constants import NONCE, NONE, SELF, UNSAFE_INLINE

from fleet.config import connections
from fleet.config.environment import connection, flag, folder, listed, number, text
from fleet.config.secret import secret_key

try:
    TINYFLEET_VERSION = version("tinyfleet")
except PackageNotFoundError:  # run from a source tree that was never installed
    TINYFLEET_VERSION = "0"

# --- where things are ----------------------------------------------------------------------------

VAR = folder("TINYFLEET_VAR")
KEYS_DIR = folder("KEYS_DIR", VAR / "keys")
PUBLIC_URL = text("PUBLIC_URL").rstrip("/")
_public = urlsplit(PUBLIC_URL)

SECRET_KEY = text("SECRET_KEY") or secret_key(VAR / "secret_key")
DEBUG = flag("DEBUG")

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *listed("ALLOWED_HOSTS")]
if _public.hostname:
    ALLOWED_HOSTS.append(f"[{_public.hostname}]" if ":" in _public.hostname else _public.hostname)
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"] if _public.scheme in ("http", "https") else []

# --- what it is made of --------------------------------------------------------------------------

INSTALLED_APPS = [
    "fleet.config",
    "fleet.dashboard",
    "fleet.gateway",
    "fleet.rollouts",
    "fleet.telemetry",
    "fleet.inventory",
    "compression_jobs",
    "fleet.registry",
    "fleet.accounts",
    "auditlog",
    "csp",
    "django_filters",
    "django_htmx",
    "django_prometheus",
    "django_tables2",
    "ninja",  # so that the API's pages take their scripts from here, not from a CDN
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "auditlog.middleware.AuditlogMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "fleet.config.urls"
ASGI_APPLICATION = "fleet.config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "csp.context_processors.nonce",
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# --- services, one URL each ----------------------------------------------------------------------

DATABASES = {
    "default": connection("DATABASE_URL", lambda url: connections.database(url, VAR / "tinyfleet.sqlite3"))
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = text("REDIS_URL")
CACHES = {"default": connection("REDIS_URL", connections.cache)}

STORAGES = {
    "default": connection("STORAGE_URL", lambda url: connections.storage(url, VAR / "blobs")),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

MQTT_URL = text("MQTT_URL")
MQTT_HOST, MQTT_PORT, MQTT_TLS = connection("MQTT_URL", connections.mqtt)
MQTT_DEVICE_HOST, MQTT_DEVICE_PORT, MQTT_DEVICE_TLS = connection(
    "MQTT_DEVICE_URL", lambda url: connections.mqtt(url) if url else (MQTT_HOST, MQTT_PORT, MQTT_TLS)
)
MQTT_CA_FILE = text("MQTT_CA_FILE")
BROKER_GRANTS = text("BROKER_GRANTS")

UPLOAD_MAX_BYTES = number("UPLOAD_MAX_BYTES")
BLOB_MQTT_MAX_BYTES = number("BLOB_MQTT_MAX_BYTES")
JOB_MAX_SECONDS = number("JOB_MAX_SECONDS")

# Names of hosts are compared as addresses give them.
WEBHOOK_HOSTS = [host.lower() for host in listed("WEBHOOK_HOSTS")]
DEFAULT_FROM_EMAIL = text("EMAIL_FROM")
EMAIL_TIMEOUT = 8
globals().update(connection("EMAIL_URL", connections.email))

# The whole body is limited in `asgi.py`; this limits only the form fields that Django keeps in memory.
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 8
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# Without a bound one request could ask for every report there is.
NINJA_PAGINATION_CLASS = "fleet.config.pagination.Pages"

# --- pages ---------------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "static/"
# Served from the packages themselves, so an installed wheel needs no collected copy that can be out of date.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

LOGIN_URL = "dashboard:login"
LOGIN_REDIRECT_URL = "dashboard:overview"
LOGOUT_REDIRECT_URL = "dashboard:login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

DJANGO_TABLES2_TEMPLATE = "django_tables2/bootstrap5-responsive.html"

# --- security ------------------------------------------------------------------------------------

_tls = _public.scheme == "https"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _tls
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 7 * 24 * 3600
SECURE_HSTS_SECONDS = 30 * 24 * 3600 if _tls else 0
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if flag("TRUST_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        # Chart tooltips and progress bars carry style attributes, which cannot load or run anything.
        "style-src-attr": [UNSAFE_INLINE],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# --- logging, audit, metrics ---------------------------------------------------------------------

LOG_LEVEL = text("LOG_LEVEL").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {
        "handlers": ["console"],
        "level": LOG_LEVEL if LOG_LEVEL in ("DEBUG", "INFO", "WARNING", "ERROR") else "INFO",
    },
    "loggers": {
        "django.db.backends": {"level": "INFO"},
        "django.template": {"level": "INFO"},
        # Every scanner of the internet guesses host names; the answer 400 is enough.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
    },
}

PROMETHEUS_EXPORT_MIGRATIONS = False
# What people decide is kept; what devices report changes all day and has its own history.
AUDITLOG_INCLUDE_TRACKING_MODELS = (
    "registry.Model",
    "registry.Alias",
    "registry.Target",
    {"model": "inventory.DeviceGroup", "m2m_fields": []},
    {"model": "inventory.Device", "include_fields": ["name", "target", "labels", "state"]},
    {"model": "inventory.EnrolmentToken", "exclude_fields": ["digest"]},
    {
        "model": "rollouts.Rollout",
        "include_fields": ["version", "group", "app", "strategy", "state", "reason"],
    },
    {"model": "accounts.ApiToken", "include_fields": ["user", "name", "expires_at", "revoked_at"]},
    {
        "model": "auth.User",
        "include_fields": ["username", "is_active", "is_staff", "is_superuser"],
        "m2m_fields": ["groups"],
    },
)

# --- Celery --------------------------------------------------------------------------------------

CELERY_BROKER_URL = REDIS_URL
