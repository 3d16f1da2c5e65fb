import json
from pathlib import Path

from bodies import digest
from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page


class PersonForm(forms.Form):
    name = forms.CharField(max_length=20)
    age = forms.IntegerField(min_value=0)


def index(request):
    return HttpResponse("<h1>It works</h1>")


def form(request):
    person = PersonForm(request.POST or None)
    if person.is_valid():
        messages.success(request, f"saved {person.cleaned_data['name']}")
        return redirect("messages")
    return render(request, "form.html", {"form": person})


def message_list(request):
    texts = [str(message) for message in messages.get_messages(request)]
    return JsonResponse({"messages": texts})


@csrf_exempt
def as_json(request):
    return JsonResponse({"got": json.loads(request.body)})


@csrf_exempt
def upload(request):
    files = [
        {"field": field, "name": file.name, **digest(file)}
        for field in request.FILES
        for file in request.FILES.getlist(field)
    ]
    return JsonResponse({"form": dict(request.POST.lists()), "files": files})


@csrf_exempt
def raw(request):
    length = request.META.get("CONTENT_LENGTH")
    return JsonResponse(digest(request) | {"length": int(length)})


def stream(request, count):
    lines = (f"{request.path} {number}\n" for number in range(count))
    return StreamingHttpResponse(lines, content_type="text/plain")


def download(request, name):
    path = Path(settings.FILES, name)
    if not path.is_file():
        raise Http404
    return FileResponse(path.open("rb"), as_attachment=True)


@csrf_exempt
def login(request):
    request.session["user"] = request.POST["user"]
    return redirect("account")


def account(request):
    if "user" not in request.session:
        return redirect("index")
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"user": request.session["user"], "visits": visits})


@csrf_exempt
def logout(request):
    request.session.flush()
    return HttpResponse(status=204)


def url(request, name):
    return JsonResponse(
        {
            "name": name,
            "args": dict(request.GET.lists()),
            "url": request.build_absolute_uri(),
            "remote": request.META["REMOTE_ADDR"],
        }
    )


@gzip_page
def compressed(request):
    return HttpResponse("word " * 10_000)


def broken(request):
    raise RuntimeError("broken on purpose")


def broken_stream(request):
    def lines():
        yield "line\n"
        raise RuntimeError("broken on purpose")

    return StreamingHttpResponse(lines())
