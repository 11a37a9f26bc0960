"""The rest of a Django application around the README's views.py."""

import django.conf
from django.core.wsgi import get_wsgi_application
from django.urls import path

django.conf.settings.configure(SECRET_KEY="for a test", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__)

import views  # noqa: E402  # the README's, beside this file; Django wants its settings first

urlpatterns = [path("say/<word>", views.say)]
app = get_wsgi_application()
