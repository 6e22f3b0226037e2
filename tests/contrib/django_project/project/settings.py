"""Settings; what differs between tests is in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "for the tests only"
DEBUG = os.environ.get("PROJECT_DEBUG", "1") == "1"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = os.environ.get("PROJECT_APPLICATION", "project.wsgi.application")
LOGIN_REDIRECT_URL = "/"
SESSION_SAVE_EVERY_REQUEST = "PROJECT_SAVES_SESSIONS" in os.environ
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "engineio_wsgi.contrib.django",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "project.middleware.Tenant",
    "project.middleware.Doorkeeper",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [BASE_DIR / "project"]}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE_DIR / "db.sqlite3"),
        "CONN_MAX_AGE": int(os.environ.get("PROJECT_MAX_AGE", "0")),
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others are slow on purpose
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ENGINEIO = json.loads(os.environ.get("PROJECT_ENGINEIO", '{"PING_INTERVAL": 7}'))
