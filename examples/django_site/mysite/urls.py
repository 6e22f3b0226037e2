"""The pages of the site. The engine's path is not listed, because the engine is in front of Django."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from mysite.views import home

urlpatterns = [
    path("", home),
    path("login/", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
]
