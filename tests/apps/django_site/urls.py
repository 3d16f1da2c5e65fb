from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("account", views.account, name="account"),
    path("broken", views.broken),
    path("broken-stream", views.broken_stream),
    path("compressed", views.compressed),
    path("download/<name>", views.download),
    path("form", views.form),
    path("json", views.as_json),
    path("login", views.login),
    path("logout", views.logout),
    path("messages", views.message_list, name="messages"),
    path("raw", views.raw),
    path("stream/<int:count>", views.stream),
    path("upload", views.upload),
    path("url/<path:name>", views.url),
]
