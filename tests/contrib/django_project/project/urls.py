"""The project's pages."""

from __future__ import annotations

from django.contrib.auth.views import LoginView
from django.urls import path

from project import views

urlpatterns = [
    path("", views.home),
    path("login/", LoginView.as_view(template_name="login.html")),
    path("state/", views.state),
]
