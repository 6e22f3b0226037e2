"""The pages of the site; the engine's path is not among them, because it wraps the whole."""

from __future__ import annotations

from django.contrib.auth.views import LoginView
from django.urls import path

from chatsite.views import home

urlpatterns = [
    path("", home),
    path("login/", LoginView.as_view(template_name="login.html")),
]
